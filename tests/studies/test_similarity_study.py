"""The similarity study: how its claim turns with the evidence, what it compares, and a whole small run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.analyses.similarity.measures import MEASURES
from heldout.analyses.similarity.methods import Stimuli
from heldout.errors import ConfigError
from heldout.evidence import read_estimates
from heldout.runs import execute
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Judgement, judge
from heldout.studies.base import SMOKE
from heldout.studies.similarity import (
    BOTH,
    CONFIGURATIONS,
    EASY,
    HARD_ONLY,
    JUDGE,
    LEARNT,
    MEASURE,
    ROLES,
    STUDY,
    UNTRAINED,
    claims,
    configuration_from,
    record,
    recover_name,
)
from heldout.studies.similarity_compare import ACCURACIES, RAW, Compared, corrected, measured, theta
from heldout.studies.similarity_judge import THETA_QUANTITY, finding, gate_of

PAIRS, FIT, TEST = 6, 200, 120


def judged(thetas: dict[str, float], *, passed: bool = True) -> Judgement:
    """The verdict where each configuration's pairs lie around a value."""
    around = 0.01 * np.linspace(-1, 1, 8)
    found = {
        name: {MEASURE: {"values": (value + around).tolist(), "variance": 1e-5, "stimuli": 500}}
        for name, value in thetas.items()
    }
    gates = {n: Gate(LEARNT.format(n), passed or n != "adam", "as planted") for n in CONFIGURATIONS}
    (judgement,) = judge([finding(found, gates)])
    return judgement


def test_one_configuration_is_enough_to_support_and_none_to_refute() -> None:
    some = judged({"sgd": -0.3, "adam": 0.2, "adam-parity4": 0.0})
    assert some.verdict == "supported"
    none = judged({"sgd": -0.3, "adam": -0.1, "adam-parity4": 0.0})
    assert none.verdict == "refuted"
    assert judged({"sgd": -0.3, "adam": 0.05, "adam-parity4": 0.0}).verdict == "inconclusive"


def test_networks_that_miss_the_gate_or_were_not_run_are_not_judged() -> None:
    assert judged(dict.fromkeys(CONFIGURATIONS, 0.2), passed=False).verdict == "not judged"
    missing = judged({"sgd": 0.2})
    assert missing.verdict == "not judged"
    assert "does not train adam, adam-parity4" in missing.reason


def planted(loud: float, *, consistent: bool) -> Compared:
    """Networks that hold an easy bit, `loud`, and some more, which is the same in all or private to each."""
    one = CONFIGURATIONS["sgd"]
    draw = np.random.default_rng(0)
    labels = {name: draw.integers(2, size=FIT + TEST) for name in one.features}
    easy, hard = (values - 0.5 for values in labels.values())
    common = draw.normal(size=(FIT + TEST, 4))
    rows: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    for seed in range(2 * PAIRS):
        rng = np.random.default_rng(seed + 1)
        own = common if consistent else rng.normal(size=(FIT + TEST, 4))
        turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]

        def put(*columns: np.ndarray, turn: np.ndarray = turn, rng: np.random.Generator = rng) -> np.ndarray:
            x = 0.05 * rng.normal(size=(FIT + TEST, 12))
            joined = np.column_stack(columns)
            x[:, : joined.shape[1]] += joined
            return x @ turn

        rows[UNTRAINED].append(put(common))
        rows[EASY].append(put(loud * easy))
        rows[HARD_ONLY].append(put(4 * hard))
        rows[BOTH].append(put(loud * easy, 0.7 * own))
    return Compared(one, rows, Stimuli(labels, np.arange(FIT), np.arange(FIT, FIT + TEST)))


def test_a_loud_shared_feature_and_private_ones_make_networks_less_alike() -> None:
    """Two that hold both differ twice over in what is their own; one of them differs from an easy network once."""
    private, shared = planted(3, consistent=False), planted(3, consistent=True)
    apart = theta(private, MEASURES["rsa-euclidean"], 200)
    together = theta(shared, MEASURES["rsa-euclidean"], 200)
    assert np.mean(apart["values"]) > 0.05
    assert np.mean(together["values"]) < -0.02
    for found in (apart, together):
        assert len(found["values"]) == PAIRS
        assert 0 < found["variance"] < 0.01
        assert found["stimuli"] == TEST


def test_a_value_is_that_of_the_two_networks_of_a_pair() -> None:
    here = planted(3, consistent=False)
    of = MEASURES["cka"].of
    b1, b2 = (here.rows[BOTH][i][FIT:] for i in (2, 3))
    e1, e2 = (here.rows[EASY][i][FIT:] for i in (2, 3))
    assert theta(here, MEASURES["cka"], 100)["values"][1] == pytest.approx(min(of(b1, e2), of(b2, e1)) - of(b1, b2))
    frame = pd.DataFrame(
        measured(here, {"cka": MEASURES["cka"]}, lambda *_: None),
        columns=["measure", "correction", "a", "b", "pair", "value"],
    )
    cell = frame[(frame["measure"] == "cka") & (frame["pair"] == 1)].set_index(["a", "b"])["value"]
    assert cell[BOTH, BOTH] == pytest.approx(of(b1, b2))
    assert cell[EASY, BOTH] == pytest.approx((of(e1, b2) + of(e2, b1)) / 2)
    assert len(cell) == 10


def test_corrections_take_the_loud_feature_out() -> None:
    here = planted(6, consistent=True)
    columns = ["measure", "correction", "a", "b", "pair", "value"]
    frame = pd.DataFrame(corrected(here), columns=columns)
    mean = frame.groupby(["measure", "correction", "a", "b"])["value"].mean()
    assert mean["cka", RAW, EASY, BOTH] > 0.8
    assert mean["cka", "removed", EASY, BOTH] < 0.2
    assert mean["cka", "removed", BOTH, BOTH] > 0.9  # what they share beside it
    assert not frame.duplicated(columns[:-1]).any()
    again = pd.DataFrame(corrected(here, MEASURES), columns=columns)
    assert set(again[again["correction"] == RAW]["measure"]) == {"encoding"}
    assert {"whitened", "partial", "equalised", "centred", "whitened-0.5"} <= set(frame["correction"])


def test_the_stimuli_variance_covers_what_other_stimuli_give() -> None:
    """The standard error of the mean over pairs is within a factor of three of the spread over four
    independent sets of stimuli, which itself is known no better than that."""
    here = planted(3, consistent=False)
    se = np.sqrt(theta(here, MEASURES["rsa-euclidean"], 300)["variance"])
    found = []
    for part in np.array_split(np.arange(FIT + TEST), 4):  # quarters have twice the standard error of all
        some = Compared(
            here.one, here.rows, Stimuli(here.stimuli.labels, np.setdiff1d(np.arange(FIT + TEST), part), part)
        )
        found.append(np.mean(theta(some, MEASURES["rsa-euclidean"], 100)["values"]))
    spread = np.std(found, ddof=1) * np.sqrt(len(part) / TEST)
    assert 0.3 < se / spread < 3


def test_a_gate_asks_of_each_network_what_it_was_trained_on(tmp_path: Path) -> None:
    one = CONFIGURATIONS["sgd"]
    assert [one.learns(role) for role in ROLES] == [(), ("bit",), ("parity:2",), ("bit", "parity:2")]
    right = {EASY: [{"bit": 1.0}], HARD_ONLY: [{"parity:2": 0.99}], BOTH: [{"bit": 1.0, "parity:2": 0.995}]}
    (tmp_path / ACCURACIES).write_text(json.dumps(right))
    assert gate_of(one, tmp_path, "sgd").passed
    (tmp_path / ACCURACIES).write_text(json.dumps(right | {BOTH: [{"bit": 1.0, "parity:2": 0.98}]}))
    assert not gate_of(one, tmp_path, "sgd").passed


def test_a_configuration_survives_the_settings_of_a_step() -> None:
    for one in CONFIGURATIONS.values():
        again = configuration_from(json.loads(json.dumps(record(one))))
        assert record(again) == record(one)
        assert again.features == one.features
        assert {c.task.bits for c in one.roles.values()} == {32}  # all are shown the same stimuli
    assert claims()[0].kind == "existence"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"configurations": ["adm"]}, "choose from sgd, adam"),
        ({"configurations": []}, "at least 1 item"),
        ({"stimuli": 10}, "greater than or equal to 50"),
        ({"noise": [-1]}, "greater than or equal to 0"),
        ({"brain": 3}, "nearest: brains"),
        ({"measures": ["cka"]}, "rsa, the measure of the claim, must be among"),
        ({"measures": ["rsa", "rsb"]}, "choose from|nearest: rsa"),
        ({"rows": 400}, "at least stimuli and fit_stimuli, 1000"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STUDY.configure("laptop", given)


def test_a_whole_small_run(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE)
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    run = execute(
        "similarity", STUDY.steps(config, "smoke"), out=tmp_path / "run", workers=1, device="cpu", manifest=manifest
    )
    folder = run.output(JUDGE)
    (verdict,) = json.loads((folder / "claims.json").read_text())
    assert (verdict["id"], verdict["verdict"]) == ("F9", "not judged")
    read = read_estimates(folder / "estimates.parquet")
    assert {q.partition(":")[0] for q in read["quantity"]} == {"similarity", THETA_QUANTITY}
    rates = pd.read_parquet(run.output(recover_name(config.chosen()[0], 1.0)) / "rates.parquet")  # type: ignore[attr-defined]
    assert set(rates["measure"]) == {"rsa", "cka", "encoding"}
    assert (rates["n"] == np.where(rates["truth"] == "*", 40, 10)).all()
    page = STUDY.page(run)
    assert [section.id for section in page.sections] == ["alike", "by-measure", "corrections", "recovery", "setting"]
