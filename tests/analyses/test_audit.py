"""The audit of a network whose proxy is known to be right where it was fitted and wrong, or not, where it was not.

Activations have 64 dimensions, of which the prediction is the sign of a + 2 b + c. Where the proxy is fitted, b is 0 and
c is small: one direction, a, is all but everything. On `moved`, b is 2 or -2 and decides; on `wider`, a is doubled.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, audit
from heldout.analyses.faithfulness import Subject
from heldout.analyses.tables import Folder, Memory
from heldout.errors import ProxyError, SplitError
from heldout.evidence import Cell
from heldout.proxies.fit import Family, fit_edits
from heldout.statistics.claims import Claim, Gate
from heldout.statistics.verdict import judge
from heldout.studies.audited import AUDIT, Audited
from heldout.tasks.base import Rectangular, Split

WIDTH, N = 64, 400
PLAN = Plan(reference="id", tests=("moved", "wider"), families=("svd",), oracles=("svd",), margin_bins=5, threshold=0.9)
CLAIM = Claim("X", "title", "excess gap", 0.02, "scope", gates=("nulls match",))


class Sign(nn.Module):
    """logits = (w x, -w x) with a site, ``hidden``, where x is as it is."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.hidden = nn.Identity()
        self.weight = torch.zeros(WIDTH)
        self.weight[:3] = torch.tensor([1.0, 2.0, 1.0])
        self.weight[3:] = 0.01 * torch.randn(WIDTH - 3, generator=torch.Generator().manual_seed(seed))

    def forward(self, x: Tensor) -> Tensor:
        score = self.hidden(x) @ self.weight
        return torch.stack([score, -score], dim=1)


def items(name: str, role: Any, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    x = np.zeros((N, WIDTH), dtype=np.float32)
    x[:, 0] = rng.normal(size=N) * (2 if name == "wider" else 1)
    x[:, 1] = rng.choice([-2.0, 2.0], size=N) if name == "moved" else 0.0
    x[:, 2] = 0.1 * rng.normal(size=N)
    x[:, 3:] = 0.001 * rng.normal(size=(N, WIDTH - 3))
    targets = torch.from_numpy((x[:, 0] + 2 * x[:, 1] < 0).astype(np.int64))
    number = np.arange(N) + 1000 * seed
    return Split(name, role, Rectangular(torch.from_numpy(x), targets), keys=number, units=number)


SPLITS = {
    name: items(name, role, seed)
    for seed, (name, role) in enumerate(
        {"fit": "fit", "id_select": "select", "id": "test", "moved": "test", "wider": "test"}.items()
    )
}


def build(subject: Subject, split: Split, oracle: bool, wanted: Any) -> list[Edit]:
    families = [Family("svd", (1, 2)), Family("mean")] if wanted is None else [Family("svd", (1,))]
    return fit_edits(subject.network, split, ["hidden"], families, oracle=oracle)


def subject(seed: int = 0) -> Subject:
    return Subject(Sign(seed).eval(), "signs", "net", seed)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """Five networks, through the files that a study keeps."""
    root, folders = tmp_path_factory.mktemp("audits"), {}
    for seed in range(5):
        folders["net", seed] = folder = root / str(seed)
        folder.mkdir()
        with Folder(folder) as sink:
            record = audit(subject(seed), SPLITS, PLAN, build, sink, seed=seed)
        (folder / AUDIT).write_text(json.dumps(record))
    return Audited.read(folders, reference="id")


def value(audited: Audited, quantity: str, split: str) -> float:
    return float(getattr(audited.chosen, quantity)(audited.point(("net", 0)), "hidden", "svd", split)[0])


def test_one_direction_is_enough_in_distribution(audited: Audited) -> None:
    record = audited.records["net", 0]
    (row,) = record["chosen"]
    assert (row["site"], row["family"], row["parameter"], row["reached"]) == ("hidden", "svd", 1.0, True)
    assert 0.9 <= row["agreement"] < 1.0
    assert record["identity"]["difference"] == 0.0
    (null,) = record["nulls"]
    assert abs(null["agreement"] - null["target"]) <= 0.01
    assert null["reason"] == ""
    assert len(null["draws"]) == 20


def test_the_gap_is_the_share_of_items_that_the_missing_direction_decides(audited: Audited) -> None:
    x = SPLITS["moved"].items.take(np.arange(N)).inputs.numpy()
    there = np.mean(np.sign(x[:, 0]) == np.sign(x[:, 0] + 2 * x[:, 1] + x[:, 2]))
    x = SPLITS["id"].items.take(np.arange(N)).inputs.numpy()
    here = np.mean(np.sign(x[:, 0]) == np.sign(x[:, 0] + x[:, 2]))
    # Not exact: the fitted direction is a to a few thousandths.
    assert value(audited, "gap", "moved") == pytest.approx(here - there, abs=0.01)
    assert here - there > 0.4


def test_the_null_has_no_such_gap_and_the_oracle_closes_it(audited: Audited) -> None:
    assert abs(value(audited, "null_gap", "moved")) < 0.05
    assert value(audited, "excess", "moved") > 0.35
    assert value(audited, "oracle_gap", "moved") < 0.02


def test_where_the_proxy_stays_right_there_is_no_gap(audited: Audited) -> None:
    assert value(audited, "gap", "wider") < 0.01
    assert abs(value(audited, "excess", "wider")) < 0.02


def judged(audited: Audited, split: str, **change: Any) -> Any:
    def excess(view: Any) -> Any:
        return audited.chosen.excess(view, "hidden", "svd", split)

    gates = {"nulls match": audited.null_gate("nulls match")}
    finding = audited.finding(replace(CLAIM, **change), {"": (excess, "net")}, gates)
    return judge([finding])[0]


def test_a_claim_of_a_gap_turns_each_way(audited: Audited) -> None:
    there, nowhere = judged(audited, "moved", delta=0.05), judged(audited, "wider", delta=0.05)
    assert there.verdict == "supported"
    assert there.value > 0.35
    assert there.seeds == 5
    assert nowhere.verdict == "refuted"
    assert nowhere.high < 0.05
    between = judged(audited, "moved", delta=there.value)
    assert between.verdict == "inconclusive"


def test_a_claim_whose_scores_are_not_there_is_not_judged(audited: Audited) -> None:
    found = judged(audited, "elsewhere")
    assert found.verdict == "not judged"
    assert "'elsewhere'" in found.reason


def test_gates_say_what_they_found(audited: Audited) -> None:
    def accuracy(split: str, least: float) -> Gate:
        return audited.accuracy_gate("accurate", split, least, site={"net": "hidden"}, edit="mean")

    assert accuracy("id", 0.9).passed
    failed = accuracy("id", 1.0)
    assert not failed.passed
    assert failed.value.startswith("least accuracy on id 0.9")
    assert audited.reached_gate("reached", ["svd"]).passed
    assert audited.reached_gate("reached", ["svd"]).value.startswith("5 of 5 sizes")
    assert audited.null_gate("nulls").value.startswith("5 of 5 match")
    records = {who: json.loads(json.dumps(r)) for who, r in audited.records.items()}
    records["net", 2]["chosen"][0]["reached"] = False
    records["net", 3]["nulls"][0]["reason"] = "no noise matches"
    worse = replace(audited, records=records)
    assert worse.reached_gate("reached", ["svd"]).value.startswith("4 of 5 sizes")
    assert not worse.reached_gate("reached", ["svd"]).passed
    assert not worse.null_gate("nulls").passed


def test_the_same_seed_gives_the_same_record_and_scores() -> None:
    memories = [Memory(), Memory()]
    records = [audit(subject(), SPLITS, replace(PLAN, null_draws=2), build, m, seed=3) for m in memories]
    assert records[0] == records[1]
    for name, (_, parts) in memories[0].parts.items():
        for a, b in zip(parts, memories[1].parts[name][1], strict=True):
            for column in a:
                np.testing.assert_array_equal(a[column], b[column])


def test_the_oracle_is_scored_once_on_every_item() -> None:
    memory = Memory()
    audit(subject(), SPLITS, replace(PLAN, null_draws=1), build, memory, seed=0)
    assert small.totals(memory, "moved", "svd-1-oracle")["n"] == N
    assert small.totals(memory, "moved", "svd-1")["n"] == N
    splits = {(c.split, c.edit.label) for c, _ in memory.parts.values()}
    assert ("id", "svd-1-oracle") not in splits
    assert ("id_select", "svd-1") in splits
    assert {split for split, label in splits if label == "svd+null-1"} == {"id", "moved", "wider"}


def test_an_oracle_never_sees_what_it_is_scored_on() -> None:
    fitted: list[set[int]] = []
    scored: list[set[int]] = []

    def watched(subject: Subject, split: Split, oracle: bool, wanted: Any) -> list[Edit]:
        edits = build(subject, split, oracle, wanted)
        if not oracle:
            return edits
        half = {"half": len(fitted)}
        fitted.append(set(split.unit_ids().tolist()))
        scored.append(set())
        return [Edit(e.functions, replace(e.origin, settings=half)) for e in edits]

    class Watching:
        def add(self, cell: Cell, columns: dict[str, np.ndarray]) -> None:
            if cell.edit.oracle:
                scored[cell.edit.settings["half"]] |= set(columns["unit"].tolist())

    audit(subject(), SPLITS, replace(PLAN, tests=("moved",), null_draws=1), watched, Watching(), seed=0)
    first, second = fitted
    assert scored == [second, first]
    assert not first & second
    assert first | second == set(SPLITS["moved"].unit_ids().tolist())


def test_an_oracle_that_cannot_be_fitted_leaves_the_rest() -> None:
    def small(subject: Subject, split: Split, oracle: bool, wanted: Any) -> list[Edit]:
        if oracle:
            raise ProxyError("more clusters than rows")
        return build(subject, split, oracle, wanted)

    record = audit(subject(), SPLITS, replace(PLAN, tests=("moved",), null_draws=1), small, Memory(), seed=0)
    assert record["oracles_not_fitted"] == {"moved": "more clusters than rows"}
    assert record["nulls"]


def test_what_cannot_be_examined_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"unknown split 'moevd'.*moved"):
        audit(subject(), SPLITS, replace(PLAN, tests=("moevd",)), build, Memory(), seed=0)
    with pytest.raises(SplitError, match="may not be fitted on split 'id'"):
        audit(subject(), SPLITS, replace(PLAN, fit="id"), build, Memory(), seed=0)
    lonely = {**SPLITS, "moved": SPLITS["moved"].subset(np.array([0]))}
    with pytest.raises(SplitError, match="has one unit"):
        audit(subject(), lonely, replace(PLAN, tests=("moved",), null_draws=1), build, Memory(), seed=0)
