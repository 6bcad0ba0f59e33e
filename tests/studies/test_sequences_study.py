"""The sequences study: how its claims turn with planted evidence, what its scores are, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heldout.analyses.estimates import Scores
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.variance import explained as explain
from heldout.analyses.features.variance import fit_map
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError
from heldout.evidence import Cell, read_estimates
from heldout.runs import execute
from heldout.statistics.verdict import Judgement, judge
from heldout.studies.base import SMOKE
from heldout.studies.judging import Judging
from heldout.studies.sequences import (
    CONFIGURATIONS,
    ENCODER,
    FIRST,
    HEADLINE,
    JUDGE,
    MIXED,
    STUDY,
    Configuration,
    configuration_from,
)
from heldout.studies.sequences_judge import at_place, earlier, estimates, findings, learnt_gate
from heldout.studies.sequences_measure import (
    ANSWERS,
    decoder_site,
    explained_by_place,
    map_at,
    network_of,
    place,
    states_of,
    task_of,
)
from heldout.training.seeds import initialised

SEEDS, ROWS = 6, 300
ONE = CONFIGURATIONS[HEADLINE]


def planted(one: Configuration, shares: list[float], wrong: int = 0) -> Judging:
    """Scores in which the feature at place k explains `shares[k]` of the variance everywhere; one network's last answer is
    `wrong` on so many rows."""
    memory = Memory()
    units = np.arange(ROWS)
    for order in range(len(one.orders)):
        for seed in range(SEEDS):
            rng = np.random.default_rng([seed, order])
            total = rng.chisquare(10, ROWS)
            for site in (ENCODER, *(decoder_site(k) for k in range(4))):
                columns = {"unit": units, "n": np.ones(ROWS), "total": total}
                for k, share in enumerate(shares):
                    columns[f"explained:{place(k)}"] = total * rng.normal(share + rng.normal(0, 0.01), 0.1, ROWS)
                memory.add(Cell("sequences", one.network(order), seed, "test", map_at(site)), columns)
            columns = {"unit": units, "n": np.ones(ROWS)}
            for k in range(4):
                off = wrong if (order, seed, k) == (3, 0, 3) else 0
                columns |= {
                    f"correct:{place(k)}": (units >= off).astype(float),
                    f"loss:{place(k)}": np.full(ROWS, 0.01),
                }
            memory.add(Cell("sequences", one.network(order), seed, "test", ANSWERS), columns)
    return Judging(Scores.from_memory(memory))


def judged(judging: Judging, one: Configuration = ONE) -> dict[str, Judgement]:
    gates = {one.name: learnt_gate(judging, one)}
    return {j.id: j for j in judge(list(findings(judging, [one], gates)))}


def test_what_the_paper_says_is_supported() -> None:
    found = judged(planted(ONE, [0.4, 0.3, 0.2, 0.1]))
    for claim in ("F5", "F5-start"):
        assert found[claim].verdict == "supported"
        assert found[claim].value == pytest.approx(0.3, abs=0.02)
        assert found[claim].seeds == SEEDS


def test_the_opposite_is_refuted_and_no_difference_too() -> None:
    assert {j.verdict for j in judged(planted(ONE, [0.1, 0.2, 0.3, 0.4])).values()} == {"refuted"}
    assert {j.verdict for j in judged(planted(ONE, [0.2] * 4)).values()} == {"refuted"}  # .05 is the least that counts


@pytest.mark.parametrize(
    ("wrong", "why"), [(20, "23 of 24 networks; least accuracy 0.93"), (6, "at most 0.0200 apart")]
)
def test_a_network_that_misses_the_gate_is_neither_dropped_nor_judged(wrong: int, why: str) -> None:
    found = judged(planted(ONE, [0.4, 0.3, 0.2, 0.1], wrong))
    assert {j.verdict for j in found.values()} == {"not judged"}
    assert why in found["F5"].reason


def test_claims_about_networks_that_were_not_trained_say_so() -> None:
    other = CONFIGURATIONS["one-layer"]
    found = judged(planted(other, [0.4, 0.3, 0.2, 0.1]), other)
    assert {j.verdict for j in found.values()} == {"not judged"}
    assert f"does not train {HEADLINE}" in found["F5"].reason


def test_the_slope_is_that_of_least_squares() -> None:
    judging = planted(ONE, [0.5, 0.1, 0.3, 0.2])
    view = judging.point((ONE.network(0), 0))
    shares = [float(at_place(ONE, ENCODER, k)(view)[0]) for k in range(4)]
    slope = np.polyfit(range(4), shares, 1)[0]
    assert float(earlier(ONE, ENCODER)(view)[0]) == pytest.approx(-3 * slope, rel=1e-12)


def test_the_gap_of_the_mixed_configuration_follows_features_through_their_orders() -> None:
    one = CONFIGURATIONS[MIXED]
    found = {e.quantity: e.value for e in estimates(planted(one, [0.4, 0.3, 0.2, 0.1]), one) if e.site == ENCODER}
    # Loudness by place alone: the gap is that of the places, and none where places are crossed.
    assert found["simpler_minus_complex:simpler answered first"] == pytest.approx(0.2, abs=0.02)
    assert found["simpler_minus_complex:more complex answered first"] == pytest.approx(-0.2, abs=0.02)
    assert found["simpler_minus_complex:every order"] == pytest.approx(0.0, abs=0.02)
    for side in (0, 1), (2, 3):
        assert sorted(order.index(f) for order in one.orders for f in side) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "first_minus_last" not in found


def small(name: str = HEADLINE) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(asdict(CONFIGURATIONS[name])))
    return {
        "configuration": record,
        "rows": {"train": 64, "val": 200, "test": 150},
        "data_seed": 0,
        "width": 16,
        "heads": 2,
    }


def test_a_configuration_survives_the_settings_of_a_step() -> None:
    for one in CONFIGURATIONS.values():
        assert configuration_from(json.loads(json.dumps(one.record()))) == replace(one, note="")


def test_scores_of_a_network_give_its_variance_explained() -> None:
    s = small()
    task = task_of(s, 1)
    network = initialised(lambda: network_of(s, task), 0).eval()
    states = {split: states_of(network, task, split) for split in ("val", "test")}
    assert set(states["val"]) == {ENCODER, FIRST, "decoder place 2", "decoder place 3", "decoder place 4"}
    columns = explained_by_place(task, states["val"][FIRST], states["test"][FIRST])
    for k, feature in enumerate(ONE.orders[1]):
        coding = Coding.fit({"f": task.values["val"][:, feature]})
        fit, test = (
            moments_of(states[split][FIRST], coding.encode({"f": task.values[split][:, feature]}))
            for split in ("val", "test")
        )
        r2 = explain(fit_map(fit, coding.columns("f")), test).pooled
        assert columns[f"explained:{place(k)}"].sum() / columns["total"].sum() == pytest.approx(r2, abs=1e-9)
    logits = network(*task.splits["test"].items.take(np.arange(150)).inputs)
    assert torch.allclose(network.readout(states["test"][FIRST]), logits[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"configurations": ["headlin"]}, "choose from headline"),
        ({"configurations": [HEADLINE, HEADLINE]}, "named twice"),
        ({"steps": 3}, "unknown field 'steps'"),
        ({"training_steps": 0}, "greater than 0"),
        ({"heads": 5}, "multiple of heads"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STUDY.configure("laptop", given)


def test_a_whole_small_run(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE, {"seeds": 1})
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    run = execute(
        "sequences", STUDY.steps(config, "smoke"), out=tmp_path / "run", workers=1, device="cpu", manifest=manifest
    )
    folder = run.output(JUDGE)
    verdicts = json.loads((folder / "claims.json").read_text())
    assert [j["id"] for j in verdicts] == ["F5", "F5-start"]
    assert {j["verdict"] for j in verdicts} == {"not judged"}
    read = read_estimates(folder / "estimates.parquet")
    assert {q.partition(":")[0] for q in read["quantity"]} == {
        "variance_explained",
        "first_minus_last",
        "accuracy",
        "cross_entropy",
        "simpler_minus_complex",
    }
    assert read["value"].notna().all()
    page = STUDY.page(run)
    assert [section.id for section in page.sections] == ["by-place", "grid", "along", "setting"]
    assert all(check.passed for check in page.identity)
