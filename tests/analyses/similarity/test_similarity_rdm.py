"""RDMs and their comparison: SciPy's distances and correlations, invariances, the XOR of Hermann and Lampinen (2020)."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, pearsonr, spearmanr

from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import COMPARATORS, compare
from heldout.analyses.similarity.rdm import BLOCK, DISTANCES, crossnobis, rdm, stimuli_of
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

SCIPY = {"correlation": "correlation", "euclidean": "euclidean", "squared_euclidean": "sqeuclidean"}


def rotation(d: int, rng: np.random.Generator) -> Floats:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("n", [2, 3, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_distances_are_scipys(distance: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 7)) * 10.0 ** rng.integers(-3, 3, size=(n, 1)) + 5
    np.testing.assert_allclose(rdm(x, distance), pdist(x, SCIPY[distance]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean"])
def test_near_and_equal_stimuli_keep_their_digits(distance: str) -> None:
    """From products alone a distance of 1e-7 between stimuli of length 1000 would be lost altogether."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20)) + 300
    x[7], x[290] = x[3] + 1e-7 * rng.normal(size=20), x[11]
    ours, theirs = rdm(x, distance), pdist(x, SCIPY[distance])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert (ours == 0).sum() == 1


def test_a_stimulus_without_a_correlation_is_named() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    x[4] = 0.1
    with pytest.raises(StatisticsError, match="1 of 6, the first is row 4"):
        rdm(x)
    assert np.isfinite(rdm(x, "euclidean")).all()


def test_invariances() -> None:
    rng = np.random.default_rng(1)
    x, scale = rng.normal(size=(12, 6)), rng.uniform(0.5, 2, size=6)
    turned = 3 * x @ rotation(6, rng)
    np.testing.assert_allclose(rdm(turned, "euclidean"), 3 * rdm(x, "euclidean"))
    np.testing.assert_allclose(rdm(x + scale, "euclidean"), rdm(x, "euclidean"))
    stretched = x * rng.uniform(0.5, 2, size=(12, 1)) + rng.normal(size=(12, 1))
    np.testing.assert_allclose(rdm(stretched), rdm(x), atol=1e-12)
    assert np.abs(rdm(x * scale) - rdm(x)).max() > 0.05  # single units rescaled
    assert np.abs(rdm(x + 3 * scale) - rdm(x)).max() > 0.05  # single units shifted


def test_two_solutions_of_xor_are_opposites() -> None:
    """Hidden units (or, and) and (a and not b, b and not a) both let one linear unit compute a xor b; their RDMs
    correlate at -0.8, as Hermann and Lampinen (2020) report."""
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    a, b = inputs.T
    first, second = np.column_stack([a | b, a & b]), np.column_stack([a & (1 - b), b & (1 - a)])
    assert (first @ [1, -1] == a ^ b).all()
    assert (second @ [1, 1] == a ^ b).all()
    r = compare(rdm(first, "euclidean"), rdm(second, "euclidean"))
    assert r == pytest.approx(-0.7947, abs=1e-4)
    # By hand: distances 1, 1, 1, 1 and (sqrt 2, 0) against (0, sqrt 2).
    root, mean = np.sqrt(2), (4 + np.sqrt(2)) / 6
    common = 4 * (1 - mean) ** 2
    assert r == pytest.approx((common - 2 * mean * (root - mean)) / (common + mean**2 + (root - mean) ** 2), abs=1e-12)
    assert compare(rdm(first, "squared_euclidean"), rdm(second, "squared_euclidean")) == pytest.approx(-1)


def test_comparators_are_scipys() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 190))
    assert compare(a, b) == pytest.approx(pearsonr(a, b).statistic, abs=1e-12)
    assert compare(a, b, "spearman") == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert compare(a, b, "kendall") == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)  # no ties: tau-a is tau-b
    assert compare(a, b, "cosine") == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)


def test_kendalls_tau_a_counts_pairs() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 4, size=(2, 28)).astype(float)
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in combinations(range(28), 2)]
    assert compare(a, b, "kendall") == pytest.approx(np.mean(signs), abs=1e-14)
    assert compare(a, a, "kendall") < 1  # its own ties count against it


def test_crossnobis_has_no_noise_in_it() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(5, 8))
    np.testing.assert_allclose(crossnobis([x, x, x]), rdm(x, "squared_euclidean") / 8, atol=1e-12)
    precision = np.cov(rng.normal(size=(8, 40)))
    repeats = rng.normal(size=(3, 5, 8))
    orders = list(permutations(repeats, 2))
    by_hand = [
        np.mean([(r[i] - r[j]) @ precision @ (s[i] - s[j]) / 8 for r, s in orders])
        for i, j in combinations(range(5), 2)
    ]
    np.testing.assert_allclose(crossnobis(repeats, precision), by_hand, atol=1e-12)
    noisy = np.mean([crossnobis(rng.normal(size=(2, 4, 30))) for _ in range(400)], axis=0)
    assert np.abs(noisy).max() < 5 * 2 / np.sqrt(30 * 400)  # SD of one is about 2 / sqrt(D)


def test_what_is_refused() -> None:
    x = np.random.default_rng(5).normal(size=(6, 4))
    with pytest.raises(ConfigError, match=r"unknown distance 'euclid'.*euclidean"):
        rdm(x, "euclid")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown comparator 'tau'"):
        compare(rdm(x), rdm(x), "tau")  # type: ignore[arg-type]
    with pytest.raises(StatisticsError, match=r"got shapes \(15,\) and \(10,\)"):
        compare(rdm(x), rdm(x[:5]))
    with pytest.raises(StatisticsError, match=r"got shape \(6, 4, 2\)"):
        rdm(np.ones((6, 4, 2)))
    x[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match="1 of 6 stimuli, the first is row 2"):
        rdm(x)
    with pytest.raises(StatisticsError, match="positive definite"):
        crossnobis(np.ones((2, 3, 2)), -np.eye(2))
    with pytest.raises(StatisticsError, match="R of 2 or more"):
        crossnobis(np.ones((1, 3, 2)))
    with pytest.raises(StatisticsError, match=r"N\(N-1\)/2"):
        stimuli_of(np.ones(4))
    for by in COMPARATORS:
        with pytest.raises(StatisticsError, match="all distances"):
            compare(np.zeros(6), np.arange(6.0), by)
