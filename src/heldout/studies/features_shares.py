"""How one network's variance is dealt out among features: to each alone, to several in common, to their interactions.

Two views. *Least squares* on all labels together, split by what each loses when left out (`parts`, `commonality`): shares
in common stand for labels that go together in the rows. *Cells*, all weighing alike (`factorial`): main effects,
interactions, and what varies within a cell, which no function of the features explains; these add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from heldout.analyses.features.factorial import RESIDUAL, cell_moments, factorial
from heldout.analyses.features.variance import commonality, parts, subsets
from heldout.studies.features_measured import Measured, Value

FEW = 4  # features whose 2^q cells still hold enough rows
TIMES, WITHIN = " x ", "within cells"


def few(m: Measured) -> bool:
    """Whether there are several features, and not too many."""
    return 2 <= len(m.names) <= FEW


def together(m: Measured) -> Iterator[Value]:
    """``unique:f`` and ``shared:f``, which add up to f's variance explained; ``common:f x g`` for every set of features,
    which with the unique parts add up to ``explained_together``. Pooled, fitted on val, scored on test."""
    for name, part in parts(m.fit, m.tested, m.coding).items():
        yield Value(f"unique:{name}", part.unique)
        yield Value(f"shared:{name}", part.shared)
    r2 = subsets(m.fit, m.tested, m.coding)
    for chosen, share in commonality(r2).items():
        if len(chosen) > 1:
            yield Value(f"common:{TIMES.join(chosen)}", share)
    yield Value("explained_together", r2[m.names])


def effects(m: Measured) -> Iterator[Value]:
    """``effect:f`` for each binary feature, ``effect:f x g`` for each set of them, ``effect:within cells`` for the rest."""
    binary = tuple(m.here.binary)
    moments = {}
    for split, rows in (("val", m.here.val), ("test", m.here.test)):
        cells, levels = m.coding.cells(rows.table, *binary)
        moments[split] = cell_moments(m.x[split], cells, len(levels))
    for chosen, share in factorial(moments["val"], moments["test"], binary).items():
        yield Value(f"effect:{WITHIN if chosen == RESIDUAL else TIMES.join(chosen)}", share)
