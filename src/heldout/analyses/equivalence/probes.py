"""Pairs to ask a model that tell rules apart: those on which the rules that are left disagree.

Candidates cover the strata in which such rules part: the lengths of both operands, a carry into a given digit, cascades
of carries, zeros in the low digits, all leading digits. Probes are taken one by one; each separates as many as possible
of the pairs of rules that have been separated least, which raises the smallest disagreement as fast as one step can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from heldout.analyses.equivalence.evaluation import Plan, Table
from heldout.analyses.equivalence.grammar import Hypothesis, Op
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Digits

EACH = 12  # candidates a stratum
MOST = 40  # rules that are compared, the simplest of them


@dataclass(frozen=True, eq=False)
class Probes:
    """P pairs that separate M rules.

    - `pairs`: one row a probe: a, b, the stratum it was drawn from, and what each rule answers to it (as text).
    - `agreement` (M, M): share of the probes on which two rules agree.
    - `together`: groups of rules that no candidate told apart; `strata`: candidates tried, by stratum.
    """

    pairs: pd.DataFrame
    agreement: pd.DataFrame
    together: tuple[tuple[str, ...], ...]
    strata: dict[str, int]

    @property
    def least_disagreement(self) -> float:
        """The smallest share of the probes on which two separable rules differ; NaN where none are separable."""
        values = 1 - self.agreement.to_numpy()
        group = {name: g for g, names in enumerate(self.together) for name in names}
        of = np.array([group.get(str(n), -1 - i) for i, n in enumerate(self.agreement.index)])
        apart = of[:, None] != of[None, :]
        return float(values[apart].min()) if apart.any() else float("nan")


def separating_probes(
    rules: Sequence[Hypothesis], op: Op, *, width: int, base: int, n: int = 20, seed: int = 0
) -> Probes:
    """`n` pairs of operands of up to `width` digits that tell the rules apart (the simplest 40 of them)."""
    rules = sorted(rules, key=lambda h: h.bits(width))[:MOST]
    a, b, stratum = candidates(width, base, np.random.default_rng(seed))
    blank = np.zeros(len(a), dtype=bool)
    table = Table(a, b, numerals.zeros((len(a),), 1), blank, blank, base)
    codes = Plan(rules).codes(table, table.ring(op))
    i, j = np.triu_indices(len(rules), 1)
    apart = codes[i] != codes[j]  # (pairs of rules, candidates)
    able = apart.any(axis=1)
    strata = list(dict.fromkeys(stratum))
    numbers = np.array([strata.index(s) for s in stratum])
    chosen = _cover(apart[able], numbers, min(n, len(a))) if able.any() else []
    names = [rule.name(base) for rule in rules]
    picked = np.array(chosen, dtype=np.int64)
    part = table.take(picked)
    columns = {
        "a": numerals.to_text(part.a, base),
        "b": numerals.to_text(part.b, base),
        "stratum": [stratum[k] for k in chosen],
    }
    for name, rule in zip(names, rules, strict=True):
        said = rule.predict(part.a, part.b, base)
        columns[name] = [
            ("-" if minus else "") + text
            for minus, text in zip(said.negative, numerals.to_text(said.digits, base), strict=True)
        ]
    same = np.ones((len(rules), len(rules)))
    if chosen:
        same[i, j] = same[j, i] = 1 - apart[:, picked].mean(axis=1)
    return Probes(
        pairs=pd.DataFrame(columns),
        agreement=pd.DataFrame(same, index=names, columns=names),
        together=_groups(names, i[~able], j[~able]),
        strata={s: stratum.count(s) for s in strata},
    )


def candidates(width: int, base: int, rng: np.random.Generator) -> tuple[Digits, Digits, list[str]]:
    """Pairs of (N, W) digits, and the stratum each was drawn from."""
    parts: list[tuple[Digits, Digits]] = []
    stratum: list[str] = []

    def add(name: str, a: Digits, b: Digits) -> None:
        parts.append((a, b))
        stratum.extend([name] * len(a))

    for la in range(1, width + 1):
        for lb in range(1, width + 1):
            if width <= 8 or la == lb or width in (la, lb):
                add(f"{la}+{lb} digits", _drawn(la, width, base, rng), _drawn(lb, width, base, rng))
    for n in range(1, width):
        a, b = _drawn(width, width, base, rng), _drawn(width, width, base, rng)
        b[:, n - 1] = np.maximum(b[:, n - 1], base - a[:, n - 1].astype(np.int64)).clip(0, base - 1)
        a[:, n - 1] = np.maximum(a[:, n - 1], 1)
        add(f"carry into digit {n + 1}", a, b)
        a, b = _drawn(width, width, base, rng), _drawn(width, width, base, rng)
        b[:, :n] = base - 1 - a[:, :n]
        a[:, 0], b[:, 0] = base - 1, base - 1
        add(f"cascade of {n} carries", a, b)
        a, b = _drawn(width, width, base, rng), _drawn(width, width, base, rng)
        a[:, :n], b[: len(b) // 2, :n] = 0, 0
        add(f"{n} low zeros", a, b)
    return (
        np.concatenate([a for a, _ in parts]),
        np.concatenate([b for _, b in parts]),
        stratum,
    )


def _drawn(length: int, width: int, base: int, rng: np.random.Generator) -> Digits:
    """(EACH, width) numbers of exactly `length` digits whose leading digits run through all values."""
    digits = numerals.zeros((EACH,), width)
    digits[:, :length] = rng.integers(0, base, size=(EACH, length))
    digits[:, length - 1] = 1 + (np.arange(EACH) + rng.integers(base)) % (base - 1)
    return digits


def _cover(apart: np.ndarray, stratum: np.ndarray, n: int) -> list[int]:
    """Candidates, best first: each separates the most of the least separated pairs of rules.

    Ties go to what separates the most pairs at all, then to the stratum that has been used least, then to the first.
    """
    counts = np.zeros(len(apart), dtype=np.int64)
    used = np.zeros(stratum.max() + 1, dtype=np.int64)
    free = np.ones(apart.shape[1], dtype=bool)
    overall = apart.sum(axis=0)
    chosen: list[int] = []
    for _ in range(n):
        gain = apart[counts == counts.min()].sum(axis=0) * (len(apart) + 1) + overall
        ties = np.flatnonzero(free & (gain == gain[free].max()))
        best = int(ties[np.argmin(used[stratum[ties]])])
        chosen.append(best)
        free[best] = False
        used[stratum[best]] += 1
        counts += apart[:, best]
    return chosen


def _groups(names: list[str], i: np.ndarray, j: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """Connected components of the pairs (i, j)."""
    of = np.arange(len(names))
    for x, y in zip(i.tolist(), j.tolist(), strict=True):
        of[of == of[y]] = of[x]
    groups = [tuple(np.array(names)[of == g].tolist()) for g in np.unique(of)]
    return tuple(g for g in groups if len(g) > 1)
