"""The helix fit against least squares written out, planted curves, and the random walk that fools R^2."""

from __future__ import annotations

import numpy as np
import pytest

from heldout.analyses.geometry.helix import at_random, with_helix
from heldout.errors import ConfigError, NonFiniteError, ProxyError, StatisticsError
from heldout.proxies.helix_fit import Floats, circle_fit, helix_fit, helix_waves, position

N, D = 141, 64


def frame(width: int, dims: int, rng: np.random.Generator) -> Floats:
    q: Floats = np.linalg.qr(rng.standard_normal((width, dims)))[0]
    return q.T


def helix(
    turns: float,
    *,
    tokens: np.ndarray | None = None,
    radius: float = 1.0,
    flat: float = 1.0,
    pitch: float = 4.0,
    noise: float = 0.05,
    width: int = D,
    seed: int = 0,
) -> Floats:
    """A helix along a straight line in `width` dimensions; `flat` 0 squeezes its circle to a wave."""
    rng = np.random.default_rng(seed)
    t = position(np.arange(N) if tokens is None else tokens)
    angle = 2 * np.pi * turns * t + 0.4
    curve = np.stack([radius * np.cos(angle), flat * radius * np.sin(angle), pitch * t], axis=1)
    return curve @ frame(width, 3, rng) + noise * rng.standard_normal((len(t), width))


def walk(seed: int, n: int = N, width: int = 128) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, width)).cumsum(axis=0)


def test_the_profile_is_least_squares() -> None:
    tokens = np.sort(np.random.default_rng(1).choice(200, 90, replace=False))
    fit = helix_fit(helix(3.1, tokens=tokens, noise=0.5), tokens, step=0.35)
    t, total = position(tokens), float((fit.scores**2).sum())
    quadratic = np.stack([np.ones_like(t), t, t**2], axis=1)
    for at, turns in enumerate(fit.grid):
        full = np.column_stack([quadratic, np.cos(2 * np.pi * turns * t), np.sin(2 * np.pi * turns * t)])
        solved = np.linalg.lstsq(full, fit.scores, rcond=None)[0]
        r2 = 1 - ((fit.scores - full @ solved) ** 2).sum() / total
        without = quadratic @ np.linalg.lstsq(quadratic, fit.scores, rcond=None)[0]
        assert fit.r2s[at] == pytest.approx(r2, abs=1e-10)
        assert fit.gains[at] == pytest.approx(r2 - 1 + ((fit.scores - without) ** 2).sum() / total, abs=1e-10)
        sizes = np.linalg.svd(solved[3:], compute_uv=False)
        assert fit.aspects[at] == pytest.approx(sizes[1] / sizes[0], rel=1e-6)
        if turns == fit.turns:
            np.testing.assert_allclose(fit.block, solved[3:], atol=1e-10)
            np.testing.assert_allclose(fit.fitted, full @ solved, atol=1e-10)
    assert fit.statistic == fit.profile.max() == fit.aspect * fit.gain


def test_scores_are_those_of_principal_components() -> None:
    from sklearn.decomposition import PCA

    table = helix(3.6, noise=0.3)
    fit = helix_fit(table, np.arange(N))
    pca = PCA(3, svd_solver="full").fit(table)
    np.testing.assert_allclose(fit.share, pca.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(fit.scores), np.abs(pca.transform(table)), atol=1e-9)
    np.testing.assert_allclose((table - fit.mean) @ fit.components.T, fit.scores, atol=1e-10)


@pytest.mark.parametrize("turns", [2.0, 3.6, 7.25, 20.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_planted_helix_is_recovered(turns: float, noise: float) -> None:
    fit = helix_fit(helix(turns, noise=noise + 1e-9), np.arange(N))
    assert fit.turns == pytest.approx(turns, abs=0.1)
    assert fit.aspect > 0.8
    if noise == 0:
        assert fit.r2 == pytest.approx(1, abs=1e-6)
        assert fit.aspect == pytest.approx(1, abs=0.02)


def test_gaps_leave_the_turns() -> None:
    tokens = np.sort(np.random.default_rng(0).choice(np.arange(9, 150), 100, replace=False))
    tokens[[0, -1]] = 9, 149
    fit = helix_fit(helix(3.6, tokens=tokens, noise=0.2), tokens)
    assert fit.turns == pytest.approx(3.6, abs=0.1)
    assert fit.grid[-1] <= 100 / 6 < fit.grid[-1] + 0.05


def test_a_flat_wave_has_no_aspect() -> None:
    flat = helix_fit(helix(3.6, flat=0, noise=0.05), np.arange(N))
    assert flat.aspects[np.abs(flat.grid - 3.6).argmin()] < 0.05
    assert flat.gains[np.abs(flat.grid - 3.6).argmin()] > 0.2  # the wave itself is there
    assert flat.statistic < 0.05
    assert helix_fit(helix(3.6, flat=0.5, noise=1e-9), np.arange(N)).aspect == pytest.approx(0.5, abs=0.02)


def test_a_random_walk_fools_r2_and_not_the_statistic() -> None:
    """By R^2 with the turns left free every random walk is a helix of about one turn; T is that of no helix."""
    for seed in range(8):
        fit = helix_fit(walk(seed), np.arange(N), low=0.5)
        best = int(fit.r2s.argmax())
        assert fit.r2s[best] > 0.95
        assert fit.grid[best] < 1.6
        assert helix_fit(walk(seed), np.arange(N)).statistic < 0.15
    assert helix_fit(helix(3.6, noise=0.1), np.arange(N)).statistic > 0.3


def test_what_leaves_a_helix_a_helix_changes_nothing() -> None:
    table, tokens = helix(3.6, noise=0.4), np.arange(10, 10 + N)
    rng = np.random.default_rng(5)
    order, turn = rng.permutation(N), np.linalg.qr(rng.standard_normal((D, D)))[0]
    plain = helix_fit(table, tokens)
    moved = helix_fit((7 * table @ turn + rng.standard_normal(D))[order], tokens[order])
    np.testing.assert_array_equal(moved.tokens, tokens)
    np.testing.assert_allclose(moved.profile, plain.profile, atol=1e-10)
    backwards = helix_fit(table[::-1], tokens)
    np.testing.assert_allclose(backwards.profile, plain.profile, atol=1e-10)


def test_what_cannot_be_fitted_says_so() -> None:
    table, tokens = helix(3.6), np.arange(N)
    with pytest.raises(StatisticsError, match="11 tokens are too few"):
        helix_fit(table[:11], tokens[:11])
    with pytest.raises(StatisticsError, match="rank 0"):
        helix_fit(np.full((N, D), 3.0), tokens)
    with pytest.raises(StatisticsError, match="rank 1"):
        helix_fit(np.outer(tokens, np.ones(D)), tokens)
    with pytest.raises(StatisticsError, match="token 4 has more than one row"):
        helix_fit(table, np.where(tokens == 5, 4, tokens))
    holed = table.copy()
    holed[17, 3] = np.nan
    with pytest.raises(NonFiniteError, match="first that of token 17"):
        helix_fit(holed, tokens)
    with pytest.raises(ConfigError, match=r"\(141, 64\) and \(140,\)"):
        helix_fit(table, tokens[1:])
    with pytest.raises(ConfigError, match="whole numbers"):
        helix_fit(table, tokens / 2)
    with pytest.raises(ConfigError, match="turns from 30 to"):
        helix_waves(tokens, low=30)


@pytest.mark.parametrize("frequency", [1, 3, 5])
def test_a_circle_of_cyclic_tokens(frequency: int) -> None:
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * frequency * np.arange(11) / 11
    table = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ frame(16, 2, rng) + 3
    fit = circle_fit(table, np.arange(11), period=11)
    assert (fit.turns, fit.baseline) == (frequency, pytest.approx(0, abs=1e-12))
    assert fit.statistic == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(fit.grid, [1, 2, 3, 4, 5])
    with pytest.raises(ConfigError, match="cycle of 10"):
        circle_fit(table, np.arange(11), period=10)


def test_changing_nothing_gives_the_table_back() -> None:
    table = helix(3.6, noise=0.3)
    fit = helix_fit(table, np.arange(N))
    np.testing.assert_allclose(with_helix(fit, table), table, atol=1e-10)


def test_changes_are_those_of_the_curve() -> None:
    """Where the curve is all there is, a changed table is the helix planted with the changed radius, turns or pitch."""
    base = {"radius": 1.0, "pitch": 4.0, "noise": 0.0}
    table = helix(3.6, **base)
    table += 1e-9 * np.random.default_rng(0).standard_normal(table.shape)
    fit = helix_fit(table, np.arange(N))
    assert fit.turns == pytest.approx(3.6)
    wider = helix(3.6, **(base | {"radius": 1.5}))
    np.testing.assert_allclose(with_helix(fit, table, radius=1.5), wider, atol=1e-6)
    steeper = helix(3.6, **(base | {"pitch": 4.8}))
    np.testing.assert_allclose(with_helix(fit, table, pitch=1.2), steeper, atol=1e-6)
    np.testing.assert_allclose(with_helix(fit, table, turns=2), helix(7.2, **base), atol=1e-6)


def test_a_change_stays_within_the_components() -> None:
    table = helix(3.6, noise=0.3)
    fit = helix_fit(table, np.arange(N))
    moved = with_helix(fit, table, radius=0.5, turns=2, pitch=0.8) - table
    np.testing.assert_allclose(moved - moved @ fit.components.T @ fit.components, 0, atol=1e-10)
    with pytest.raises(ConfigError, match="not the table"):
        with_helix(fit, table[::-1])
    with pytest.raises(ConfigError, match=r"got \(140, 64\)"):
        with_helix(fit, table[1:])
    with pytest.raises(ConfigError, match="finite"):
        with_helix(fit, table, radius=np.inf)


# -- as much at random -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [0, 2])
def test_what_is_taken_at_random_is_as_large_and_leaves_the_polynomials(beyond: int) -> None:
    fit = helix_fit(helix(3.6, noise=0.5), np.arange(N))
    powers = position(fit.tokens)[:, None] ** np.arange(beyond + 1)
    size = 0.4 * float((fit.scores**2).sum()) if beyond == 0 else 0.2 * float(((fit.scores - fit.fitted) ** 2).sum())
    parts = [at_random(fit, size, seed=seed, beyond=beyond) for seed in range(3)]
    for part in parts:
        assert (part**2).sum() == pytest.approx(size, rel=1e-9)
        np.testing.assert_allclose(powers.T @ part, 0, atol=1e-9)
    assert not np.allclose(parts[0], parts[1])
    np.testing.assert_array_equal(parts[2], at_random(fit, size, seed=2, beyond=beyond))


def test_everything_beyond_the_polynomials_is_the_same_whatever_is_drawn() -> None:
    fit = helix_fit(helix(3.6, noise=0.5), np.arange(N))
    t = position(fit.tokens)
    left = fit.scores - np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, fit.scores, 2)).T
    size = float((left**2).sum())
    np.testing.assert_allclose(at_random(fit, size, seed=0, beyond=2), left, atol=1e-8)
    np.testing.assert_allclose(at_random(fit, size, seed=1, beyond=2), left, atol=1e-8)
    with pytest.raises(ProxyError, match="cannot be taken of scores that hold"):
        at_random(fit, 1.01 * size, seed=0, beyond=2)
    with pytest.raises(ProxyError, match="cannot be taken"):
        at_random(fit, 0.0, seed=0)


def test_on_average_every_function_of_the_token_goes_alike() -> None:
    """A draw takes of each token's row in proportion to its share, in the mean: no place on the chain is spared."""
    rng = np.random.default_rng(3)
    fit = helix_fit(rng.standard_normal((60, 8)), np.arange(60))
    size = 0.5 * float((fit.scores**2).sum())
    mean = np.mean([at_random(fit, size, seed=seed) for seed in range(400)], axis=0)
    slope = (mean * fit.scores).sum() / (fit.scores**2).sum()
    assert slope == pytest.approx(0.5, abs=0.02)
    assert np.linalg.norm(mean - slope * fit.scores) < 0.1 * np.linalg.norm(fit.scores)
