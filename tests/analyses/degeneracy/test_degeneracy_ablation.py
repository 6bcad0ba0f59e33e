"""Ablations against networks computed by hand, and the search for the fewest parts that are enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heldout.activations.probes import Probes
from heldout.activations.sections import Sections, chain
from heldout.activations.tap import Tap
from heldout.analyses.degeneracy.ablation import (
    EdgeAblation,
    NodeAblation,
    Performance,
    curve,
    fewest,
)
from heldout.analyses.degeneracy.edges import edge_matrix
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, SplitError
from heldout.networks.transformer import Transformer
from heldout.proxies.bases import local_bases, principal_bases
from heldout.tasks.base import Rectangular, Role, Split

DRAW = torch.Generator().manual_seed(0)
with torch.random.fork_rng():
    torch.manual_seed(0)
    NETWORK = chain(nn.Linear(6, 9), torch.tanh, nn.Linear(9, 7), torch.relu, nn.Linear(7, 4)).double()
    for parameter in NETWORK.parameters():
        parameter.data *= 3
    LANGUAGE = Transformer(9, width=6, layers=2, heads=2, max_length=8).eval()
INPUTS = torch.randn(330, 6, generator=DRAW, dtype=torch.float64) * torch.tensor([3.0, 2, 1, 0.5, 0.2, 0.1])
with torch.no_grad():
    TARGETS = (NETWORK(INPUTS) + 0.3 * torch.randn(330, 4, generator=DRAW)).argmax(dim=1)
LAYERS = [".:input", "1", "3", "4"]


def part(name: str, role: Role, start: int, stop: int) -> Split:
    return Split(name, role, Rectangular(INPUTS[start:stop], TARGETS[start:stop]))


FIT, SELECT, TEST = part("fit", "fit", 0, 150), part("select", "select", 150, 250), part("ood", "test", 250, 330)
SECTIONS = Sections(NETWORK, LAYERS)
BASES = local_bases(SECTIONS, FIT)
EDGES = [edge_matrix(SECTIONS, BASES, FIT, s) for s in range(3)]


def performance(logits: Tensor, targets: Tensor) -> Performance:
    right = (logits.argmax(dim=1) == targets).double().mean()
    return Performance(float(right), float(F.cross_entropy(logits, targets)), len(targets))


def close(a: Performance, b: Performance) -> None:
    assert (a.accuracy, a.n) == (b.accuracy, b.n)
    assert a.loss == pytest.approx(b.loss, rel=1e-10)


# --- edges ------------------------------------------------------------------------------------------------------------


def by_hand(kept: Tensor, section: int, x: Tensor) -> Tensor:
    """One pass an output feature, with nothing shared."""
    steps = [NETWORK[:2], NETWORK[2:4], NETWORK[4:]]
    first, second = BASES.bases[section : section + 2]
    for step in steps[:section]:
        x = step(x)
    features = first.encode(x)
    outcome = torch.empty(len(x), second.features, dtype=torch.float64)
    for i in range(second.features):
        outcome[:, i] = second.encode(steps[section](first.decode(features * kept[i])))[:, i]
    x = second.decode(outcome)
    for step in steps[section + 1 :]:
        x = step(x)
    return x


@pytest.mark.parametrize("section", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 5, 15])
@torch.no_grad()
def test_edge_ablation_is_one_pass_a_feature(section: int, count: int) -> None:
    ablation = EdgeAblation(SECTIONS, BASES, EDGES[section])
    kept = ablation.kept(count)
    assert int(kept.sum()) == count
    expected = by_hand(kept, section, TEST.items.inputs)
    close(ablation.score(kept, TEST), performance(expected, TEST.items.targets))
    close(ablation.score(kept, TEST, batch_size=33), performance(expected, TEST.items.targets))


@pytest.mark.parametrize("section", [0, 1, 2])
@torch.no_grad()
def test_all_edges_are_the_network_and_all_features_too(section: int) -> None:
    """T12: no edge removed leaves the logits to the last digit; what only an exact null removed, to 1e-8."""
    whole = performance(NETWORK(TEST.items.inputs), TEST.items.targets)
    edges = EdgeAblation(SECTIONS, BASES, EDGES[section])
    assert edges.score(edges.kept(edges.total), TEST) == whole
    batch = SECTIONS.prepared(TEST.items.take(range(80)))
    logits = NETWORK(batch.inputs)
    torch.testing.assert_close(edges._output(edges.kept(edges.total), batch), logits, rtol=0, atol=1e-10)
    nodes = NodeAblation(SECTIONS, BASES, LAYERS[section])
    assert nodes.score(nodes.kept(nodes.total), TEST) == whole
    site = LAYERS[section]
    with Tap(NETWORK, edit={site: lambda rows, mask: BASES[site].reconstruct(rows)}) as tap:
        torch.testing.assert_close(tap(batch).output, logits, rtol=0, atol=1e-8)


@torch.no_grad()
def test_edges_between_positions_with_padding() -> None:
    """With every edge but those of one feature removed, later layers see what a two-site edit would show them."""
    tokens = torch.randint(0, 9, (40, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.randint(3, 8, (40, 1), generator=torch.Generator().manual_seed(2))
    split = Split("fit", "fit", Rectangular(tokens, tokens.roll(-1, 1), mask=mask))
    sections = Sections(LANGUAGE, [("blocks.0:input", "1:"), ("blocks.0", "1:"), "blocks.1"])
    bases = local_bases(sections, split, probes=Probes("exact"))
    edges = edge_matrix(sections, bases, split, 0, probes=Probes("exact"))
    ablation = EdgeAblation(sections, bases, edges)
    kept = torch.zeros_like(edges.squares, dtype=torch.bool)
    kept[:, :2] = True  # every later feature sees the first two: as keeping two features, then projecting
    kept[0] = True
    double, counted = sections.network, mask & (torch.arange(7) > 0)
    first, second = bases.bases[:2]

    def part_of(rows: Tensor, data: Any) -> Tensor:
        return torch.where(counted[..., None], first.at(2).reconstruct(rows), rows)

    batch = sections.prepared(split.items.take(range(40)))
    with Tap(double, read=["blocks.0"]) as tap:
        whole = tap(batch)["blocks.0"]
    with Tap(double, read=["blocks.0"], edit={"blocks.0:input": part_of}) as tap:
        features = second.encode(tap(batch)["blocks.0"])
    features[..., 0] = second.encode(whole)[..., 0]
    rows = torch.where(counted[..., None], second.decode(features), whole)
    with Tap(double, edit={"blocks.0": lambda old, data: rows}) as tap:
        expected = tap(batch).output
    torch.testing.assert_close(ablation._output(kept, batch)[mask], expected[mask], rtol=0, atol=1e-9)


# --- nodes ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_node_ablation_is_the_edit_of_the_basis() -> None:
    nodes = NodeAblation(SECTIONS, BASES, "1")
    found = curve(nodes, TEST, [0, 2, 5, 9])
    for count, got in zip([0, 2, 5, 9], found, strict=True):
        hidden = NETWORK[:2](TEST.items.inputs)
        close(got, performance(NETWORK[2:](BASES["1"].at(count).reconstruct(hidden)), TEST.items.targets))
    close(nodes.score(nodes.kept(5), TEST, batch_size=7), found[2])  # the last batch is smaller and weighs less
    # The same edit goes through any study's measure of faithfulness.
    sink = Memory()
    outcome = faithfulness(Subject(NETWORK), [TEST], [nodes.edit(2), nodes.edit(9)], sink)
    assert outcome.check.passed
    assert outcome.agreement[1]["ood"] == 1.0
    assert outcome.agreement[0]["ood"] < 1.0


# --- the search -------------------------------------------------------------------------------------------------------


class Steps:
    """Accuracy rises at known counts."""

    def __init__(self, total: int, need: int) -> None:
        self.total, self.need, self.asked = total, need, 0

    def kept(self, count: int) -> Tensor:
        return torch.arange(self.total) < count

    def score(self, kept: Tensor, split: Split, *, batch_size: int = 256) -> Performance:
        self.asked += 1
        enough = int(kept.sum()) >= self.need
        return Performance(0.9 if enough else 0.5, 0.3 if enough else 2.0, 10)


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
@pytest.mark.parametrize("total", [1, 2, 17, 1000])
def test_the_fewest_are_found_and_masked_to_the_edge(total: int, measure: Any) -> None:
    for need in sorted({0, 1, min(2, total), total // 3, total - 1, total}):
        steps = Steps(total, need)
        found = fewest(steps, SELECT, measure=measure)
        assert found.count == need
        assert int(found.kept.sum()) == need
        assert need == 0 or found.tried[need - 1].accuracy == 0.5
        assert found.tried[need].accuracy == 0.9
        assert steps.asked <= 2 * total.bit_length() + 2


def test_counts_are_chosen_on_one_split_and_scored_on_another() -> None:
    for ablation in (EdgeAblation(SECTIONS, BASES, EDGES[1]), NodeAblation(SECTIONS, BASES, "1")):
        found = fewest(ablation, SELECT, measure="loss", tolerance=0.1)
        assert 0 < found.count < found.total
        assert int(found.kept.sum()) == found.count
        assert torch.equal(found.kept, ablation.kept(found.count))
        assert found.tried[found.count].within(0.1, found.whole, "loss")
        assert not found.tried[found.count - 1].within(0.1, found.whole, "loss")
        assert found.tried[found.count] == ablation.score(found.kept, SELECT)
        assert found.split == "select"
        assert ablation.score(found.kept, TEST).n == 80
        with pytest.raises(SplitError, match="may not be chosen on split 'ood'"):
            fewest(ablation, TEST)


def test_the_interaction_basis_needs_fewer_edges_where_principal_components_are_crooked() -> None:
    """A linear network whose neurons' sizes hide what matters: one edge a feature in one basis, many in the other."""
    draw = torch.Generator().manual_seed(3)
    first, second = (torch.randn(8, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    network = nn.Sequential(
        nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 5, bias=False)
    ).double()
    network[0].weight.data, network[1].weight.data = first, second
    x = torch.randn(300, 8, generator=draw, dtype=torch.float64)
    targets = network(x).argmax(dim=1)
    fit = Split("fit", "fit", Rectangular(x[:200], targets[:200]))
    select = Split("select", "select", Rectangular(x[200:], targets[200:]))
    sections = Sections(network, ["0", "1", "2"])
    counts = []
    for make in (local_bases, principal_bases):
        bases = make(sections, fit)
        counts.append(fewest(EdgeAblation(sections, bases, edge_matrix(sections, bases, fit, 0)), select).count)
    assert counts[0] <= 5
    assert counts[1] > 2 * counts[0]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_ablated() -> None:
    edges = EdgeAblation(SECTIONS, BASES, EDGES[0])
    with pytest.raises(ConfigError, match="a mask of edges"):
        edges.score(torch.ones(2, 2).bool(), TEST)
    with pytest.raises(ConfigError, match="a mask of edges"):
        edges.score(EDGES[0].squares, TEST)
    with pytest.raises(ConfigError, match="choose from 0 to 9"):
        NodeAblation(SECTIONS, BASES, "1").kept(10)
    with pytest.raises(ConfigError, match="keeps the first ones of 9"):
        NodeAblation(SECTIONS, BASES, "1").score(torch.arange(9) > 3, TEST)
    with pytest.raises(SplitError, match="has none"):
        edges.score(edges.kept(3), Split("test", "test", Rectangular(INPUTS)))
    with pytest.raises(ConfigError, match="unknown measure"):
        fewest(edges, SELECT, measure="f1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 or more"):
        fewest(edges, SELECT, tolerance=-1)
