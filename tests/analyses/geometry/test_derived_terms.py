"""Derived terms: least squares and matching pursuit against scikit-learn, planted terms, and nothing from held-out items."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, OrthogonalMatchingPursuit

from heldout.analyses.geometry.derived import COMPONENTS, DIRECT, FORMULA, derive, matching, refit, select
from heldout.errors import ConfigError, NonFiniteError, StatisticsError

N = 240
RNG = np.random.default_rng(0)
TERMS = {name: RNG.normal(size=N) for name in "abcdefgh"}
TRAIN = RNG.random(N) < 0.7
UNITS = np.arange(N) // 6


def test_a_refit_is_least_squares_on_train() -> None:
    y = 3 * TERMS["a"] - TERMS["b"] + 5 + RNG.normal(size=N)
    x = np.column_stack([TERMS["a"], TERMS["b"]])
    for intercept in (False, True):
        ours = refit({k: TERMS[k] for k in "ab"}, y, TRAIN, intercept=intercept)
        theirs = LinearRegression(fit_intercept=intercept).fit(x[TRAIN], y[TRAIN])
        np.testing.assert_allclose(ours.weights, theirs.coef_, rtol=1e-10)
        assert ours.intercept == pytest.approx(float(theirs.intercept_))
        np.testing.assert_allclose(ours.predict(TERMS), theirs.predict(x), atol=1e-10)
        np.testing.assert_allclose(ours.residual(TERMS, y) + ours.predict(TERMS), y, atol=1e-12)


def test_terms_of_very_different_size() -> None:
    """A mass formula's terms span many orders of magnitude; none is dropped for being small."""
    terms = {"large": 1e12 * TERMS["a"], "small": 1e-9 * TERMS["b"]}
    found = refit(terms, 2 * terms["large"] + 7 * terms["small"] * 1e20, TRAIN)
    np.testing.assert_allclose(found.weights, [2, 7e20], rtol=1e-6)


def test_matching_agrees_with_scikit_learn_for_one_response() -> None:
    y = 2 * TERMS["c"] - TERMS["f"] + 0.5 * TERMS["a"] + 0.2 * RNG.normal(size=N)
    values = np.column_stack(list(TERMS.values()))
    unit = values / np.linalg.norm(values, axis=0)
    for count in (1, 2, 3, 5):
        theirs = OrthogonalMatchingPursuit(n_nonzero_coefs=count, fit_intercept=False).fit(unit, y)
        assert set(matching(y[:, None], TERMS, count)) == {list(TERMS)[i] for i in np.flatnonzero(theirs.coef_)}
    assert matching(y[:, None], TERMS, 3) == ["c", "f", "a"]


def test_matching_weighs_responses_by_their_size_and_does_not_see_a_turn() -> None:
    y = np.column_stack([10 * TERMS["d"], TERMS["e"]])
    assert matching(y, TERMS, 2) == ["d", "e"]
    assert matching(y * [0.01, 1], TERMS, 2) == ["e", "d"]
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert matching(y @ turn, TERMS, 2) == ["d", "e"]


def test_matching_passes_over_what_is_said_already() -> None:
    terms = {"a": TERMS["a"], "twice": 2 * TERMS["a"], "b": TERMS["b"]}
    y = TERMS["a"] + 0.01 * TERMS["b"]
    assert set(matching(y[:, None], terms, 2)) <= {"a", "b", "twice"}
    assert "b" in matching(y[:, None], terms, 2)
    with pytest.raises(StatisticsError, match="only 2 terms are independent"):
        matching(y[:, None], terms, 3)


def test_an_intercept_makes_selection_blind_to_the_mean() -> None:
    terms = {"level": 50 + 0.1 * TERMS["a"], "b": TERMS["b"]}
    y = (20 + TERMS["b"])[:, None]
    assert matching(y, terms, 1) == ["level"]
    assert matching(y, terms, 1, intercept=True) == ["b"]


def test_partial_rule_takes_the_strongest() -> None:
    components = np.column_stack([TERMS["g"] + 0.1 * TERMS["h"], RNG.normal(size=N) + 3 * TERMS["b"]])
    assert set(select(components, TERMS, 2, rule="partial")) == {"g", "h"}  # without noise both are exactly 1
    assert select(components[:, 1:], TERMS, 1, rule="partial") == ["b"]
    assert select(components, TERMS, 2, rule="matching") == ["b", "g"]
    with pytest.raises(ConfigError, match="unknown rule"):
        select(components, TERMS, 2, rule="best")


def planted() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The target is c + 2 f - e; the formula holds a wrong term, and the components are turned and noisy versions of it."""
    y = TERMS["c"] + 2 * TERMS["f"] - TERMS["e"] + 0.05 * RNG.normal(size=N)
    formula = {"c": TERMS["c"], "f": TERMS["f"], "wrong": TERMS["a"]}
    signal = np.column_stack([TERMS["c"], 2 * TERMS["f"], -TERMS["e"]])
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    return formula, y, signal @ turn + 0.1 * RNG.normal(size=(N, 3))


@pytest.mark.parametrize("rule", ["matching", "partial"])
def test_planted_terms_beat_the_formula(rule: str) -> None:
    formula, y, components = planted()
    found = derive(components[TRAIN], TERMS, formula, y, train=TRAIN, units=UNITS, seed=0, rule=rule)
    assert set(found.fits[COMPONENTS].names) == {"c", "e", "f"}
    assert set(found.fits[DIRECT].names) == {"c", "e", "f"}
    assert found.squares.rms(COMPONENTS) < 0.07
    assert found.squares.rms(FORMULA) > 0.9
    assert len(found.random) == 99
    assert {len(f.names) for f in found.fits.values()} == {3}
    hits = sum(set(f.names) == {"c", "e", "f"} for n, f in found.fits.items() if n.startswith("random"))
    assert found.p_random == pytest.approx((1 + hits) / 100)
    log_ratio = found.squares.log_ratio(COMPONENTS, FORMULA)(found.squares.table.sum(axis=0)[None])
    assert log_ratio[0] < -2


def test_components_that_know_nothing_derive_nothing() -> None:
    formula, y, components = planted()
    noise = np.column_stack([TERMS["g"], TERMS["h"], TERMS["b"]]) + 0.1 * components
    found = derive(noise[TRAIN], TERMS, formula, y, train=TRAIN, units=UNITS, seed=0)
    assert found.squares.rms(COMPONENTS) > found.squares.rms(FORMULA)
    assert found.squares.rms(COMPONENTS) > found.squares.rms(DIRECT)
    assert found.p_random > 0.5


def test_held_out_targets_change_the_score_alone() -> None:
    formula, y, components = planted()
    other = np.where(TRAIN, y, y + 100)
    one, two = (
        derive(components[TRAIN], TERMS, formula, t, train=TRAIN, units=UNITS, seed=0, draws=5) for t in (y, other)
    )
    for name, fit in one.fits.items():
        assert two.fits[name].names == fit.names
        assert np.array_equal(two.fits[name].weights, fit.weights)
    assert two.squares.rms(FORMULA) > 90


def test_errors_are_summed_by_unit_over_what_is_held() -> None:
    formula, y, components = planted()
    held = ~TRAIN & (np.arange(N) % 2 == 0)
    found = derive(components[TRAIN], TERMS, formula, y, train=TRAIN, held=held, units=UNITS, seed=0, draws=2)
    error = found.fits[FORMULA].residual(formula, y)
    assert found.squares.n.sum() == held.sum()
    assert found.squares.names[:3] == (FORMULA, COMPONENTS, DIRECT)
    for at, unit in enumerate(found.squares.units):
        mine = held & (unit == UNITS)
        assert found.squares.sums[at, 0] == pytest.approx((error[mine] ** 2).sum())


def test_what_cannot_be_derived_is_refused() -> None:
    formula, y, components = planted()
    with pytest.raises(StatisticsError, match="a row for each of"):
        derive(components, TERMS, formula, y, train=TRAIN, units=UNITS, seed=0)
    with pytest.raises(StatisticsError, match="both fitted and scored"):
        derive(components[TRAIN], TERMS, formula, y, train=TRAIN, held=TRAIN, units=UNITS, seed=0)
    with pytest.raises(StatisticsError, match="truth values"):
        refit(formula, y, np.zeros(N, dtype=bool))
    with pytest.raises(StatisticsError, match="rank 1"):
        refit({"a": TERMS["a"], "b": 2 * TERMS["a"]}, y, TRAIN)
    with pytest.raises(StatisticsError, match="'zero' is 0"):
        refit({"zero": np.zeros(N), "a": TERMS["a"]}, y, TRAIN)
    with pytest.raises(NonFiniteError, match="target"):
        refit(formula, np.where(np.arange(N) == 3, np.nan, y), TRAIN)
    with pytest.raises(StatisticsError, match="unknown term 'wrong'"):
        refit(formula, y, TRAIN).predict(TERMS)
    with pytest.raises(ConfigError, match="choose from 1 to 8"):
        matching(components, TERMS, 9)
    few = {"a": TERMS["a"], "b": TERMS["a"], "c": 3 * TERMS["a"], "d": TERMS["d"]}
    with pytest.raises(StatisticsError, match="only 2 terms are independent"):
        derive(components[TRAIN], few, formula, y, train=TRAIN, units=UNITS, seed=0)


def test_random_selections_pass_over_dependent_terms() -> None:
    formula, y, components = planted()
    doubled = {**TERMS, **{f"{k} again": 2 * v for k, v in TERMS.items()}}
    found = derive(components[TRAIN], doubled, formula, y, train=TRAIN, units=UNITS, seed=0, draws=50)
    for fit in found.fits.values():
        assert len({name[0] for name in fit.names}) == 3
