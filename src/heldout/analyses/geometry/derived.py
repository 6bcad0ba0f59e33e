"""Terms that a network's components point at, against a formula, at equal complexity.

    rivals = derive(features[train], candidates, formula, y, train=train, units=chains, seed=0)
    rivals.squares.rms(COMPONENTS), rivals.squares.rms(FORMULA), rivals.squares.rms(DIRECT), rivals.p_random

Terms are selected from the components *on train alone*, refitted to the target by least squares on train, and scored on
held-out items beside three rivals of as many terms: the formula, refitted on the same items; a greedy selection from the
same library by the target itself, which needs no network; and random selections. Better than the formula shows that the
library holds better terms; better than the greedy selection, that the network helped to find them.

Complexity is the number of terms, however involved each of them is. Linear in a library on purpose: no symbolic regression
runs here (PySR, which is often used for it, brings a Julia runtime). Everything is in the caller's unit. N items, P
candidates, K components, Q terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heldout.analyses.geometry.library import library, stacked
from heldout.analyses.geometry.squares import Squares, squares
from heldout.analyses.geometry.terms import correlations
from heldout.analyses.similarity.checks import table
from heldout.errors import ConfigError, NonFiniteError, StatisticsError, unknown
from heldout.statistics.permutation import null_p

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FORMULA, COMPONENTS, DIRECT = "formula", "components", "direct"
RULES = ("matching", "partial")
RANDOM_DRAWS = 99
SPENT = 1e-10  # share of a term's squared length below which those chosen already say it


@dataclass(frozen=True, eq=False)
class Refit:
    """A linear formula with its weights refitted: sum over `names` of weight times term, and `intercept` (0 where none)."""

    names: tuple[str, ...]
    weights: Floats
    intercept: float

    def predict(self, terms: Mapping[str, ArrayLike]) -> Floats:
        """(N,) for terms, name -> (N,), that hold at least its own."""
        missing = [name for name in self.names if name not in terms]
        if missing:
            raise StatisticsError(unknown("term", missing[0], terms))
        _, values = stacked({name: terms[name] for name in self.names})
        predicted: Floats = values @ self.weights + self.intercept
        return predicted

    def residual(self, terms: Mapping[str, ArrayLike], y: ArrayLike) -> Floats:
        """(N,) target less formula: what is left to learn. Add `predict` to get back to the target's scale."""
        predicted = self.predict(terms)
        left: Floats = _target(y, len(predicted)) - predicted
        return left


def refit(terms: Mapping[str, ArrayLike], y: ArrayLike, train: ArrayLike, *, intercept: bool = False) -> Refit:
    """Least squares of `y` (N,) on all `terms`, over the items where `train` (N,) is true.

    Raises `StatisticsError` where the terms are linear functions of one another on train, or more than its items.
    """
    names, values = stacked(terms)
    target, fit = _target(y, len(values)), _mask(train, len(values))
    design = np.column_stack([values, np.ones(len(values))]) if intercept else values
    size = np.linalg.norm(design[fit], axis=0)
    if (size == 0).any():
        raise StatisticsError(f"term {names[int(size.argmin())]!r} is 0 for every item of train; leave it out")
    weights, _, rank, _ = np.linalg.lstsq(design[fit] / size, target[fit], rcond=None)
    if rank < design.shape[1]:
        raise StatisticsError(
            f"terms {', '.join(names)} have rank {rank} on {int(fit.sum())} items of train, {design.shape[1]} are fitted: "
            "leave out those that are functions of the others"
        )
    weights = weights / size
    return Refit(names, weights[: len(names)], float(weights[-1]) if intercept else 0.0)


def matching(
    responses: ArrayLike | Tensor, terms: Mapping[str, ArrayLike], count: int, *, intercept: bool = False
) -> list[str]:
    """The first `count` terms of simultaneous orthogonal matching pursuit of `responses` (N, K), best first.

    Each step takes the term whose part beyond those chosen explains most of what they leave of all responses together, so
    a response weighs by its size: features in the output's unit weigh by their effect. With `intercept` everything is
    about its mean. Tropp, Gilbert and Strauss (2006), Signal Processing 86, 572.
    """
    names, values = stacked(terms)
    left = table(responses, "responses").copy()
    if len(left) != len(values):
        raise StatisticsError(f"responses have {len(left)} items, the terms {len(values)}; they must be the same")
    if not 1 <= count <= len(names):
        raise ConfigError(f"{count} terms of a library of {len(names)}; choose from 1 to {len(names)}")
    if intercept:
        left, values = left - left.mean(axis=0), values - values.mean(axis=0)
    whole = (values**2).sum(axis=0)
    rest, chosen = values.copy(), list[int]()
    for _ in range(count):
        length = (rest**2).sum(axis=0)
        fresh = length > SPENT * whole
        fresh[chosen] = False
        if not fresh.any():
            raise StatisticsError(f"only {len(chosen)} terms are independent on these items; {count} are asked for")
        gain = np.full(len(names), -np.inf)
        gain[fresh] = ((rest[:, fresh].T @ left) ** 2).sum(axis=1) / length[fresh]
        best = int(gain.argmax())
        chosen.append(best)
        unit = rest[:, [best]] / np.sqrt(length[best])
        left = left - unit @ (unit.T @ left)
        rest = rest - unit @ (unit.T @ rest)
    return [names[i] for i in chosen]


def select(
    components: ArrayLike | Tensor, terms: Mapping[str, ArrayLike], count: int, *, rule: str, intercept: bool = False
) -> list[str]:
    """`count` terms by what components (N, K) say of them: ``matching`` as above, or ``partial``, those with the strongest
    partial correlation with any component (which needs terms that vary and are not functions of one another)."""
    if rule not in RULES:
        raise ConfigError(unknown("rule", rule, RULES))
    if rule == "matching":
        return matching(components, terms, count, intercept=intercept)
    found = correlations(components, library(terms))
    if not 1 <= count <= len(found.terms):
        raise ConfigError(f"{count} terms of a library of {len(found.terms)}; choose from 1 to {len(found.terms)}")
    return [found.terms[i] for i in np.argsort(-found.strongest, kind="stable")[:count]]


@dataclass(frozen=True, eq=False)
class Rivals:
    """`squares`: held-out errors, by unit, of `FORMULA`, `COMPONENTS`, `DIRECT` and ``random 0`` on, each with `fits[name]`
    of as many terms (and an intercept alike)."""

    squares: Squares
    fits: dict[str, Refit]

    @property
    def random(self) -> Floats:
        """(R,) RMS of the random selections."""
        return np.array([self.squares.rms(n) for n in self.fits if n not in (FORMULA, COMPONENTS, DIRECT)])

    @property
    def p_random(self) -> float:
        """The chance that terms drawn from the library at random do as well, at least 1 / (1 + R)."""
        return null_p(self.squares.rms(COMPONENTS), self.random, alternative="less")


def derive(
    components: ArrayLike | Tensor,
    candidates: Mapping[str, ArrayLike],
    formula: Mapping[str, ArrayLike],
    y: ArrayLike,
    *,
    train: ArrayLike,
    units: ArrayLike,
    seed: int,
    held: ArrayLike | None = None,
    rule: str = "matching",
    intercept: bool = False,
    draws: int = RANDOM_DRAWS,
) -> Rivals:
    """Terms derived from components against the formula and selections that need no network, Q terms each.

    - `components` (n, K): scores or features of the *train* items alone, in their order; held-out ones cannot leak in.
    - `candidates`, `formula`: name -> (N,) over all items; Q is the number of terms of the formula, whose terms may be among
      the candidates.
    - `y` (N,) the target, `train` and `held` (N,) which items are fitted and scored (`held` None: all others),
      `units` (N,) the clusters that sums are over.

    Random selections pass over terms that are functions of those drawn before.
    """
    names, values = stacked(candidates)
    n, count = len(values), len(formula)
    target, fit = _target(y, n), _mask(train, n)
    scored = ~fit if held is None else _mask(held, n)
    labels, rows = np.asarray(units), table(components, "components")
    if labels.shape != (n,) or len(rows) != int(fit.sum()) or (scored & fit).any():
        raise StatisticsError(
            f"units {labels.shape} must be ({n},), components a row for each of {int(fit.sum())} train items (there are "
            f"{len(rows)}), and no item both fitted and scored ({int((scored & fit).sum())} are)"
        )
    on_train = {name: column[fit] for name, column in zip(names, values.T, strict=True)}
    chosen = {
        COMPONENTS: select(rows, on_train, count, rule=rule, intercept=intercept),
        DIRECT: matching(target[fit][:, None], on_train, count, intercept=intercept),
    }
    fits = {FORMULA: refit(formula, target, fit, intercept=intercept)}
    fits |= {name: _fit(candidates, terms, target, fit, intercept) for name, terms in chosen.items()}
    rng = np.random.default_rng(seed)
    columns = values[fit] - values[fit].mean(axis=0) if intercept else values[fit]
    for i in range(draws):
        terms = _independent(names, columns, rng.permutation(len(names)).tolist(), count)
        fits[f"random {i}"] = _fit(candidates, terms, target, fit, intercept)
    sources = {name: formula if name == FORMULA else candidates for name in fits}
    errors = {name: -f.residual(sources[name], target)[scored] for name, f in fits.items()}
    return Rivals(squares(errors, labels[scored]), fits)


def _independent(names: Sequence[str], values: Floats, order: Sequence[int], count: int) -> list[str]:
    """The first `count` columns of `values`, in `order`, that are not functions of those taken before."""
    whole, rest = (values**2).sum(axis=0), values.copy()
    taken: list[str] = []
    for i in order:
        length = float(rest[:, i] @ rest[:, i])
        if len(taken) < count and length > SPENT * whole[i]:
            taken.append(names[i])
            unit = rest[:, i] / np.sqrt(length)
            rest -= np.outer(unit, unit @ rest)
    return taken


def _fit(candidates: Mapping[str, ArrayLike], names: Sequence[str], y: Floats, train: Bools, intercept: bool) -> Refit:
    return refit({name: candidates[name] for name in names}, y, train, intercept=intercept)


def _target(y: ArrayLike, n: int) -> Floats:
    target = np.asarray(y, dtype=np.float64)
    if target.shape != (n,):
        raise StatisticsError(f"the target has shape {target.shape}; ({n},), one number an item, was expected")
    if not np.isfinite(target).all():
        raise NonFiniteError(f"the target is NaN or infinite for {int((~np.isfinite(target)).sum())} of {n} items")
    return target


def _mask(mask: ArrayLike, n: int) -> Bools:
    chosen = np.asarray(mask)
    if chosen.shape != (n,) or chosen.dtype != np.bool_ or not chosen.any():
        raise StatisticsError(
            f"a choice of items is {n} truth values, not all false; got {chosen.dtype} {chosen.shape}"
        )
    return chosen
