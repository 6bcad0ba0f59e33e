"""Modularity by hand, Leiden on planted blocks, and shuffles that know what they keep."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from heldout.analyses.degeneracy.graph import LayeredGraph, layered_graph
from heldout.analyses.degeneracy.modules import (
    find_layered_modules,
    find_modules,
    layered_modularity,
    leiden,
    newman_modularity,
    numbered,
    stability,
)
from heldout.analyses.degeneracy.shuffles import Null, shuffle_test, shuffled
from heldout.errors import ConfigError, StatisticsError

ONES = np.ones((2, 2))
BLOCKS = np.kron(np.eye(2), ONES)  # 4 features -> 4, two blocks of two


def two_blocks(layers: int = 4) -> LayeredGraph:
    return layered_graph([BLOCKS] * (layers - 1))


def random_graph(seed: int, sizes: tuple[int, ...] = (7, 9, 5, 8), density: float = 0.5) -> LayeredGraph:
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return layered_graph([rng.exponential(size=s) * (rng.random(s) < density) for s in shapes])


def brute_newman(graph: LayeredGraph, labels: np.ndarray) -> float:
    """1/2W sum_uv [A_uv - k_u k_v / 2W] [c_u = c_v] on the whole adjacency matrix."""
    a = np.zeros((graph.nodes, graph.nodes))
    for s, t, w in zip(*graph.edges(), strict=True):
        a[s, t] = a[t, s] = w
    k = a.sum(axis=0)
    same = labels[:, None] == labels
    return float(((a - np.outer(k, k) / a.sum()) * same).sum() / a.sum())


def brute_layered(graph: LayeredGraph, labels: np.ndarray) -> float:
    score, total = 0.0, 0.0
    for number, w in enumerate(graph.weights):
        for i, j in product(*map(range, w.shape)):
            same = labels[graph.starts[number + 1] + i] == labels[graph.starts[number] + j]
            score += same * (w[i, j] - w[i].sum() * w[:, j].sum() / w.sum())
        total += w.sum()
    return score / total


def test_modularity_by_hand() -> None:
    """Two blocks apart and alike: all weight is inside, half is expected inside, by either null."""
    graph, labels = two_blocks(), np.array([0, 0, 1, 1] * 4)
    assert newman_modularity(graph, labels) == pytest.approx(0.5, abs=1e-15)
    assert layered_modularity(graph, labels) == pytest.approx(0.5, abs=1e-15)
    # Four blocks: 1 - 4/16.
    four = layered_graph([np.kron(np.eye(4), ONES)] * 2)
    assert newman_modularity(four, np.array([0, 0, 1, 1, 2, 2, 3, 3] * 3)) == pytest.approx(0.75, abs=1e-15)
    # One edge of weight 3 and one of weight 1, apart: 1 - (6/8)^2 - (2/8)^2.
    uneven = layered_graph([np.diag([3.0, 1.0])])
    assert newman_modularity(uneven, np.array([0, 1, 0, 1])) == pytest.approx(0.375, abs=1e-15)
    assert layered_modularity(uneven, np.array([0, 1, 0, 1])) == pytest.approx(0.375, abs=1e-15)
    # All in one module, and each node its own.
    everything = np.zeros(16, dtype=np.int64)
    assert newman_modularity(graph, everything) == layered_modularity(graph, everything) == 0
    assert newman_modularity(graph, everything, resolution=2.0) == -1
    assert layered_modularity(graph, np.arange(16)) == 0
    assert newman_modularity(graph, np.arange(16)) == pytest.approx(-(8 * 2**2 + 8 * 4**2) / 48**2, abs=1e-15)


def test_only_newmans_null_rewards_a_partition_into_whole_layers() -> None:
    """Layers 0 and 1, then 2 and 3, of a graph without structure: 2/3 of the weight inside, 1/2 expected."""
    graph, labels = layered_graph([np.ones((4, 4))] * 3), np.repeat([0, 0, 1, 1], 4)
    assert newman_modularity(graph, labels) == pytest.approx(2 / 3 - 1 / 2, abs=1e-15)
    assert layered_modularity(graph, labels) == pytest.approx(0, abs=1e-15)


def test_newmans_score_cuts_deep_blocks_by_depth_and_the_layered_one_does_not() -> None:
    """Two blocks over six layers, or each cut in the middle: 4/5 inside; a quarter expected, or half of each section."""
    graph = two_blocks(6)
    block = np.array([0, 0, 1, 1] * 6)
    halves = block + 2 * (graph.layers > 2)
    assert newman_modularity(graph, block) == layered_modularity(graph, block) == pytest.approx(0.5, abs=1e-15)
    assert newman_modularity(graph, halves) == pytest.approx(4 / 5 - 1 / 4, abs=1e-15)
    assert layered_modularity(graph, halves) == pytest.approx(4 / 5 * 1 / 2, abs=1e-15)
    cut, whole = find_modules(graph), find_layered_modules(graph)
    assert whole.labels.tolist() == block.tolist()
    assert cut.labels.tolist() == numbered(halves).tolist()
    assert cut.newman > whole.newman
    assert cut.layered < whole.layered


@pytest.mark.parametrize("seed", range(100, 105))
def test_modularity_is_the_sum_over_pairs(seed: int) -> None:
    graph = random_graph(seed)
    labels = np.random.default_rng(seed).integers(0, 4, graph.nodes)
    assert newman_modularity(graph, labels) == pytest.approx(brute_newman(graph, labels), abs=1e-14)
    assert layered_modularity(graph, labels) == pytest.approx(brute_layered(graph, labels), abs=1e-14)


def test_modularity_agrees_with_networkit() -> None:
    import networkit

    graph = random_graph(100)
    labels = np.random.default_rng(1).integers(0, 3, graph.nodes)
    network = networkit.Graph(graph.nodes, weighted=True)
    for s, t, w in zip(*graph.edges(), strict=True):
        network.addEdge(int(s), int(t), float(w))
    partition = networkit.Partition(graph.nodes)
    partition.setUpperBound(3)
    for node, label in enumerate(labels.tolist()):
        partition.addToSubset(label, node)
    theirs = networkit.community.Modularity().getQuality(partition, network)
    assert newman_modularity(graph, labels) == pytest.approx(theirs, abs=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_leiden_finds_planted_blocks(seed: int) -> None:
    """T13, on blocks apart: both found from every seed, with all weight inside."""
    found = leiden(two_blocks(), seed=seed)
    assert found.labels.tolist() == [0, 0, 1, 1] * 4
    assert found.newman == pytest.approx(0.5, abs=1e-15)
    assert found.inside().tolist() == [1, 1, 1]
    assert found.table().to_dict("list") == {"module": [0, 1], "size": [8, 8], "span": [4, 4], "width": [2.0, 2.0]}


def test_leiden_finds_blocks_under_noise() -> None:
    """Three blocks of six features over four layers; edges within are three times as strong as those between."""
    rng = np.random.default_rng(100)
    truth = np.tile(np.repeat([0, 1, 2], 6), 4)
    inside = np.kron(np.eye(3), np.ones((6, 6)))
    graph = layered_graph([rng.uniform(0.5, 1, (18, 18)) * (1 / 3 + 2 / 3 * inside) for _ in range(3)])
    assert find_modules(graph).labels.tolist() == truth.tolist()


def test_no_partition_beats_the_one_found_on_a_small_graph() -> None:
    """Every partition of seven nodes, all 877 of them."""

    def partitions(n: int) -> list[list[int]]:
        found = [[0]]
        for _ in range(n - 1):
            found = [[*p, c] for p in found for c in range(max(p) + 2)]
        return found

    every = [np.array(p) for p in partitions(7)]
    assert len(every) == 877
    for seed in range(100, 105):
        graph = random_graph(seed, (2, 3, 2), density=0.8)
        best = max(newman_modularity(graph, p) for p in every)
        assert find_modules(graph).newman == pytest.approx(best, abs=1e-14)


def test_the_same_seed_gives_the_same_modules_and_threads_stay_as_they_were() -> None:
    import networkit
    import torch

    graph = random_graph(100, (20, 25, 20, 15))
    before = networkit.getMaxNumberOfThreads(), torch.get_num_threads()
    runs = [leiden(graph, seed=s).labels.tobytes() for s in (3, 4, 3, 5, 3)]
    assert runs[0] == runs[2] == runs[4]
    assert len(set(runs)) > 1  # seeds do something
    assert (networkit.getMaxNumberOfThreads(), torch.get_num_threads()) == before


def test_another_process_finds_the_same_modules() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_degeneracy_modules as t;"
        "print(t.leiden(t.random_graph(100, (20, 25, 20, 15)), seed=3).labels.tolist())"
    )
    folder = __file__.rpartition("/")[0]
    out = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(leiden(random_graph(100, (20, 25, 20, 15)), seed=3).labels.tolist())


def test_networkit_is_loaded_only_when_modules_are_searched_for() -> None:
    code = "import heldout.analyses.degeneracy.shuffles, sys; print('networkit' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_higher_resolutions_make_more_modules_and_zero_makes_components() -> None:
    graph = random_graph(101, (12, 12, 12))
    counts = [len(np.unique(find_modules(graph, resolution=r).labels)) for r in (1e-3, 1.0, 10.0, 1000.0)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == graph.nodes
    assert find_modules(two_blocks(), resolution=1e-3).labels.tolist() == [0, 0, 1, 1] * 4


def test_the_order_of_features_within_layers_changes_nothing() -> None:
    rng = np.random.default_rng(100)
    graph = layered_graph([rng.uniform(0.5, 1, (6, 6)) * np.kron(np.eye(2), np.ones((3, 3))) + 0.05] * 2)
    orders = [rng.permutation(6) for _ in range(3)]
    moved = layered_graph([w[np.ix_(b, a)] for w, a, b in zip(graph.weights, orders[:-1], orders[1:], strict=True)])
    place = np.concatenate([6 * i + order for i, order in enumerate(orders)])
    one, other = find_modules(graph), find_modules(moved)
    assert numbered(one.labels[place]).tolist() == other.labels.tolist()
    assert one.newman == pytest.approx(other.newman, abs=1e-14)
    assert one.layered == pytest.approx(other.layered, abs=1e-14)


def test_modules_are_connected_and_features_without_an_edge_are_alone() -> None:
    graph = random_graph(102, (15, 15, 15), density=0.15)
    found = find_modules(graph)
    assert all((found.labels == found.labels[n]).sum() == 1 for n in np.flatnonzero(~graph.connected))
    sources, targets, _ = graph.edges()
    for label in np.unique(found.labels):
        members = set(np.flatnonzero(found.labels == label).tolist())
        reached, todo = set(), {min(members)}
        while todo:
            reached |= todo
            near = {int(t) for s, t in zip(sources, targets, strict=True) if s in todo}
            near |= {int(s) for s, t in zip(sources, targets, strict=True) if t in todo}
            todo = (near & members) - reached
        assert reached == members
    assert found.count == len(found.table())


@pytest.mark.parametrize("null", ["edges", "degrees"])
def test_a_shuffle_keeps_what_it_says(null: Null) -> None:
    graph = random_graph(103, density=0.4)
    other = shuffled(graph, np.random.default_rng(0), null=null)
    for a, b in zip(graph.weights, other.weights, strict=True):
        assert sorted(a.ravel()) == sorted(b.ravel())
        assert (a != b).any()
        if null == "degrees":
            assert ((a > 0).sum(axis=0) == (b > 0).sum(axis=0)).all()
            assert ((a > 0).sum(axis=1) == (b > 0).sum(axis=1)).all()
            assert ((a > 0) != (b > 0)).any()


def test_rewiring_reaches_every_graph_of_the_same_degrees_alike() -> None:
    """3 x 3 with one edge a row and column: six matrices; 1200 draws, chi-square with five degrees of freedom."""
    start = layered_graph([np.eye(3)])
    rng = np.random.default_rng(100)
    seen: dict[bytes, int] = {}
    for _ in range(1200):
        key = shuffled(start, rng, null="degrees").weights[0].tobytes()
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 6
    assert sum((n - 200) ** 2 / 200 for n in seen.values()) < 20.5  # p = .001


def test_planted_blocks_stand_out_and_a_graph_without_a_choice_does_not() -> None:
    rng = np.random.default_rng(100)
    strong = np.kron(np.eye(2), np.ones((5, 5))) * 2 + rng.uniform(0, 1, (10, 10))
    test = shuffle_test(layered_graph([strong, strong.T.copy()]), draws=20, seeds=range(3))
    assert test.z > 5
    assert test.z_layered > 5
    assert test.p == pytest.approx(1 / 21)
    assert test.newman.shape == test.layered.shape == (20,)
    same = shuffle_test(layered_graph([np.ones((4, 4))]), draws=3, seeds=(0,))
    assert np.isnan(same.z)
    assert same.p == 1
    again = shuffle_test(layered_graph([strong, strong.T.copy()]), draws=20, seeds=range(3))
    assert again.newman.tobytes() == test.newman.tobytes()


def test_stability_is_one_where_there_is_one_answer() -> None:
    table = stability(two_blocks(), resolutions=(0.5, 1.0), seeds=range(4))
    assert table["between_seeds"].tolist() == table["lowest"].tolist() == [1, 1]
    assert table["modules"].tolist() == [2, 2]
    assert table["to_next"].tolist()[0] == 1
    assert np.isnan(table["to_next"].iloc[1])
    loose = stability(random_graph(104, (20, 20, 20)), resolutions=(1.0,), seeds=range(5))
    assert 0 < loose["lowest"].iloc[0] < loose["between_seeds"].iloc[0] < 1


def test_features_without_an_edge_do_not_make_partitions_alike() -> None:
    graph = random_graph(104, (20, 20, 20))
    wide = layered_graph([np.pad(w, ((0, 30), (0, 30))) for w in graph.weights])
    one, other = (leiden(wide, seed=s).labels for s in (0, 1))
    at = wide.connected
    expected = adjusted_rand_score(one[at], other[at])
    assert stability(wide, resolutions=(1.0,), seeds=(0, 1))["lowest"].iloc[0] == pytest.approx(expected, abs=1e-15)
    assert abs(adjusted_rand_score(one, other) - expected) > 0.01  # it would matter


def test_what_cannot_be_asked() -> None:
    empty = layered_graph([np.zeros((2, 2))])
    with pytest.raises(StatisticsError, match="no modularity"):
        newman_modularity(empty, np.zeros(4, dtype=np.int64))
    with pytest.raises(StatisticsError, match="no modules"):
        stability(empty)
    with pytest.raises(ConfigError, match="one a node"):
        newman_modularity(two_blocks(), np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match="a resolution must be"):
        leiden(two_blocks(), resolution=-1)
    with pytest.raises(ConfigError, match="one seed or more"):
        find_modules(two_blocks(), seeds=())
    with pytest.raises(ConfigError, match="one resolution or more"):
        find_layered_modules(two_blocks(), resolutions=())
    with pytest.raises(ConfigError, match="two draws or more"):
        shuffle_test(two_blocks(), draws=1)
    with pytest.raises(ConfigError, match="unknown null 'rows'"):
        shuffled(two_blocks(), np.random.default_rng(0), null="rows")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two seeds or more"):
        stability(two_blocks(), seeds=(0,))


@pytest.mark.slow
@pytest.mark.parametrize("null", ["edges", "degrees"])
def test_a_graph_from_the_null_stands_out_as_often_as_it_may(null: Null) -> None:
    """200 graphs with exchangeable weights, 39 shuffles each: p <= .05 in about 5 %, z about 0 and 1."""
    tests = [
        shuffle_test(random_graph(1000 + i, (8, 8, 8)), draws=39, seeds=(0, 1), seed=i, null=null) for i in range(200)
    ]
    rejected = sum(t.p <= 0.05 for t in tests)
    assert 3 <= rejected <= 20  # binomial(200, .05): outside with probability .002
    z = np.array([t.z for t in tests])
    assert abs(z.mean()) < 4 / np.sqrt(200)
    assert 0.8 < z.std() < 1.25
