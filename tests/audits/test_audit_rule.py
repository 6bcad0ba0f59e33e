"""The rule behind a network's answers, through an audit: found where there is one, refused where the answers are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from folders import base, write

import heldout
from heldout.analyses.faithfulness import Subject
from heldout.audits.parts import Rule
from heldout.audits.rule import discovered, record
from heldout.audits.rule_page import rule_section, rule_sentences
from heldout.audits.running import run_audit
from heldout.audits.spec import parse_spec
from heldout.audits.steps import SUMMARY, steps
from heldout.audits.summary import RULES, _rules
from heldout.errors import ConfigError, NetworkError
from heldout.report.of_run import render_run
from heldout.tasks.base import Split

SPLITS = {
    "one digit": {"role": "test", "function": "mine:pairs", "arguments": {"seed": 1, "below": 10}},
    "two digits": {"role": "test", "function": "mine:pairs", "arguments": {"seed": 2}},
}


def alone(**changed: Any) -> dict[str, Any]:
    """A spec that asks for a rule and for nothing else."""
    given = {"rule": {"function": "mine:answers"}, "splits": SPLITS, "network": {"from": "mine:adder"}, **changed}
    return base(**{**given, "sites": None, "families": None})


def test_a_network_that_adds_last_digits_is_found_out(tmp_path: Path) -> None:
    run = run_audit(write(tmp_path, alone()), runs=tmp_path / "runs", progress=None)
    assert set(run.steps()) == {
        "audit-splits",
        "audit-rule-network-r0-one_digit",
        "audit-rule-network-r0-two_digits",
        SUMMARY,
    }
    one, two = json.loads((run.output(SUMMARY) / RULES).read_text())
    assert one["split"] == "one digit"
    assert one["truth"] == 1.0
    assert two["rule"] == "(a mod 10) + (b mod 10)"
    assert two["best"]["heldout"] == 1.0
    assert {c["rule"] for c in two["set"]} == set(two["not_separable"])
    assert len(two["follow"]) == 8
    assert two["differ"] == []

    folder = run.output("audit-rule-network-r0-two_digits")
    table = pd.read_csv(folder / "answers.csv")
    given = torch.randint(0, 100, (160, 2), generator=torch.Generator().manual_seed(2)).numpy()
    np.testing.assert_array_equal(table[["a", "b"]].to_numpy(), given)  # in the split's order
    np.testing.assert_array_equal(table["answer"], (given % 10).sum(axis=1))
    full = json.loads((folder / "rule.json").read_text())
    assert full["pairs"] == 160
    assert len(full["candidates"]) > len(two["set"])

    page, written = render_run(run.path)
    assert not page.edited
    assert "Identity check" not in written.read_text()
    assert [s.id for s in page.sections] == ["rule", "setting"]
    assert any("two digits: the answers follow (a mod 10) + (b mod 10): 100.0%" in s for s in page.summary)
    titles = [t.title for t in page.sections[0].tables]
    assert "Answers that follow it on two digits" in titles
    assert "Answers that break the rule on two digits" not in titles  # there are none
    assert "Held-out matches on two digits by length of the operands" in titles


def of(pairs: np.ndarray, **more: Any) -> Split:
    return heldout.split("id", "test", torch.as_tensor(pairs), **more)


def asked(function: str, folder: Path, *, n: int = 6, rule: dict[str, Any] | None = None) -> Any:
    """`discovered` with a function of that body, on `n` pairs."""
    (folder / "asks.py").write_text(f"import numpy as np\nimport torch\ndef ask(network, batch):\n    {function}\n")
    split = of(np.random.default_rng(0).integers(0, 100, (n, 2)))
    spec = Rule.model_validate({"function": "asks:ask", **(rule or {})})
    return discovered(Subject(torch.nn.Identity()), split, spec, folder, seed=0, batch_size=4)


A, B = "a, b = batch.inputs.T", "return a.tolist(), b.tolist()"
REFUSED = {
    "two values": ("return [1], [2]", ["2 values", "(a, b, answers)"]),
    "a tensor": ("return batch.inputs", ["returned a Tensor", "(a, b, answers)"]),
    "too few": (f"{A}; {B}, [1]", ["4 a, 4 b, 1 answers for 4 items"]),
    "logits": (f"{A}; return a, b, torch.zeros(4, 7)", ["answers of shape (4, 7)", "(4,)"]),
    "a number": (f"{A}; {B}, 3", ["returned a int as answers"]),
    "one text": (f"{A}; {B}, '1234'", ["returned a str as answers"]),
    "floats": (f"{A}; return a.float(), b, a", ["a of item 0 is", "whole number from 0"]),
    "negative": (f"{A}; return a, -1 - b, a", ["b of item 0 is -", "whole number from 0"]),
    "no numeral": (f"{A}; return a, ['x'] * 4, a", ["b of item 0 is 'x'", "base 10"]),
    "truth values": (f"{A}; return a, b, a > b", ["the answer to item 0 is", "whole number, text, or None"]),
    "fractions": (f"{A}; return a, b, a / 2", ["the answer to item 0 is", "whole number, text, or None"]),
    "fails": ("return network.generate(batch)", ["the function failed for 4 items (numbers 0 to 3)", "generate"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_answer_is_refused(name: str, tmp_path: Path) -> None:
    body, words = REFUSED[name]
    with pytest.raises(ConfigError) as raised:
        asked(body, tmp_path)
    said = str(raised.value)
    assert said.startswith("rule.function")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    "form",
    [
        "return a, b, a + b",
        "return a.numpy(), b.numpy(), (a + b).numpy()",
        "return list(a), list(b), list(a + b)",
        "return [str(int(x)) for x in a], list(map(int, b)), [f' {x} ' for x in (a + b).tolist()]",
    ],
)
def test_numbers_may_come_as_tensors_arrays_lists_and_text(form: str, tmp_path: Path) -> None:
    found = asked(f"{A}; {form}", tmp_path)
    assert found.truth == 1.0
    assert found.unparsable == 0


def test_answers_that_are_no_numbers_count_as_wrong(tmp_path: Path) -> None:
    found = asked(f"{A}; {B}, ['12?', None, '', 'twelve'][: len(a)]", tmp_path)
    assert found.unparsable == 6
    assert not found.found


def table(answer: Callable[[Any, Any], Any], **rule: Any) -> dict[str, Any]:
    """A row of `RULES` for answers to 200 pairs."""
    a, b = np.random.default_rng(0).integers(0, 100, (2, 200))
    found = heldout.discover_rule(a, b, answer(a, b), **rule)
    kept = record(found)
    hypotheses = kept.pop("candidates")
    left = [c for c in hypotheses if c["in_set"]]
    return {"network": "network", "seed": 0, "split": "far", **kept, "set": left, "best": (left or hypotheses)[0]}


def test_the_page_says_that_there_is_no_relation_and_why() -> None:
    row = table(lambda a, b: np.random.default_rng(1).permutation(a + b))
    (said,) = rule_sentences([row])
    assert said.startswith("far: no relation between operands and answers: ")
    section = rule_section([row])
    assert section is not None
    assert [t.title for t in section.tables] == [
        "What was found",
        "What the answers on far are made of",
        "Some answers on far",
        "Held-out matches on far by length of the operands",
    ]
    cells = dict(zip(section.tables[0].columns, section.tables[0].rows[0], strict=True))
    assert cells["rule"] == "no relation"
    assert cells["rules left"] is cells["break it"] is None
    assert cells["why there is none"] == row["reason"]
    assert set(section.figures[0].data["against"]) == {"the truth"}


def test_the_page_shows_answers_that_break_the_rule() -> None:
    def answer(a: Any, b: Any) -> Any:
        return np.where(np.arange(len(a)) % 10 == 3, 77, (a * b) % 13)

    row = table(answer, operation="mod_multiply", modulus=13)
    section = rule_section([row, {**row, "network": "other"}])
    assert section is not None
    first = section.tables[0]
    assert {r[first.columns.index("asked")] for r in first.rows} == {"(a × b) mod 13"}
    broken = next(t for t in section.tables if t.title == "Answers that break the rule on far of network")
    assert {r[broken.columns.index("network")] for r in broken.rows} == {"77"}
    assert f"first 8 of {row['differing']}" in broken.caption
    assert set(section.figures[0].data["against"]) == {"the truth", "the rule"}
    assert rule_section([]) is None
    many = rule_section([row] * 5)
    assert many is not None
    assert [t.folded for t in many.tables if "made of" in t.title] == [False] * 4 + [True]


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    write(folder, base())
    return {s.name: dict(s.settings) for s in steps(parse_spec(alone(**changed), "test"), folder)}


def test_a_split_more_computes_no_other_again(tmp_path: Path) -> None:
    one = settings(tmp_path, rule={"function": "mine:answers", "splits": ["two digits"]})
    both = settings(tmp_path)
    name = "audit-rule-network-r0-two_digits"
    assert one[name] == both[name]
    assert both.keys() - one.keys() == {"audit-rule-network-r0-one_digit"}
    assert settings(tmp_path, rule={"function": "mine:answers", "base": 12})[name] != one[name]


def test_a_network_that_came_out_otherwise_on_the_next_split_is_refused(tmp_path: Path) -> None:
    inputs = {}
    for split, weights in (("id", "1"), ("far", "2")):
        folder = inputs[f"rule-n-r0-{split}"] = tmp_path / split
        folder.mkdir()
        hypothesis = {"rule": "a", "in_set": True}
        (folder / "rule.json").write_text(json.dumps({"weights": weights, "rule": "a", "candidates": [hypothesis]}))
    ctx: Any = SimpleNamespace(settings={"runs": {"n": 1}, "scored": ["id", "far"]}, inputs=inputs)
    with pytest.raises(NetworkError, match=r"n, run 0, had other weights on split 'far' .* seed what it draws"):
        _rules(ctx)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"function": "mine:answers", "operation": "ad"}, ["rule.operation", "'add'", "got 'ad'"]),
        ({"function": "mine:answers", "operation": "mod_add"}, ["rule: mod_add needs a modulus"]),
        ({"function": "mine:answers", "modulus": 7}, ["rule: add takes no modulus"]),
        ({"function": "mine:answers", "operation": "mod_add", "modulus": 1}, ["rule.modulus", "got 1"]),
        ({"function": "mine:answers", "base": 37}, ["rule.base", "got 37"]),
        ({"function": "mine:answers", "splits": ["two digit"]}, ["rule.splits: 'two digit' is no test split", "two digits"]),
        ({"operation": "add"}, ["rule.function", "required"]),
        ({"function": "mine:answers", "modulos": 7}, ["unknown field 'rule.modulos'", "modulus"]),
        (None, ["nothing to test", "rule"]),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_asked_for(rule: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_spec(alone(rule=rule), "spec.yaml")
    assert all(word in str(raised.value) for word in words), str(raised.value)
