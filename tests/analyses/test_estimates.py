"""Estimands on hand-made scores: ratios, gaps, kappa, bins, their variance, and why there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import small
from sklearn.metrics import cohen_kappa_score

from heldout.analyses.estimates import Column, Scores, View, describe, estimate
from heldout.analyses.tables import Folder, Memory
from heldout.errors import EvidenceError

AT: dict[str, Any] = {"edit": "svd", "site": "here"}


def view(scores: Scores, seed: int = 0) -> View:
    return View("net", seed, lambda column: np.array([scores.sums(column)[1].sum()]))


def gap(v: View) -> Any:
    return v.gap(reference="id", split="ood", **AT)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


HAND = small.scores(
    [
        (
            small.cell("id"),
            {
                "unit": [7, 7, 3, 9],
                "n": [4.0, 1.0, 2.0, 3.0],
                "same": [4.0, 0.0, 1.0, 3.0],
                "kl": [0.5, 0.25, 0.25, 0.0],
                "margin_bin": [0, 2, 2, 0],
                "depth": [1, 2, 1, 2],
            },
        ),
        (small.cell("ood"), {"unit": [3, 9], "n": [2.0, 3.0], "same": [0.0, 2.0]}),
    ]
)


def test_ratios_are_of_sums_and_not_of_rows() -> None:
    v = view(HAND)
    assert v.ratio("same", split="id", **AT) == pytest.approx(8 / 10)
    assert v.ratio("kl", split="id", **AT) == pytest.approx(0.1)
    assert v.ratio("same", split="id", **AT, stratum="depth", value=1) == pytest.approx(5 / 6)
    assert gap(v) == pytest.approx(8 / 10 - 2 / 5)
    assert v.binned("n", split="id", **AT, bins=4).tolist() == [[7.0, 0.0, 3.0, 0.0]]
    assert v.binned("same", split="id", **AT, bins=4).tolist() == [[7.0, 0.0, 1.0, 0.0]]


def test_sums_are_by_unit_in_ascending_order() -> None:
    units, sums = HAND.sums(Column("net", 0, "id", "svd", "here", "same", None, None))
    assert (units.tolist(), sums.tolist()) == ([3, 7, 9], [1.0, 4.0, 3.0])


def test_kappa_is_cohens_of_being_right() -> None:
    random = np.random.default_rng(1)
    net = random.random(300) < 0.7
    proxy = np.where(random.random(300) < 0.6, net, random.random(300) < 0.5)
    made = small.scores(
        [
            (
                small.cell("id"),
                {
                    "unit": np.arange(300),
                    "n": np.ones(300),
                    "net_correct": net * 1.0,
                    "proxy_correct": proxy * 1.0,
                    "both_correct": (net & proxy) * 1.0,
                },
            )
        ]
    )
    assert view(made).kappa(split="id", **AT)[0] == pytest.approx(cohen_kappa_score(net, proxy))


def binary(unit: Any, same: Any, split: str, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    return small.cell(split, seed=seed), {"unit": unit, "n": np.ones(len(unit)), "same": np.asarray(same, float)}


def test_the_variance_over_units_is_the_binomials() -> None:
    """One seed's theta is a share p of n units: v = p (1 - p) / n, whichever seeds share them."""
    same = np.arange(200) < 150
    made = small.scores([binary(np.arange(200), same, "id", seed) for seed in range(3)])
    test = estimate(
        made, [("net", s) for s in range(3)], lambda v: v.ratio("same", split="id", **AT), rng=rng(), draws=20_000
    )
    assert test.value == 0.75
    assert test.n_clusters == 200
    # Seeds do not differ, so SE^2 is v alone; the relative error of a variance over 20 000 draws is 1%.
    assert test.se**2 == pytest.approx(0.75 * 0.25 / 200, rel=0.05)


def test_seeds_with_their_own_units_average_their_noise_out() -> None:
    same = np.arange(200) < 150
    made = small.scores([binary(np.arange(200) + 1000 * seed, same, "id", seed) for seed in range(4)])
    test = estimate(
        made, [("net", s) for s in range(4)], lambda v: v.ratio("same", split="id", **AT), rng=rng(), draws=20_000
    )
    assert test.n_clusters == 800
    assert test.se**2 == pytest.approx(0.75 * 0.25 / 800, rel=0.1)


def test_splits_that_share_units_are_resampled_as_pairs() -> None:
    random = np.random.default_rng(2)
    here = random.random(400) < 0.8
    there = here & (random.random(400) < 0.9)  # right there only where right here: positively correlated
    variance = {}
    for kind, start in (("paired", 0), ("apart", 10_000)):
        made = small.scores([binary(np.arange(400), here, "id"), binary(np.arange(400) + start, there, "ood")])
        (row,) = describe(made, [("net", 0)], [(gap, {"quantity": "gap"})], rng=rng(), draws=10_000)
        variance[kind] = ((row.high - row.low) / 3.92) ** 2
        assert row.n == (400 if kind == "paired" else 800)
    lost = (here & ~there).mean()
    assert variance["paired"] == pytest.approx(lost * (1 - lost) / 400, rel=0.1)
    p, q = here.mean(), there.mean()
    assert variance["apart"] == pytest.approx((p * (1 - p) + q * (1 - q)) / 400, rel=0.1)
    assert variance["paired"] < variance["apart"] / 2


def test_one_network_has_a_percentile_interval_and_several_the_t_interval() -> None:
    same = np.arange(200) < 150
    made = small.scores(
        [binary(np.arange(200), same if seed else ~same, "id", seed) for seed in range(2)]
        + [binary(np.arange(50), np.ones(50), "ood", seed) for seed in range(2)]
    )
    asked = [(lambda v: v.ratio("same", split="id", **AT), {"quantity": "same_prediction", "split": "id"})]
    (one,) = describe(made, [("net", 1)], asked, rng=rng())
    assert (one.value, one.seeds, one.method) == (0.75, 1, "bootstrap over units, one network")
    assert one.low == pytest.approx(0.75 - 0.06, abs=0.01)
    assert one.high == pytest.approx(0.75 + 0.06, abs=0.01)
    (both,) = describe(made, [("net", 0), ("net", 1)], asked, rng=rng())
    assert (both.value, both.seeds, both.method) == (0.5, 2, "t over seeds and units")
    assert both.high - both.low > 1  # two seeds that differ by .5 say nothing: t with one degree of freedom


def test_each_estimate_counts_the_units_that_it_rests_on() -> None:
    made = small.scores([binary(np.arange(100), np.ones(100), "id"), binary(np.arange(30), np.ones(30), "ood")])
    asked = [
        (lambda v: v.ratio("same", split="ood", **AT), {"quantity": "a"}),
        (lambda v: v.ratio("same", split="id", **AT), {"quantity": "b"}),
        (gap, {"quantity": "c"}),
    ]
    assert [row.n for row in describe(made, [("net", 0)], asked, rng=rng())] == [30, 100, 100]


def test_where_nothing_varies_there_is_no_error_at_all() -> None:
    made = small.scores([binary(np.arange(30), np.full(30, 0.1), "id", seed) for seed in range(3)])
    test = estimate(made, [("net", s) for s in range(3)], lambda v: v.ratio("same", split="id", **AT) / 3, rng=rng())
    assert (test.se, test.p_plus) == (0.0, 0.0)


def test_every_resample_has_as_many_units_of_each_split() -> None:
    made = small.scores([binary(np.arange(100), np.ones(100), "id"), binary(np.arange(40) + 80, np.ones(40), "ood")])
    asked = [
        (lambda v: v.total("n", split="id", **AT), {"quantity": "id"}),
        (lambda v: v.total("n", split="ood", **AT), {"quantity": "ood"}),
    ]
    found = describe(made, [("net", 0)], asked, rng=rng())
    assert [(row.low, row.value, row.high) for row in found] == [(100, 100, 100), (40, 40, 40)]


def test_the_same_generator_gives_the_same_interval() -> None:
    made = small.scores(
        [binary(np.arange(60), np.arange(60) < 40, "id"), binary(np.arange(60), np.arange(60) < 20, "ood")]
    )
    a, b = (describe(made, [("net", 0)], [(gap, {"quantity": "gap"})], rng=rng())[0] for _ in range(2))
    assert a == b


def test_what_is_undefined_has_a_reason_and_spoils_nothing_beside_it() -> None:
    made = small.scores([binary(np.arange(60), np.arange(60) < 40, "id")])
    asked = [
        (lambda v: v.kappa(split="id", **AT), {"quantity": "kappa"}),
        (lambda v: v.ratio("same", split="id", **AT), {"quantity": "same_prediction"}),
    ]
    kappa, same = describe(made, [("net", 0)], asked, rng=rng())
    assert math.isnan(kappa.value)
    assert kappa.reason == "undefined for net, seed 0"
    assert same.value == pytest.approx(2 / 3)
    with pytest.raises(EvidenceError, match="undefined for net, seed 0"):
        estimate(made, [("net", 0)], asked[0][0], rng=rng())


def test_what_is_undefined_in_many_resamples_has_no_interval() -> None:
    """One unit of 60 has weight in the stratum: a third of the resamples miss it."""
    cell, rows = binary(np.arange(60), np.ones(60), "id")
    made = small.scores([(cell, rows | {"depth": np.arange(60)})])

    def rare(v: View) -> Any:
        return v.ratio("same", split="id", **AT, stratum="depth", value=5)

    (row,) = describe(made, [("net", 0)], [(rare, {"quantity": "rare"})], rng=rng())
    assert math.isnan(row.value)
    assert "of 2000 resamples, too few units" in row.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "idd"}, ["'idd'", "svd at here on id"]),
        ({"edit": "svd-8"}, ["'svd-8'", "svd at here on id"]),
        ({"metric": "sam"}, ["metric 'sam'", "nearest: same"]),
        ({"stratum": "dept", "value": 1}, ["stratum 'dept'", "nearest: depth"]),
        ({"seed": 4}, ["seed 4"]),
    ],
)
def test_unknown_names_are_met_with_the_nearest(change: dict[str, Any], words: list[str]) -> None:
    column = Column("net", 0, "id", "svd", "here", "same", None, None)._replace(**change)
    with pytest.raises(EvidenceError) as error:
        HAND.sums(column)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_memory_and_folders_hold_the_same_scores(tmp_path: Any) -> None:
    """Two folders with parts of one cell (the halves of an oracle, say) are one cell."""
    memory = Memory()
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        with Folder(tmp_path / str(i)) as folder:
            for sink in (memory, folder):
                sink.add(small.cell(), {"unit": np.arange(3) + i, "n": np.ones(3), "same": np.arange(3.0)})
    column = Column("net", 0, "id", "svd", "here", "same", None, None)
    kept, read = Scores.from_memory(memory), Scores.read([tmp_path / "0", tmp_path / "1"])
    for scores in (kept, read):
        units, sums = scores.sums(column)
        assert (units.tolist(), sums.tolist()) == ([0, 1, 2, 3], [0.0, 1.0, 3.0, 2.0])
        assert (scores.networks(), scores.seeds("net"), len(scores.cells)) == (["net"], [0], 1)
