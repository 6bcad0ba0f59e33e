"""How often discovery finds what is not there, and finds what is: a few cases here, 500 of each kind when slow."""

from __future__ import annotations

import planting
import pytest

import heldout
from heldout import Relation


def discovered(case: planting.Case, seed: int) -> Relation:
    return heldout.discover_rule(
        case.a, case.b, case.answers, operation=case.operation, modulus=case.modulus, base=case.base, seed=seed
    )


def false_discoveries(cases: int) -> int:
    return sum(discovered(planting.noise(seed), seed).found for seed in range(cases))


def power(cases: int, noise: float) -> tuple[int, int, int]:
    """Cases that could be confirmed at all; of these, those found; and all those found whose set lacks the planted rule.

    None could be where the threshold leaves no room below the share of answers that follow the rule (next to constant
    answers), or where there are too few different pairs (three binary digits have 36).
    """
    possible = found = lost = 0
    for seed in range(cases):
        case = planting.planted(seed, noise)
        relation = discovered(case, seed)
        could = relation.threshold < 1 - noise - 0.1 and "too few pairs" not in relation.reason
        possible += could
        found += relation.found and could
        lost += relation.found and not planting.in_set(case, relation)
    return possible, found, lost


def test_a_few_cases() -> None:
    assert false_discoveries(4) == 0
    possible, found, lost = power(4, 0.1)
    assert lost == 0
    assert found == possible > 1


@pytest.mark.slow
def test_false_discovery_is_rare() -> None:
    assert false_discoveries(500) <= 25  # at most 5%; measured: 0


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_planted_rules_are_found_and_kept(noise: float) -> None:
    possible, found, lost = power(500, noise)
    assert possible >= 350
    assert found >= 0.95 * possible
    assert lost <= 0.05 * found
