"""Random tables of pairs and answers: with a rule planted in them, and without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heldout.analyses.equivalence.evaluation import plan
from heldout.analyses.equivalence.found import Relation
from heldout.analyses.equivalence.grammar import Hypothesis, Op
from heldout.tasks.arithmetic import numerals

SETTINGS: list[tuple[str, int | None]] = [
    ("add", None),
    ("add", None),
    ("subtract", None),
    ("multiply", None),
    ("mod_add", 150),
    ("mod_multiply", 51),
]
OP: dict[str, Op] = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "mod_add": "add",
    "mod_multiply": "multiply",
}
NOISES = ("shuffled", "uniform", "few", "digits")


@dataclass
class Case:
    """Operands and answers as lists, what they are asked for, and the rule that was planted."""

    a: list[int]
    b: list[int]
    answers: list[int]
    operation: str
    modulus: int | None
    base: int
    rule: Hypothesis


def planted(seed: int, noise: float, n: int = 400) -> Case:
    """A rule of the grammar; `noise` is the share of answers that are replaced by those to other pairs."""
    rng = np.random.default_rng(seed)
    operation, modulus = SETTINGS[rng.integers(len(SETTINGS))]
    base = int(rng.choice([10, 10, 2, 7, 16]))
    width = int(rng.integers(3, 6))
    low = 1 if rng.random() < 0.5 else width
    a, b = (_operands(rng, n, low, width, base) for _ in range(2))
    rules = plan(OP[operation], width, modulus).hypotheses
    rule = rules[rng.integers(len(rules))]
    answers = np.array(says(rule, a, b, base), dtype=object)
    wrong = rng.random(n) < noise
    answers[wrong] = rng.permutation(answers)[wrong]
    return Case(a, b, answers.tolist(), operation, modulus, base, rule)


def noise(seed: int, n: int = 400) -> Case:
    """Answers without a relation to the operands: a rule's answers shuffled, uniform numbers, three values only, or
    numbers of a common length with one leading digit."""
    case = planted(seed, 0.0, n)
    rng = np.random.default_rng([seed, 1])
    kind = NOISES[seed % len(NOISES)]
    if kind == "shuffled":
        case.answers = rng.permutation(np.array(case.answers, dtype=object)).tolist()
    elif kind == "uniform":
        case.answers = rng.integers(0, case.base ** int(rng.integers(1, 6)), n).tolist()
    elif kind == "few":
        case.answers = rng.choice(rng.integers(0, 2000, 3), n, p=[0.6, 0.3, 0.1]).tolist()
    else:
        case.answers = (case.base**3 + rng.integers(0, case.base, n)).tolist()
    return case


def says(rule: Hypothesis, a: list[int], b: list[int], base: int) -> list[int]:
    """What the rule answers, as Python ints."""
    said = rule.predict(numerals.from_ints(a, base), numerals.from_ints(b, base), base)
    values = numerals.to_ints(said.digits, base)
    return [-v if minus else v for v, minus in zip(values, said.negative.tolist(), strict=True)]


def in_set(case: Case, relation: Relation) -> bool:
    """Whether the planted rule, or one that answers alike on all pairs given, is in the set that was returned."""
    if case.rule in relation.rules:
        return True
    wanted = says(case.rule, case.a, case.b, case.base)
    return any(says(h, case.a, case.b, case.base) == wanted for h in relation.rules)


def _operands(rng: np.random.Generator, n: int, low: int, high: int, base: int) -> list[int]:
    lengths = rng.integers(low, high + 1, n)
    lengths[0] = high
    floors = [base ** (int(k) - 1) for k in lengths]
    return [int(rng.integers(f, f * base)) for f in floors]
