"""What claims of the features study read: sums of each test row, written as scores."""

from __future__ import annotations

import numpy as np
import torch

from heldout.analyses.features.decode import INNER, STRENGTHS, probe
from heldout.analyses.features.reliance import GRID, training_items
from heldout.analyses.features.strength import score
from heldout.analyses.tables import Sink
from heldout.errors import StatisticsError
from heldout.evidence import Cell, Origin
from heldout.studies.features_conditions import EXPERIMENTS
from heldout.studies.features_measured import MAP, Measured, Value, relying


def add_scores(m: Measured, sink: Sink) -> list[Value]:
    """Squared norms by test row, whole and explained, what the network answers, and what classifiers rely on; returned is
    what could not be scored, with the reason."""
    x, rows = m.x["test"], m.here.test
    errors = score(m.fit, x, m.here.design["test"], m.coding)
    total = errors.total
    moves = total > 0
    columns: dict[str, np.ndarray] = {"unit": rows.keys, "n": np.ones(len(total)), "total": total}
    columns["moves"] = moves.astype(float)
    for name in m.names:
        columns[f"explained:{name}"] = gain = total - errors.error(name)
        columns[f"example:{name}"] = np.divide(gain, total, out=np.zeros_like(total), where=moves)
    if m.here.answered:
        columns |= _answers(m)
    sink.add(_cell(m, MAP), columns)
    without = []
    if m.here.condition.name in EXPERIMENTS["E17"] and m.here.binary == list(m.names) and len(m.names) == 2:
        for a, b in GRID:
            try:
                sink.add(_cell(m, relying(a, b)), _reliance(m, (a, b)))
            except StatisticsError as error:
                without.append(Value(f"reliance {a:g} {b:g}", None, reason=str(error)))
    return without


def _cell(m: Measured, edit: Origin) -> Cell:
    return Cell("features", m.here.condition.name, m.seed, "test", edit)


def _answers(m: Measured) -> dict[str, np.ndarray]:
    targets = torch.from_numpy(m.here.test.values)
    with torch.no_grad():
        outputs = m.model.readout(m.x["test"])
    losses = m.here.task.heads.losses(outputs, targets).double().numpy()
    right = (m.here.task.heads.predictions(outputs) == targets).double().numpy()
    return {f"correct:{f}": right[:, i] for i, f in enumerate(m.names)} | {
        f"loss:{f}": losses[:, i] for i, f in enumerate(m.names)
    }


def _reliance(m: Measured, rates: tuple[float, float]) -> dict[str, np.ndarray]:
    """One row a test row: whether the features disagree there (`n`), and whether it is labelled as the first says."""
    from sklearn.model_selection import StratifiedKFold

    rng = np.random.default_rng(m.seed)
    items, label = training_items(m.here.val.values, rates, rng)
    folds = StratifiedKFold(INNER, shuffle=True, random_state=int(rng.integers(2**31)))
    fit, test = (m.x[split].double().numpy() for split in ("val", "test"))
    said = probe(STRENGTHS, folds).fit(fit[items], label).predict(test)
    first, second = m.here.test.values.T
    apart = first != second
    follows = said == first
    return {
        "unit": m.here.test.keys,
        "n": apart.astype(float),
        "on_first": (apart & follows).astype(float),
        "agreed": (~apart).astype(float),
        "right": (~apart & follows).astype(float),
    }
