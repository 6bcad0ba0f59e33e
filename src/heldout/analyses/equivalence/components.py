"""What a mixture may be made of besides the best rule: other rules, and slips by a fixed amount.

Both are chosen on the discovery half, and only where they explain more of what is still open than chance would have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from heldout.analyses.equivalence.evaluation import Bools, Table
from heldout.analyses.equivalence.grammar import Hypothesis
from heldout.tasks.arithmetic import numerals
from heldout.tasks.arithmetic.numerals import Signed

EXTRA = 4  # rules besides the best
OFFSETS = 6  # amounts by which the best rule may be missed
FEWEST, SIGNIFICANT = 3, 1e-3  # pairs behind an offset, and its p-value (Bonferroni over the offsets seen)
FEWEST_OF_RULE = 5


def components(
    table: Table, half: int, rules: Sequence[Hypothesis], hits: Bools, best: int, least: float
) -> tuple[list[str], Bools]:
    """Names (C) and matches (C, N) of the components, the best rule first.

    The first `half` rows of `table` are the discovery half; `hits` (K, N) are the matches of `rules`. A further rule must
    match more than the share `least` of the pairs that are open when it is taken.
    """
    taken = [best]
    for _ in range(EXTRA):
        open_rows = ~hits[taken, :half].any(axis=0)
        gains = (hits[:, :half] & open_rows).sum(axis=1)
        if gains.max() < FEWEST_OF_RULE or gains.max() <= least * open_rows.sum():
            break
        taken.append(int(gains.argmax()))
    names = [rules[i].name(table.base) for i in taken]
    chosen = [hits[i] for i in taken]
    for offset, rows in _offsets(table, half, rules[best], ~np.any(chosen, axis=0)):
        names.append(f"{names[0]}, {'+' if offset > 0 else '-'} {abs(offset)}")
        chosen.append(rows)
    return names, np.array(chosen, dtype=bool)


def _offsets(table: Table, half: int, rule: Hypothesis, unmatched: Bools) -> list[tuple[int, Bools]]:
    """The commonest differences answer - rule among `unmatched` pairs, and the pairs that show them."""
    from scipy.special import bdtrc

    rows = np.flatnonzero(unmatched & table.parsable)
    part = table.take(rows)
    answers = _ints(Signed(part.negative, part.answers), table.base)
    said = _ints(rule.predict(part.a, part.b, table.base), table.base)
    differences = [y - h for y, h in zip(answers, said, strict=True)]
    seen = Counter(differences[: int((rows < half).sum())])
    if not seen:
        return []
    # Answers unrelated to the rule show one difference at most as often as the commonest answer.
    chance = max(Counter(answers).values()) / len(rows)
    out = []
    for offset, count in seen.most_common(OFFSETS):
        if count >= FEWEST and bdtrc(count - 1, seen.total(), chance) * len(seen) < SIGNIFICANT:
            found = np.zeros(len(table), dtype=bool)
            found[rows[[d == offset for d in differences]]] = True
            out.append((offset, found))
    return out


def _ints(numbers: Signed, base: int) -> list[int]:
    values = numerals.to_ints(numbers.digits, base)
    return [-v if minus else v for v, minus in zip(values, numbers.negative.tolist(), strict=True)]
