"""What the page of an audit shows, what it folds, and what it leaves out."""

from __future__ import annotations

from typing import Any

from heldout.audits.sections import ROWS, TOP, disagreements, early_warning, most_telling, reasons
from heldout.evidence import Estimate, estimates_frame

AT: dict[str, Any] = {"network": "network", "site": "1", "n": 9}


def excess(edit: str, size: float | None, split: str, value: float) -> Estimate:
    return Estimate("excess_gap", value, value - 0.1, value + 0.1, edit=edit, parameter=size, split=split, **AT)


FOUND = [
    excess("svd", 4.0, "far", 0.1),
    excess("svd", 4.0, "near", 0.4),
    excess("svd", 8.0, "far", 0.2),
    excess("sae", None, "far", 0.3),
    excess("mean", None, "far", 0.0),
]


def test_readings_that_lose_most_come_first_each_on_its_worst_split() -> None:
    found = most_telling(estimates_frame(FOUND))
    assert list(found.items()) == [
        (("network", "1", "svd", 4.0), "near"),
        (("network", "1", "sae", None), "far"),
        (("network", "1", "svd", 8.0), "far"),
    ]
    assert len(found) == TOP < len({(e.edit, e.parameter) for e in FOUND})


def test_with_one_test_split_they_are_those_that_agree_least() -> None:
    rows = [Estimate("chosen_same", v, v, v, edit=e, split="id", **AT) for e, v in (("a", 0.9), ("b", 0.5), ("c", 0.7))]
    assert [key[2] for key in most_telling(estimates_frame(rows))] == ["b", "c", "a"]


def row(edit: str, name: str, size: float | None, split: str, item: int) -> dict[str, Any]:
    who = {"network": "network", "seed": 0, "site": "1", "edit": edit, "name": name, "parameter": size, "split": split}
    told = {"item": item, "position": 0, "context": "", "answer": "a\n", "edited": "b", "target": "", "same": False}
    return who | told | {"divergence": 1.0}


def test_a_few_disagreements_are_shown_and_all_are_folded_below() -> None:
    rows = [
        row(edit, name, size, split, i)
        for edit, name, size in (("svd-4", "svd", 4.0), ("svd-8", "svd", 8.0), ("sae", "sae", None))
        for split in ("near", "far")
        for i in range(20)
    ]
    section = disagreements(rows, "classification", most_telling(estimates_frame(FOUND)))
    assert section is not None
    shown = [t for t in section.tables if not t.folded]
    assert [t.title for t in shown] == ["svd-4 at 1 on near", "sae at 1 on far", "svd-8 at 1 on far"]
    assert {len(t.rows) for t in shown} == {ROWS}
    assert "(of 20)" in shown[0].caption
    folded = [t for t in section.tables if t.folded]
    assert len(folded) == 6
    assert {len(t.rows) for t in folded} == {20}
    assert "a⏎" in folded[0].rows[0]  # a blank is seen


def auroc(score: str, split: str, value: float, half: float) -> Estimate:
    at = {"edit": "svd", "parameter": 4.0, "split": split, "null": 0.5, **AT}
    return Estimate(f"auroc: {score}", value, value - half, value + half, **at)


def test_scores_that_vary_nowhere_are_left_out_of_early_warning() -> None:
    rows = [auroc("distance", s, 0.8, 0.1) for s in ("near", "far")]
    rows += [auroc("length", s, 0.5, 0.0) for s in ("near", "far")] + [auroc("position", "far", 0.5, 0.1)]
    section = early_warning(estimates_frame(rows), {("network", "1", "svd", 4.0): "near"})
    assert section is not None
    assert {str(r) for r in section.figures[0].data["quantity"]} == {"auroc: distance", "auroc: position"}
    assert section.tables[0].folded
    assert len(section.tables[0].rows) == 3
    assert early_warning(estimates_frame(FOUND), {}) is None


def test_a_gap_without_another_to_explain_it_has_no_section_of_reasons() -> None:
    at = {"edit": "svd", "parameter": 4.0, "split": "far", "reference": "id", **AT}
    gap = Estimate("gap", 0.2, 0.1, 0.3, **at)
    assert reasons(estimates_frame([gap]), "id", [{"oracles_not_fitted": {}}]) is None
    both = [gap, Estimate("gap_oracle", 0.1, 0.0, 0.2, oracle=True, **at)]
    section = reasons(estimates_frame(both), "id", [{"oracles_not_fitted": {"near": "one unit"}}])
    assert section is not None
    assert set(section.figures[0].data["quantity"]) == {"gap", "gap_oracle"}
    assert "near: one unit" in section.text[-1]
