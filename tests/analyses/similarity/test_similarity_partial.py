"""Partial RSA and variance partitioning against regressions of others; features removed on one split, gone on another."""

from __future__ import annotations

import numpy as np
import pytest
from planted_networks import balanced, directions, network
from scipy.spatial.distance import pdist
from scipy.stats import f as f_distribution
from scipy.stats import f_oneway, pearsonr, rankdata, spearmanr
from sklearn.linear_model import LinearRegression, LogisticRegression

from heldout.analyses.features.strength import score as score_rows
from heldout.analyses.similarity.cka import cka
from heldout.analyses.similarity.partial import (
    common,
    model_rdms,
    partial_rsa,
    partition,
    similarity_without_labels,
    similarity_without_subspace,
)
from heldout.analyses.similarity.rdm import rdm
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

LABELS, TEST = balanced(25), balanced(20, seed=5)
SIZES = {"easy": 3.0, "hard": 1.0}
A, B = network(LABELS, SIZES, seed=1), network(LABELS, SIZES, seed=2, noise=1.0)
A_TEST, B_TEST = network(TEST, SIZES, seed=1), network(TEST, SIZES, seed=2, noise=1.0)
RDM_A, RDM_B = rdm(A), rdm(B, "euclidean")
MODELS = model_rdms(LABELS)


def independent(seed: int, n: int = 20, k: int = 5) -> np.ndarray:
    """(k, N(N-1)/2) unrelated tables of distances that share a common part."""
    rng = np.random.default_rng(seed)
    m = n * (n - 1) // 2
    return rng.normal(size=(k, m)) + rng.normal(size=m) * rng.normal(size=(k, 1))


def test_model_rdms_are_what_pdist_says() -> None:
    rng = np.random.default_rng(0)
    table = {"kind": rng.choice(["a", "b", "c"], 30), "size": rng.normal(size=30), "bit": rng.integers(0, 2, 30)}
    found = model_rdms(table)
    codes = np.unique(table["kind"], return_inverse=True)[1]
    np.testing.assert_array_equal(found["kind"], pdist(codes[:, None], "hamming"))
    np.testing.assert_allclose(found["size"], pdist(table["size"][:, None]), rtol=1e-15)
    np.testing.assert_array_equal(found["bit"], pdist(table["bit"][:, None]))
    ordinal = model_rdms({"level": np.arange(30) % 4}, {"level": "continuous"})["level"]
    np.testing.assert_array_equal(ordinal, pdist((np.arange(30) % 4)[:, None]))


@pytest.mark.parametrize("by", ["pearson", "spearman"])
def test_it_is_the_correlation_of_residuals_and_the_entry_of_the_inverse(by: str) -> None:
    a, b, *controls = independent(1)
    named = {str(i): c for i, c in enumerate(controls)}
    found = partial_rsa(a, b, named, by)  # type: ignore[arg-type]
    data = np.array([a, b, *controls]) if by == "pearson" else rankdata([a, b, *controls], axis=1)
    left = [v - LinearRegression().fit(data[2:].T, v).predict(data[2:].T) for v in data[:2]]
    assert found == pytest.approx(pearsonr(*left).statistic, abs=1e-12)
    precision = np.linalg.inv(np.corrcoef(data))
    assert found == pytest.approx(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]), abs=1e-12)


@pytest.mark.parametrize(("by", "correlate"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_with_one_control_it_is_the_textbook_formula(by: str, correlate: object) -> None:
    a, b, c = independent(2, k=3)
    ab, ac, bc = (float(correlate(u, v).statistic) for u, v in ((a, b), (a, c), (b, c)))  # type: ignore[operator]
    expected = (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))
    assert partial_rsa(a, b, {"c": c}, by) == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]


def test_controls_that_repeat_each_other_count_once_and_their_scale_does_not_matter() -> None:
    a, b, c, d = independent(3, k=4)
    once = partial_rsa(a, b, {"c": c, "d": d})
    assert partial_rsa(a, b, {"c": 1e6 * c + 3, "d": d, "again": c - 2 * d}) == pytest.approx(once, abs=1e-9)


def test_beside_the_loud_feature_is_left_what_the_quiet_one_and_the_noise_make() -> None:
    """A squared distance is the sum over directions of (a_f d_f + e_f)^2, d_f in {-1, 0, 1}, e_f of variance 2 s^2: beside
    the loud model RDM the hard one has variance a^4 / 4, and noise has the terms a_f d_f e_f and e_f^2."""
    labels, loud, noise, width = balanced(150), 3.0, 0.3, 12
    models = model_rdms(labels)
    for quiet in (0.0, 1.0, 2.0):
        sizes = {"easy": loud, "hard": quiet}
        both = [rdm(network(labels, sizes, noise=noise, seed=s), "squared_euclidean") for s in (1, 2)]
        crossed = 0.5 * 4 * 2 * noise**2 * (loud**2 + quiet**2) + width * 2 * (2 * noise**2) ** 2
        expected = quiet**4 / 4 / (quiet**4 / 4 + crossed)
        assert partial_rsa(*both, {"easy": models["easy"]}) == pytest.approx(expected, abs=0.03)
        assert pearsonr(*both).statistic > 0.7


def test_squared_distances_without_noise_are_the_models_times_their_squared_sizes() -> None:
    """|x_i - x_j|^2 = sum_f a_f^2 [f differs]: shares of variance are a_f^4, and nothing is left to correlate."""
    clean = rdm(network(LABELS, SIZES, noise=0.0), "squared_euclidean")
    np.testing.assert_allclose(clean, 9.0 * MODELS["easy"] + 1.0 * MODELS["hard"], atol=1e-9)
    found = partition(clean, MODELS).set_index("feature")
    assert found.loc["*", "alone"] == pytest.approx(1, abs=1e-12)
    # The models of uncorrelated labels are not quite uncorrelated, being without the diagonal.
    r = np.corrcoef(MODELS["easy"], MODELS["hard"])[0, 1]
    assert r == pytest.approx(-1 / 98, rel=1e-9)
    total = 81 + 1 + 2 * 9 * r
    assert found.loc["easy", "unique"] == pytest.approx(81 * (1 - r**2) / total, rel=1e-9)
    assert found.loc["hard", "unique"] == pytest.approx(1 * (1 - r**2) / total, rel=1e-9)
    with pytest.raises(StatisticsError, match="nothing is left"):
        partial_rsa(clean, RDM_A, MODELS)


@pytest.mark.parametrize("by", ["pearson", "spearman"])
def test_the_partition_is_made_of_regressions(by: str) -> None:
    rng = np.random.default_rng(4)
    table = {"a": rng.integers(0, 2, 24), "b": rng.integers(0, 3, 24), "c": rng.normal(size=24)}
    table["d"] = table["c"] + rng.normal(size=24)
    models, distances = model_rdms(table), rdm(rng.normal(size=(24, 4)) + table["c"][:, None])
    columns = {n: rankdata(m) if by == "spearman" else m for n, m in models.items()}
    y = rankdata(distances) if by == "spearman" else distances

    def r2(*names: str) -> float:
        x = np.stack([columns[n] for n in names], axis=1)
        return float(LinearRegression().fit(x, y).score(x, y))

    found = partition(distances, models, by).set_index("feature")  # type: ignore[arg-type]
    whole = r2(*columns)
    for name in columns:
        others = [n for n in columns if n != name]
        assert found.loc[name, "alone"] == pytest.approx(r2(name), abs=1e-10)
        assert found.loc[name, "unique"] == pytest.approx(whole - r2(*others), abs=1e-10)
    assert found.loc["*", "alone"] == pytest.approx(whole, abs=1e-10)
    shares = common(distances, models, by).set_index("features")["share"]  # type: ignore[arg-type]
    assert len(shares) == 15
    assert shares.sum() == pytest.approx(whole, abs=1e-10)
    assert shares["c"] == pytest.approx(found.loc["c", "unique"], abs=1e-10)
    assert sum(v for k, v in shares.items() if "c" in k.split(" & ")) == pytest.approx(r2("c"), abs=1e-10)


def test_a_removed_feature_cannot_be_read_out_and_others_stay() -> None:
    space = Subspaces.fit(A, LABELS)
    left, left_test = space.without(A, "easy"), space.without(A_TEST, "easy")
    easy, hard = LABELS["easy"], LABELS["hard"]
    np.testing.assert_allclose(left[easy == 1].mean(axis=0), left[easy == 0].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(left.mean(axis=0), A.mean(axis=0), atol=1e-12)
    assert np.linalg.matrix_rank(left - left.mean(axis=0)) == 11
    assert LogisticRegression().fit(left, easy).score(left_test, TEST["easy"]) < 0.65
    assert LogisticRegression().fit(left, hard).score(left_test, TEST["hard"]) > 0.9
    np.testing.assert_allclose(left_test - A.mean(axis=0) + space.within(A_TEST, "easy"), A_TEST - A.mean(axis=0))
    assert np.linalg.matrix_rank(space.within(A_TEST, "easy"), tol=1e-9) == 1


def test_a_category_of_k_levels_takes_k_minus_one_directions() -> None:
    kind = np.arange(90) % 4
    x = np.random.default_rng(0).normal(size=(90, 10)) + directions(10, 3)[kind]
    space = Subspaces.fit(x, {"kind": kind})
    left = space.without(x, "kind")
    assert np.linalg.matrix_rank(left - left.mean(axis=0)) == 7
    means = np.stack([left[kind == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(means, np.broadcast_to(means[0], means.shape), atol=1e-12)


def test_on_the_fit_split_labels_are_projected_out_of_the_grams() -> None:
    design = np.column_stack([np.ones(len(A)), LABELS["easy"]])
    project = np.eye(len(A)) - design @ np.linalg.pinv(design)
    found = similarity_without_labels(A, B, LABELS, A, B, LABELS, ["easy"])
    assert found == pytest.approx(cka(project @ A, project @ B), rel=1e-10)
    held_out = similarity_without_labels(A, B, LABELS, A_TEST, B_TEST, TEST, ["easy"])
    assert held_out == pytest.approx(found, abs=0.1)


def test_residuals_are_those_that_variance_explained_scores() -> None:
    space = Subspaces.fit(A, LABELS)
    some = np.flatnonzero((TEST["easy"] == 1) | (np.arange(80) < 30))  # another base rate than the fit split's
    x, labels = A_TEST[some], {name: values[some] for name, values in TEST.items()}
    rows = score_rows(space.moments, x, space.coding.encode(labels), space.coding)
    left = space.unlabelled(x, labels, "easy") - A.mean(axis=0)
    np.testing.assert_allclose((left**2).sum(axis=1), rows.error("easy"), rtol=1e-9)


def test_the_loud_feature_hides_that_nothing_else_is_shared() -> None:
    a, b = {"easy": 3.0, "hard": 1.0}, {"easy": 3.0}
    args = (
        network(LABELS, a, seed=1),
        network(LABELS, b, seed=2),
        LABELS,
        network(TEST, a, seed=1),
        network(TEST, b, seed=2),
    )
    assert cka(*args[3:]) > 0.8
    assert abs(similarity_without_subspace(*args, ["easy"])) < 0.1
    assert abs(similarity_without_labels(*args, TEST, ["easy"])) < 0.1
    same = A, network(LABELS, SIZES, seed=7), LABELS, A_TEST, network(TEST, SIZES, seed=7)
    assert similarity_without_subspace(*same, ["easy"]) > 0.3


def test_labels_of_the_stimuli_compared_do_not_enter_the_removal() -> None:
    shuffled = {name: np.random.default_rng(0).permutation(v) for name, v in LABELS.items()}
    found = similarity_without_subspace(A, B, LABELS, A_TEST, B_TEST, ["easy"])
    assert similarity_without_subspace(A, B, shuffled, A_TEST, B_TEST, ["easy"]) != pytest.approx(found, abs=1e-3)
    assert Subspaces.fit(A, LABELS).without(A_TEST[:3], "easy") == pytest.approx(
        Subspaces.fit(A, LABELS).without(A_TEST, "easy")[:3], rel=1e-12
    )


def test_presence_has_its_size_where_labels_are_unrelated() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([5.0, 2.0, 1.0, 1.0, 0.5, 0.1])
    p = []
    for _ in range(600):
        loud = rng.integers(0, 2, 60)
        x = rng.normal(size=(60, 6)) * spread + 20.0 * loud[:, None]
        correlated = np.where(rng.random(60) < 0.7, loud, rng.integers(0, 3, 60))  # alone, this explains much
        p.append(Subspaces.fit(x, {"loud": loud, "f": correlated}).presence("f"))
    for level in (0.01, 0.05, 0.2, 0.5):
        share = np.mean(np.array(p) <= level)
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / len(p)) + 0.005


def test_with_one_unit_presence_is_the_f_test_of_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 4, 50)
    x = rng.normal(size=50) + 0.3 * kind
    expected = f_oneway(*(x[kind == k] for k in range(4))).pvalue
    assert Subspaces.fit(x[:, None], {"kind": kind}).presence("kind") == pytest.approx(expected, rel=1e-9)


def test_presence_is_an_f_test_of_least_squares_with_satterthwaites_degrees_of_freedom() -> None:
    rng = np.random.default_rng(2)
    n, kind, other = 40, rng.integers(0, 3, 40), rng.normal(size=40)
    x = rng.normal(size=(n, 5)) * [3, 2, 1, 1, 0.2] + 0.5 * kind[:, None] + other[:, None]
    small = np.column_stack([np.ones(n), other])
    large = np.column_stack([small, kind == 1, kind == 2])
    sums = [x.T @ (x - d @ np.linalg.lstsq(d, x, rcond=None)[0]) for d in (small, large)]
    shape = np.trace(sums[1]) ** 2 / np.trace(sums[1] @ sums[1])
    ratio = (np.trace(sums[0] - sums[1]) / 2) / (np.trace(sums[1]) / (n - 4))
    expected = f_distribution.sf(ratio, 2 * shape, (n - 4) * shape)
    assert 1e-6 < expected < 0.5
    assert Subspaces.fit(x, {"kind": kind, "other": other}).presence("kind") == pytest.approx(expected, rel=1e-8)


def test_presence_sees_a_quiet_feature_beside_a_loud_one() -> None:
    assert Subspaces.fit(A, LABELS).presence("hard") < 1e-6
    clean = network(LABELS, SIZES, noise=0.0)
    assert Subspaces.fit(clean, LABELS).presence("hard") == 0
    table = {**LABELS, "copy": LABELS["hard"]}
    assert Subspaces.fit(A, table).presence("hard") == 1  # beyond its copy there is nothing


def test_what_cannot_be_controlled_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="no model RDMs"):
        partial_rsa(RDM_A, RDM_B, {})
    with pytest.raises(StatisticsError, match="same stimuli"):
        partial_rsa(RDM_A, RDM_B, {"easy": MODELS["easy"][:45]})
    with pytest.raises(StatisticsError, match="different lengths"):
        partial_rsa(RDM_A, RDM_B, {"easy": MODELS["easy"], "other": MODELS["hard"][:45]})
    with pytest.raises(StatisticsError, match=r"N\(N-1\)/2"):
        partial_rsa(RDM_A[:-1], RDM_B, MODELS)
    with pytest.raises(ConfigError, match="comparator"):
        partial_rsa(RDM_A, RDM_B, MODELS, "kendall")  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match="finite"):
        partial_rsa(np.r_[np.nan, RDM_A[1:]], RDM_B, MODELS)
    with pytest.raises(StatisticsError, match="constant"):
        partial_rsa(RDM_A, RDM_B, {"flat": np.ones_like(RDM_A)})
    with pytest.raises(StatisticsError, match="constant"):
        partition(RDM_A, {"flat": np.ones_like(RDM_A)})
    with pytest.raises(StatisticsError, match="constant"):
        model_rdms({"easy": np.zeros(10)})
    with pytest.raises(StatisticsError, match="constant"):
        Subspaces.fit(A, {"easy": np.zeros(len(A))})
    with pytest.raises(ConfigError, match="was expected, one value a row"):
        Subspaces.fit(A, TEST)
    with pytest.raises(ConfigError, match="name one or more"):
        Subspaces.fit(A, LABELS).without(A)
    with pytest.raises(ConfigError, match="label"):
        Subspaces.fit(A, LABELS).without(A, "eazy")
    with pytest.raises(StatisticsError, match="fitted to 12 units"):
        Subspaces.fit(A, LABELS).without(A[:, :4], "easy")
