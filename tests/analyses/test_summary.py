"""The rank rule and the quantities of the edits that it chose, on scores made so that the answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import small

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, choose
from heldout.analyses.estimates import Scores, View
from heldout.analyses.faithfulness import Check, Outcome
from heldout.analyses.summary import Chosen, summarise
from heldout.evidence import Origin

CHECK = Check(("here",), 0.0, 1e-4, "used, exact")
PLAN = Plan(reference="id", tests=("ood",), families=("svd",), oracles=("svd",), margin_bins=2)
CHOSEN = Chosen({("net", 0, "here", "svd"): 4.0}, "id")
PLACE = ("here", "svd")


def outcome(agreements: list[tuple[str, float | None, float]]) -> tuple[list[Edit], Outcome]:
    edits = [Edit({}, Origin(name, "here", parameter=p)) for name, p, _ in agreements]
    return edits, Outcome(CHECK, tuple({"id_select": a} for _, _, a in agreements))


def test_the_smallest_size_that_reaches_the_threshold_is_chosen() -> None:
    edits, found = outcome([("svd", 8.0, 0.99), ("svd", 2.0, 0.5), ("svd", 4.0, 0.95), ("mean", None, 1.0)])
    (pick,) = choose(edits, found, PLAN)
    assert pick.row() == {"site": "here", "family": "svd", "parameter": 4.0, "agreement": 0.95, "reached": True}
    assert pick.edit is edits[2]


def test_draws_of_one_size_are_averaged() -> None:
    edits, found = outcome([("svd", 2.0, 1.0), ("svd", 2.0, 0.88), ("svd", 4.0, 0.96)])
    assert choose(edits, found, PLAN)[0].edit is edits[2]
    edits, found = outcome([("svd", 2.0, 1.0), ("svd", 2.0, 0.92), ("svd", 4.0, 0.99)])
    assert choose(edits, found, PLAN)[0].agreement == pytest.approx(0.96)


def test_where_no_size_reaches_the_threshold_the_largest_is_marked() -> None:
    edits, found = outcome([("svd", 8.0, 0.9), ("svd", 2.0, 0.94)])
    row = choose(edits, found, PLAN)[0].row()
    assert (row["parameter"], row["reached"], row["agreement"]) == (8.0, False, 0.9)


def rows(n: int, **sums: Any) -> dict[str, Any]:
    """One row a unit, `sums` shares of its predictions, or an array of them."""
    return {"unit": np.arange(n), "n": np.ones(n)} | {k: np.broadcast_to(v, n).astype(float) for k, v in sums.items()}


def point(scores: Scores) -> View:
    return View("net", 0, lambda column: np.array([scores.sums(column)[1].sum()]))


def test_excess_is_the_gap_minus_the_nulls() -> None:
    scores = small.scores(
        [
            (small.cell("id", "svd", parameter=4.0), rows(20, same=0.9)),
            (small.cell("ood", "svd", parameter=4.0), rows(20, same=0.6)),
            (small.cell("id", "svd+null", parameter=4.0), rows(20, same=0.9)),
            (small.cell("ood", "svd+null", parameter=4.0), rows(20, same=0.8)),
        ]
    )
    v = point(scores)
    assert CHOSEN.gap(v, *PLACE, "ood")[0] == pytest.approx(0.3)
    assert CHOSEN.null_gap(v, *PLACE, "ood")[0] == pytest.approx(0.1)
    assert CHOSEN.excess(v, *PLACE, "ood")[0] == pytest.approx(0.2)


def margins(by_bin: tuple[float, float], share_of_first: float, n: int = 100) -> dict[str, Any]:
    first = np.arange(n) < share_of_first * n
    return rows(n, same=np.where(first, *by_bin)) | {"margin_bin": np.where(first, 0, 1)}


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_the_reweighted_gap_is_nothing_where_only_margins_differ(share: float) -> None:
    """Within a bin agreement is the same on both splits; the split has more of the first bin, or nothing but it."""
    scores = small.scores(
        [
            (small.cell("id", "svd", parameter=4.0), margins((0.5, 1.0), 0.2)),
            (small.cell("ood", "svd", parameter=4.0), margins((0.5, 1.0), share)),
        ]
    )
    v = point(scores)
    assert CHOSEN.gap(v, *PLACE, "ood")[0] == pytest.approx(0.5 * (share - 0.2))
    assert CHOSEN.reweighted_gap(v, *PLACE, "ood", 2)[0] == pytest.approx(0.0, abs=1e-12)


def test_the_reweighted_gap_is_the_gap_where_margins_do_not_differ() -> None:
    scores = small.scores(
        [
            (small.cell("id", "svd", parameter=4.0), margins((0.5, 1.0), 0.2)),
            (small.cell("ood", "svd", parameter=4.0), margins((0.25, 0.75), 0.2)),
        ]
    )
    v = point(scores)
    assert CHOSEN.reweighted_gap(v, *PLACE, "ood", 2) == pytest.approx(CHOSEN.gap(v, *PLACE, "ood"))


def losses(net: float, proxy: float, mean: float) -> Scores:
    return small.scores(
        [
            (small.cell("id", "svd", parameter=4.0), rows(20, net_loss=net, proxy_loss=proxy)),
            (small.cell("id", "mean"), rows(20, net_loss=net, proxy_loss=mean)),
        ]
    )


@pytest.mark.parametrize(
    ("net", "proxy", "mean", "expected"),
    [
        (0.5, 0.5, 2.5, 1.0),  # the identity
        (0.5, 2.5, 2.5, 0.0),  # the mean itself
        (0.5, 1.0, 2.5, 0.75),
        (0.5, 3.5, 2.5, -0.5),  # worse than the mean
        (0.5, 0.5, 0.61, 1.0),
        (0.5, 0.5, 0.59, math.nan),  # too little to lose
        (0.5, 0.5, 0.5, math.nan),
        (0.5, 0.5, 0.1, math.nan),
    ],
)
def test_loss_recovered(net: float, proxy: float, mean: float, expected: float) -> None:
    found = CHOSEN.loss_recovered(point(losses(net, proxy, mean)), *PLACE, "id")[0]
    assert found == pytest.approx(expected, nan_ok=True)


def table(scores: Scores, **plan: Any) -> dict[tuple[str, str, str], Any]:
    found = summarise(
        scores,
        plan=Plan(**{**vars(PLAN), **plan}),
        chosen=CHOSEN,
        grid=lambda site: {"svd": (2.0, 4.0), "mean": (None,)},
        sites={"net": ["here"]},
        rng=np.random.default_rng(0),
    )
    return {(e.quantity, e.split, e.edit if e.parameter is None else f"{e.edit}-{e.parameter:g}"): e for e in found}


def full(mean_loss: float = 2.0) -> Scores:
    bins = {"margin_bin": np.arange(40) % 2}
    right = {"net_correct": np.arange(40) < 30, "proxy_correct": np.arange(40) < 20, "both_correct": np.arange(40) < 20}
    cells = []
    for split, same in (("id", 1.0), ("ood", 0.5)):
        for size in (2.0, 4.0):
            made = rows(40, same=np.arange(40) < 40 * same, net_loss=0.5, proxy_loss=1.0, kl=0.1, **right) | bins
            cells.append((small.cell(split, "svd", parameter=size), made))
        cells.append((small.cell(split, "svd+null", parameter=4.0), rows(40, same=np.arange(40) < 30) | bins))
        cells.append((small.cell(split, "mean"), rows(40, net_loss=0.5, proxy_loss=mean_loss, **right) | bins))
    oracle = small.cell("ood", "svd", parameter=4.0)
    oracle = type(oracle)(oracle.task, "net", 0, "ood", Origin("svd", "here", parameter=4.0, oracle=True))
    return small.scores([*cells, (oracle, rows(40, same=np.arange(40) < 36) | bins)])


def test_the_table_holds_every_quantity_with_its_value() -> None:
    found = table(full())
    expected = {
        ("same_prediction", "id", "svd-2"): 1.0,
        ("same_prediction", "ood", "svd-4"): 0.5,
        ("kl", "ood", "svd-4"): 0.1,
        ("accuracy_network", "ood", ""): 0.75,
        ("accuracy_proxy", "ood", "svd-4"): 0.5,
        ("chosen_same_prediction", "ood", "svd-4"): 0.5,
        ("chosen_accuracy", "ood", "svd-4"): 0.5,
        ("kappa", "ood", "svd-4"): 0.5,
        ("loss_recovered", "ood", "svd-4"): 2 / 3,
        ("gap", "ood", "svd-4"): 0.5,
        ("excess_gap", "ood", "svd-4"): 0.5,
        ("gap_reweighted", "ood", "svd-4"): 0.5,
        ("gap_oracle", "ood", "svd-4"): 0.1,
    }
    for key, value in expected.items():
        assert found[key].value == pytest.approx(value), key
        assert found[key].low - 1e-12 <= value <= found[key].high + 1e-12, key
        assert found[key].n == 40
    assert found["gap", "ood", "svd-4"].null == pytest.approx(0.0)
    assert found["gap", "ood", "svd-4"].reference == "id"
    assert [e.oracle for e in found.values()] == [e.quantity == "gap_oracle" for e in found.values()]
    assert ("gap", "id", "svd-4") not in found
    assert ("gap_oracle", "ood", "svd-4") not in table(full(), oracles=())


def test_what_has_no_value_says_why() -> None:
    found = table(full(mean_loss=0.55))
    row = found["loss_recovered", "ood", "svd-4"]
    assert math.isnan(row.value)
    assert "the mean ablation costs less than 0.1 nats" in row.reason
    assert found["kappa", "ood", "svd-4"].reason == ""
