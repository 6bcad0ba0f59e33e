"""What one network's decisions owe to a feature's directions: kept components, pushes along them, and their removal."""

from __future__ import annotations

from collections.abc import Iterator

from heldout.analyses.features.principal import components, survival
from heldout.analyses.features.steering import class_difference, steer
from heldout.analyses.features.subspace import ablation_cost
from heldout.analyses.features.variance import fit_map
from heldout.studies.features_measured import Measured, Value, valued

RANKS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128, 256)
PUSH = 1.0  # in units of the class difference: where off-target flips are read


def surviving(m: Measured) -> Iterator[Value]:
    """Accuracy with the largest components alone."""
    ranks = [k for k in RANKS if k <= m.fit.width]
    kept = survival(m.decide, m.x["test"], m.here.test.values, m.names, components(m.fit), ranks)
    for i, name in enumerate(m.names):
        k95 = kept.k95(name)
        yield Value(f"k95:{name}", k95, reason="" if k95 else "no listed rank keeps 95% of the accuracy")
        for rank, accuracy in zip(kept.ranks, kept.accuracy[:, i].tolist(), strict=True):
            yield Value(f"accuracy_of_top:{name}", accuracy, rank)


def steering(m: Measured, name: str) -> Iterator[Value]:
    """The push along a feature's class difference that flips half of its decisions, and what else that flips."""
    direction = class_difference(m.fit, int(m.coding.columns(name)[0]))
    found = steer(m.decide, m.x["test"], m.names, name, direction)
    for quantity, value in (
        ("half_push", found.half.value),
        ("half_length", found.half_length),
        ("half_deviations", found.half_deviations),
    ):
        yield valued(f"{quantity}:{name}", value, reason=found.half.reason)
    yield Value(f"difference_length:{name}", direction.length)
    others = found.off_target(PUSH)
    if others:
        yield Value(f"off_target:{name}", max(others.values()))
    at = m.names.index(name)
    for alpha, share in zip(found.alphas.tolist(), found.flips[:, at].tolist(), strict=True):
        yield Value(f"flips:{name}", share, alpha)


def removal(m: Measured, name: str) -> Iterator[Value]:
    """Accuracy that the removal of a feature's directions costs, and that of as many random ones."""
    basis = fit_map(m.fit, m.coding.columns(name)).weights
    found = ablation_cost(m.decide, m.x["test"], m.here.test.values, m.names, basis, m.fit.mean()[1], seed=m.seed)
    yield Value(f"cost:{name}", found.cost[name].value)
    yield Value(f"random_cost:{name}", float(found.random[:, m.names.index(name)].mean()))
