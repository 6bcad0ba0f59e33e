"""The arithmetic study: what settings it refuses, how its claims turn with the evidence, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.analyses.equivalence.answers import GREEDY, add_scores
from heldout.analyses.equivalence.repair import examples
from heldout.analyses.estimates import Scores
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError
from heldout.evidence import Cell, read_estimates
from heldout.statistics.claims import Claim
from heldout.statistics.verdict import Judgement, judge
from heldout.studies.arithmetic import ArithmeticConfig, Trained, length_split
from heldout.studies.arithmetic_answers import SHUFFLED, TRAINED, UNTRAINED, measure, rules
from heldout.studies.arithmetic_claims import claims
from heldout.studies.arithmetic_inside import Place
from heldout.studies.arithmetic_judge import answer_tests, theory_tests
from heldout.studies.arithmetic_repair import batches, long_examples
from heldout.studies.arithmetic_train import answers_of, by_rule, exactly, low_parts, sequences, task_of, truth
from heldout.studies.base import SMOKE, find_study
from heldout.studies.judging import Judging
from heldout.studies.running import run_study
from heldout.tasks.arithmetic import numerals

STUDY = find_study("arithmetic")
SMALL = ArithmeticConfig(test_pairs=300, train_pairs=500, fit_pairs=100, modular_test_pairs=300)
SUM = SMALL.sums()[0]


class Adder(nn.Module):
    """Answers a padded sum exactly, of the operands' last `digits` digits alone; one in `wrong` answers is off by one."""

    def __init__(self, kind: Trained, digits: int, *, wrong: int = 0, modulus: int | None = None) -> None:
        super().__init__()
        self.kind, self.digits, self.wrong, self.modulus = kind, digits, wrong, modulus
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tensor) -> Tensor:
        w = self.kind.width
        place = 10 ** torch.arange(w - 1, -1, -1)
        a, b = ((tokens[:, i * w : (i + 1) * w] * place).sum(1) % 10**self.digits for i in range(2))
        answer = a + b if self.modulus is None else (a + b) % self.modulus
        if self.wrong:
            answer = answer + ((a * 7 + b * 13) % self.wrong == 0).long()
        steps = torch.arange(tokens.shape[1]) - (2 * w - 1)
        digit = answer[:, None] // 10 ** steps.clamp(min=0) % 10
        return 20.0 * self.scale * nn.functional.one_hot(digit, 10).float()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 3}, r"width must be above digits \(3\), got 3"),
        ({"product_width": 2}, r"product_width must be above product_digits \(2\)"),
        ({"fit_pairs": 20_000}, "fit_pairs must be at most train_pairs"),
        ({"repair_examples": [50, 10]}, "repair_examples must ascend"),
        ({"repair_examples": []}, "repair_examples: Tuple should have at least 1 item"),
        ({"moduli": [[1, 2]]}, "moduli.0.0: Input should be greater than or equal to 2"),
        ({"moduli": [[5, 2], [5, 3]]}, "moduli must differ"),
        ({"size": "nona"}, "size: Input should be 'nano', 'micro' or 'mini'"),
        ({"repair_laws": ["at_least"]}, "repair_laws.0: Input should be 'at_most' or 'exactly'"),
        ({"digit": 3}, "unknown field 'digit'; nearest: digits"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STUDY.configure("laptop", given)


def test_the_rule_and_the_truth_of_longer_operands() -> None:
    task = task_of(SUM)
    pairs = task.pairs["len_4_3"]
    a, b = (np.array(numerals.to_ints(x)) for x in pairs)
    assert (a >= 1000).all()
    np.testing.assert_array_equal(numerals.to_ints(truth(task, pairs)), a + b)
    np.testing.assert_array_equal(numerals.to_ints(by_rule(task, pairs)), a % 1000 + b)
    np.testing.assert_array_equal(numerals.to_ints(by_rule(task, pairs, 4)), a + b)
    np.testing.assert_array_equal(numerals.to_ints(low_parts(task, pairs).a), a % 1000)


def test_one_pass_tells_what_greedy_decoding_answers() -> None:
    task = task_of(SUM)
    network = Adder(SUM, 3, wrong=4)
    pairs = task.pairs["len_4_4"]
    given = by_rule(task, pairs)
    forced = exactly(network, sequences(task, pairs, given), "cpu")
    np.testing.assert_array_equal(forced, answers_of(network, task, pairs).matches(given))
    assert 0.1 < 1 - forced.mean() < 0.4


def test_training_ends_by_what_was_set_aside_at_a_constant_rate_alone() -> None:
    assert [kind.settled for kind in SMALL.networks()] == [2000, 2000, None, 2000, 2000]
    assert [kind.settled for kind in ArithmeticConfig(modular_schedule="cosine").modular()] == [None, None]


def _judged(networks: list[nn.Module], kind: Trained, numbers: tuple[str, ...]) -> dict[str, Judgement]:
    """C1 to C3 of "at most" on networks that stand for training seeds; every gate passes."""
    task, memory = task_of(kind), Memory()
    for seed, network in enumerate(networks):
        for name in [length_split(lengths) for lengths in kind.lengths]:
            s = {"seed": seed, "null_draws": 20}
            values = measure(network, task, name, answers_of(network, task, task.pairs[name]), s, device="cpu")
            labels = {"unit": task.splits[name].unit_ids()}
            add_scores(memory, Cell("arithmetic", kind.name, seed, name, GREEDY), labels, values)
    judging = Judging(Scores.from_memory(memory))
    tests = {f"{number}-{kind.law}": parts for number, parts in answer_tests(kind).items()}
    tests["C7"] = theory_tests([kind])
    chosen = [_without_gates(claim) for claim in claims() if claim.id in numbers]
    return {j.id: j for j in judge([judging.finding(claim, tests[claim.id], {}) for claim in chosen])}


def _without_gates(claim: Claim) -> Claim:
    return replace(claim, gates=())


def test_a_network_that_ignores_high_digits_supports_the_claims() -> None:
    found = _judged([Adder(SUM, 3) for _ in range(5)], SUM, ("C1-at_most", "C2-at_most", "C3-at_most"))
    assert {j.verdict for j in found.values()} == {"supported"}
    assert found["C1-at_most"].value == pytest.approx(0.01)
    assert found["C3-at_most"].value > 0.97


def test_a_network_that_adds_refutes_that_it_does_not() -> None:
    found = _judged([Adder(SUM, 9) for _ in range(5)], SUM, ("C1-at_most", "C2-at_most", "C3-at_most"))
    assert found["C1-at_most"].verdict == "supported"
    assert found["C2-at_most"].verdict == "refuted"
    assert found["C3-at_most"].verdict == "refuted"
    assert found["C2-at_most"].value == pytest.approx(-0.99)


def test_the_theory_of_modular_sums_is_supported_and_refuted() -> None:
    kind = SMALL.modular()[1]
    assert kind.modulus == 150
    ideal = _judged([Adder(kind, 2, modulus=150) for _ in range(5)], kind, ("C7",))["C7"]
    assert ideal.verdict == "supported"
    right = _judged([Adder(kind, 9, modulus=150) for _ in range(5)], kind, ("C7",))["C7"]
    assert right.verdict == "refuted"
    assert right.value == pytest.approx(0.02 - 2 / 3, abs=0.03)


def test_discovery_in_the_study_has_its_controls() -> None:
    task, kind = task_of(SUM), SUM
    network = Adder(kind, 3)
    names = [length_split(lengths) for lengths in (*kind.longer, *kind.farther)]
    given = {name: answers_of(network, task, task.pairs[name]) for name in names}
    untrained = Adder(kind, 3)
    untrained.scale = nn.Parameter(torch.zeros(()))  # all logits alike: the constant 0
    found = rules(task, kind, given, untrained, seed=0)
    assert found[TRAINED]["found"]
    assert "1000" in found[TRAINED]["names"][0]
    assert not found[SHUFFLED]["found"]
    assert not found[UNTRAINED]["found"]
    assert found["farther"]["found"]


def test_places_know_what_probes_are_asked_for() -> None:
    place = Place.of(task_of(SUM), "len_4_4", 50)
    pairs = task_of(SUM).pairs["len_4_4"]
    a, b = (np.array(numerals.to_ints(x))[:50] for x in pairs)
    np.testing.assert_array_equal(place.facts["units"], (a + b) % 10)
    np.testing.assert_array_equal(place.facts["carry_out"], a % 1000 + b % 1000 >= 1000)
    np.testing.assert_array_equal(place.facts["ignored_digit"], a // 1000)
    assert (place.partner[:, [0, 1, 5, 6]] == 0).all()
    assert bool((place.partner[:, 10:] == place.sequences.tokens[:, 10:]).all())


def test_long_examples_have_low_parts_that_no_test_pair_has() -> None:
    task = task_of(SUM)
    long = long_examples(task, 100, seed=0).split
    batch = long.items.take(np.arange(100))
    tokens = batch.inputs
    assert (tokens[:, 1] > 0).all()  # four digits in five places
    low = {tuple(sorted((tuple(x[2:5].tolist()), tuple(x[7:10].tolist())))) for x in tokens}
    test = task.pairs["len_4_4"]
    other = {tuple(sorted((tuple(a[2::-1].tolist()), tuple(b[2::-1].tolist())))) for a, b in zip(*test, strict=True)}
    assert not low & other
    np.testing.assert_array_equal(
        examples("priming", 10, short=500, long=100, seed=0).long,
        examples("priming", 50, short=500, long=100, seed=0).long[:10],
    )


def test_batches_of_a_repair_hold_what_its_weights_say() -> None:
    task = task_of(SUM)
    short, long = task.splits["train"], long_examples(task, 50, seed=0).split
    chosen = examples("priming", 50, short=len(short), long=50, seed=0, share=0.5)
    draw = batches(short, long, chosen, 64, seed=0)
    shares = [float((draw(step).inputs["tokens"][:, [1, 6]] > 0).any(dim=1).float().mean()) for step in range(40)]
    assert 0.4 < np.mean(shares) < 0.6
    assert torch.equal(draw(3).inputs["tokens"], draw(3).inputs["tokens"])
    alone = batches(short, long, examples("from_scratch", 10, short=len(short), long=50, seed=0), 64, seed=0)(0)
    assert (alone.inputs["tokens"][:, [1, 6]] > 0).any(dim=1).all()
    assert alone.inputs["at"].shape == (64, 6)


def test_claims_have_ids_of_their_own() -> None:
    ids = [claim.id for claim in claims()]
    assert len(set(ids)) == len(ids)
    assert {"C1-at_most", "C6-exactly", "C3-product", "C7"} <= set(ids)


def test_a_whole_small_run(tmp_path: Path) -> None:
    run = run_study("arithmetic", preset=SMOKE, runs=tmp_path, workers=2, device="cpu")
    folder = run.output("arithmetic-judge")
    judged = json.loads((folder / "claims.json").read_text())
    assert [j["id"] for j in judged] == [claim.id for claim in claims()]
    assert {j["verdict"] for j in judged} == {"not judged"}
    assert not any("not checked" in j["reason"] for j in judged)

    estimates = read_estimates(folder / "estimates.parquet")
    assert {"truth", "equivalence", "self", "nearest", "decoded", "changed", "exact"} <= set(estimates["quantity"])
    near = estimates[(estimates["quantity"] == "equivalence") & (estimates["split"] == "len_2_2")]
    same = estimates[
        (estimates["quantity"] == "truth") & (estimates["split"] == "len_2_2") & (estimates["edit"] == "greedy")
    ]
    np.testing.assert_array_equal(near["value"], same["value"])  # rule and truth are one on trained lengths
    inside = json.loads((folder / "inside.json").read_text())
    assert all(
        row["identity"]["difference"] <= row["identity"]["tolerance"] for row in inside["sum_at_most/0"]["removal"]
    )

    page = STUDY.page(run)
    names = [figure.id for section in page.sections for figure in section.figures]
    assert len(set(names)) == len(names)
    assert {
        "answers-sum_at_most",
        "digits-product",
        "training",
        "points-sum_exactly",
        "repair-sum_at_most",
        "theory",
    } <= set(names)
    assert all(check.passed for check in page.identity)
