"""The features study: what settings it refuses, how its claims turn with the evidence, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heldout.analyses.estimates import Column, Scores
from heldout.analyses.features.density import densities, participation, unit_r2
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.variance import explained, fit_map
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError
from heldout.evidence import Cell, read_estimates
from heldout.networks.mlp import MLP
from heldout.runs import execute
from heldout.statistics.verdict import Judgement, judge
from heldout.studies.base import SMOKE
from heldout.studies.features import (
    ADAM,
    DEPTHS,
    DROPPED,
    GRADED,
    HARD_FIRST,
    HEADLINE,
    JUDGE,
    LEARNT,
    PREVALENCES,
    SAME_ROWS,
    STUDY,
    WIDTHS,
    claims,
    condition_from,
    sides,
)
from heldout.studies.features_conditions import CONDITIONS, LAPTOP, find_condition
from heldout.studies.features_estimands import Measurements, gap, r2, slope
from heldout.studies.features_estimates import baseline_of, over_seeds
from heldout.studies.features_inside import resampled
from heldout.studies.features_judge import NEEDED, TESTS, all_gates, findings
from heldout.studies.features_measure import values_of
from heldout.studies.features_measured import MAP, Measuring, Value, penultimate, relying
from heldout.studies.features_scored import add_scores
from heldout.studies.features_training import network_of
from heldout.studies.judging import Judging
from heldout.tasks.features import Features

SEEDS, ROWS = 6, 300
SETTINGS = {
    "density_draws": 19,
    "row_draws": 5,
    "band_draws": 3,
    "probe_rows": 200,
    "probe_strengths": (0.1,),
    "data_seed": 0,
}
COMPARED = dict.fromkeys(name for names in NEEDED.values() for name in names)

World = dict[str, tuple[float, float]]  # condition -> variance explained by its first and its second feature


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conditions": ["headlin"]}, "unknown condition 'headlin'; nearest: headline"),
        ({"conditions": []}, "conditions: Tuple should have at least 1 item"),
        ({"conditions": ["adam", "adam"]}, "'adam' is named twice"),
        ({"share": 0}, "share: Input should be greater than 0"),
        ({"rows": 10}, "rows: Input should be greater than or equal to 100"),
        ({"density_draws": 3}, "density_draws: Input should be greater than or equal to 19"),
        ({"condition": "adam"}, "unknown field 'condition'; nearest: conditions"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STUDY.configure("laptop", given)


def test_every_claim_is_tested_on_conditions_of_the_laptop_preset() -> None:
    assert [c.id for c in claims()] == list(NEEDED)
    assert set(TESTS) == set(NEEDED) - {"F2"}
    assert set(COMPARED) <= set(LAPTOP)
    for claim in claims():
        assert set(claim.gates) - {SAME_ROWS} == {LEARNT.format(name) for name in NEEDED[claim.id]}
    assert all(len(find_condition(name).hidden) == depth for name, depth in DEPTHS.items())
    widths = {name: find_condition(name).hidden[0] for name in WIDTHS}
    assert all(width == 256 * 2.0 ** WIDTHS[name] for name, width in widths.items())
    for name, share in PREVALENCES.items():
        assert find_condition(name).task.prevalence == (share, 1.0)


def test_a_condition_survives_the_settings_of_a_step() -> None:
    for condition in CONDITIONS.values():
        assert condition_from(json.loads(json.dumps(condition.record()))) == replace(condition, note="")
        assert baseline_of(condition) in {"", *CONDITIONS}
        simple, complex_ = sides(condition.task)
        assert [*simple, *complex_] == [p.name for p in condition.task.planted()]
    assert sides(find_condition("features-4").task) == (("bit@0", "bit@1"), ("parity:2@2", "parity:2@3"))
    assert sides(find_condition("equal").task) == (("bit@0",), ("bit@1",))
    baselines = {"adam-hard-first": "adam", "sgd-dropout-0.1": HEADLINE, "rare-xor-0.5": "equal-xor", "tanh": HEADLINE}
    baselines |= {"depth-6": "depth-4", "depth-4": HEADLINE}
    assert {name: baseline_of(find_condition(name)) for name in baselines} == baselines


def test_prevalences_are_measured_on_the_same_rows() -> None:
    keys = [np.asarray(Features(find_condition(name).task, seed=100).splits["test"].keys) for name in PREVALENCES]
    assert all(np.array_equal(k, keys[0]) for k in keys)


# ---- planted evidence


def _world(*, sign: float) -> World:
    """Gaps that go the way that every claim says, or (-1) the other way."""

    def pair(gap: float) -> tuple[float, float]:
        return 0.4 + gap / 2, 0.4 - gap / 2

    found = dict.fromkeys(GRADED, pair(0.3 * sign))
    found[HARD_FIRST] = pair(0.3 * sign - 0.2 * sign)
    found |= {name: (0.3 + 0.2 * share * sign, 0.3) for name, share in PREVALENCES.items()}
    found |= {ADAM: pair(0.3), DROPPED: pair(0.3 - 0.2 * sign)}
    found |= {name: pair(0.3 * sign + 0.1 * sign * (depth - 4)) for name, depth in DEPTHS.items()}
    wider = 0.0 if sign > 0 else 0.2
    return found | {name: pair(0.3 * sign + wider * doublings) for name, doublings in WIDTHS.items()}


def _planted(world: World, *, on_first: float, density: tuple[float, float], right: float = 1.0) -> Measurements:
    """Evidence as the measuring steps leave it; `right` is the accuracy of the first seed's second feature."""
    memory = Memory()
    values: dict[str, dict[int, list[Value]]] = {}
    for name, shares in world.items():
        first, second = (p.name for p in find_condition(name).task.planted())
        units = np.arange(ROWS)
        for seed in range(SEEDS):
            rng = np.random.default_rng([seed, len(name)])
            total = rng.chisquare(10, ROWS)
            columns: dict[str, np.ndarray] = {"unit": units, "n": np.ones(ROWS), "total": total, "moves": np.ones(ROWS)}
            for feature, share in zip((first, second), shares, strict=True):
                columns[f"explained:{feature}"] = total * rng.normal(share + rng.normal(0, 0.01), 0.1, ROWS)
                columns[f"example:{feature}"] = columns[f"explained:{feature}"] / total
                wrong = round(ROWS * (1 - right)) if (feature, seed) == (second, 0) else 0
                columns[f"correct:{feature}"] = (units >= wrong).astype(float)
                columns[f"loss:{feature}"] = np.full(ROWS, 0.01)
            memory.add(Cell("features", name, seed, "test", MAP), columns)
            apart = (units % 2).astype(float)
            follows = apart * (rng.random(ROWS) < on_first)
            chosen = {"unit": units, "n": apart, "on_first": follows, "agreed": 1 - apart, "right": 1 - apart}
            memory.add(Cell("features", name, seed, "test", relying(1.0, 1.0)), chosen)
            spread = [d + rng.normal(0, 0.01) for d in density]
            values.setdefault(name, {})[seed] = [
                Value(f"density:{f}", d) for f, d in zip((first, second), spread, strict=True)
            ]
    draws = np.random.default_rng(0).normal(0.5, 0.01, (SEEDS, 2, 50))
    conditions = {name: find_condition(name) for name in world}
    judging = Judging(Scores.from_memory(memory))
    return Measurements(judging, conditions, values, dict.fromkeys(world, (draws, ROWS)))


def _judged(measured: Measurements) -> dict[str, Judgement]:
    gates = {gate.name: gate for gate in all_gates(measured)}
    return {j.id: j for j in judge(list(findings(measured, gates)))}


def test_what_the_paper_says_is_supported() -> None:
    found = _judged(_planted(_world(sign=1), on_first=0.9, density=(0.8, 0.4)))
    assert {name: j.verdict for name, j in found.items()} == dict.fromkeys(NEEDED, "supported")
    expected = {
        "F1": 0.3,
        "F1-graded": 0.3,
        "F2": 0.4,
        "F3": 0.2,
        "F4": 0.2,
        "F6": 0.2,
        "F7": 0.4,
        "F8": 0.0,
        "F10": 0.4,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=0.03), name
        assert found[name].seeds == SEEDS


def test_the_opposite_is_refuted() -> None:
    found = _judged(_planted(_world(sign=-1), on_first=0.1, density=(0.4, 0.8)))
    assert {name: j.verdict for name, j in found.items()} == dict.fromkeys(NEEDED, "refuted")
    assert found["F8"].value == pytest.approx(0.4, abs=0.03)  # from half the width to twice it


@pytest.mark.parametrize(
    ("right", "why"), [(0.94, "5 of 6 seeds; least accuracy 0.94"), (0.98, "at most 0.0200 apart")]
)
def test_a_seed_that_misses_the_accuracy_gate_is_neither_dropped_nor_judged(right: float, why: str) -> None:
    measured = _planted({HEADLINE: (0.7, 0.1)}, on_first=0.9, density=(0.8, 0.4), right=right)
    found = _judged(measured)["F1"]
    assert found.verdict == "not judged"
    assert why in found.reason
    assert len(found.theta_by_seed) == SEEDS


def test_claims_about_conditions_that_were_not_run_say_so() -> None:
    found = _judged(_planted({HEADLINE: (0.7, 0.1)}, on_first=0.9, density=(0.8, 0.4)))
    assert {j.id for j in found.values() if j.verdict == "supported"} == {"F1", "F2", "F10"}
    assert "does not train hard-first" in found["F3"].reason
    assert "does not train rare-mask-0.1" in found["F4"].reason


def test_density_that_does_not_exceed_its_null_is_not_judged() -> None:
    measured = _planted({HEADLINE: (0.7, 0.1)}, on_first=0.9, density=(0.8, 0.4))
    measured.values[HEADLINE][2] = [Value("density:bit", 0.8), Value("density:parity:2", None, reason="absent")]
    assert "headline, seed 2: a feature does not exceed its null" in _judged(measured)["F2"].reason


def test_prevalences_on_other_rows_are_not_judged() -> None:
    measured = _planted(_world(sign=1), on_first=0.9, density=(0.8, 0.4))
    other = Memory()
    for cell in measured.judging.scores.cells:
        at = dict.fromkeys(["unit"], np.arange(ROWS) + (1000 if cell.network == "equal" else 0))
        columns = {c: measured.judging.scores.sums(_of(cell, c))[1] for c in measured.judging.scores.columns(cell)}
        other.add(cell, columns | at)
    found = _judged(replace(measured, judging=Judging(Scores.from_memory(other))))
    assert "test rows equal: no" in found["F4"].reason
    assert found["F1"].verdict == "supported"


def _of(cell: Cell, metric: str) -> Column:
    return Column(cell.network, cell.seed, cell.split, cell.edit.label, cell.edit.site, metric, None, None)


def test_slopes_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=5), rng.normal(size=5)
    found = slope([lambda _, v=v: np.array([v]) for v in y], x)(None)  # type: ignore[arg-type, misc]
    assert found[0] == pytest.approx(np.polyfit(x, y, 1)[0])


def test_a_value_that_one_seed_lacks_is_said_to_be_missing() -> None:
    rows = [Value("k95:bit", 1), Value("k95:bit", None, reason="no listed rank keeps it")]
    found = over_seeds("k95:bit", rows, 2, network="a")
    assert np.isnan(found.value)
    assert found.reason == "not estimable in 1 of 2 seeds: no listed rank keeps it"
    assert over_seeds("k95:bit", [rows[0], rows[0]], 2).value == 1


# ---- measures


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_the_penultimate_layer_is_what_the_readout_reads(norm: Any) -> None:
    network = MLP((8, 6, 5, 2), norm=norm, dropout=0.5).eval()
    x = torch.randn(20, 8)
    before, after = penultimate(network, x)
    torch.testing.assert_close(network.readout(after), network(x))
    torch.testing.assert_close(after, before.relu())


def test_resampled_density_is_the_density_of_the_rows_taken() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(400, 2)).astype(float)
    x = rng.normal(size=(400, 10)) + labels @ rng.normal(size=(2, 10)) + 5.0
    x[:, 3] = 0.0  # a dead unit
    coding = Coding.fit({"a": labels[:, 0], "b": labels[:, 1]})
    rows = rng.integers(400, size=400)
    counts = np.stack([np.ones(400, dtype=int), np.bincount(rows, minlength=400)])
    found = resampled(x, labels, counts)
    whole = densities(moments_of(x, labels), coding, seed=0, draws=19)
    taken = moments_of(x[rows], labels[rows])
    for i, name in enumerate(("a", "b")):
        assert found[0, i] == pytest.approx(whole[name].value, rel=1e-9)
        r2 = unit_r2(taken, np.array([i]))
        assert found[1, i] == pytest.approx(float(participation(r2[np.isfinite(r2)], 1, 400)), rel=1e-9)


def test_scores_of_a_network_give_its_variance_explained() -> None:
    small = find_condition(HEADLINE).shortened(0.01, train=300, val=300, test=300)
    here = Measuring(small, Features(small.task, seed=0), SETTINGS)
    network = network_of(small).eval()
    memory = Memory()
    measured = here.network(network, 0)
    add_scores(measured, memory)
    judging = Judging(Scores.from_memory(memory))
    view = judging.point((HEADLINE, 0))
    direct = {
        name: explained(fit_map(measured.fit, here.coding.columns(name)), measured.tested).pooled
        for name in ("bit", "parity:2")
    }
    for name, value in direct.items():
        assert float(r2(view, name)[0]) == pytest.approx(value, abs=1e-9)
    assert float(gap(small)(view)[0]) == pytest.approx(direct["bit"] - direct["parity:2"], abs=1e-9)
    answers = (network(here.test.inputs) > 0).long().numpy()
    right = float((answers[:, 0] == here.test.values[:, 0]).mean())
    assert float(view.ratio("correct:bit", split="test", edit="map", site="penultimate")[0]) == pytest.approx(right)
    chosen = view.ratio("on_first", split="test", edit=relying(1.0, 1.0).label, site="penultimate")
    assert 0 <= float(chosen[0]) <= 1
    found = {v.quantity: v.value for v in values_of(measured)}
    assert found["difference_of_passes"] == pytest.approx(0, abs=1e-6)
    assert found["total_variance"] == pytest.approx(measured.x["test"].double().var(0, correction=0).sum())


def test_a_whole_small_run(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE)
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    run = execute(
        "features", STUDY.steps(config, "smoke"), out=tmp_path / "run", workers=1, device="cpu", manifest=manifest
    )
    folder = run.output(JUDGE)
    judged = json.loads((folder / "claims.json").read_text())
    assert [j["id"] for j in judged] == [claim.id for claim in claims()]
    assert {j["verdict"] for j in judged} == {"not judged"}
    assert not any("not checked" in j["reason"] for j in judged)

    estimates = read_estimates(folder / "estimates.parquet")
    kinds = {q.partition(":")[0] for q in estimates["quantity"]}
    assert {
        "variance_explained",
        "gap",
        "gap_narrowed",
        "density",
        "band_low",
        "k95",
        "half_push",
        "cost",
        "part",
    } <= kinds
    assert {
        "explained_of_final",
        "reliance",
        "dissociation",
        "effective_dimension",
        "accuracy",
        "cross_entropy",
    } <= kinds
    assert {"decoded", "selectivity", "code_saved", "compression", "decoded_inputs", "unique", "common"} <= kinds
    read = estimates[estimates["quantity"].isin(["decoded_inputs:bit", "decoded:bit"])].set_index("quantity")
    assert read["low"].notna().to_dict() == {"decoded:bit": True, "decoded_inputs:bit": False}  # read once, no interval
    effects = estimates[estimates["quantity"].str.startswith("effect:")].groupby("network")["value"]
    assert effects.count().to_dict() == {HEADLINE: 4, HARD_FIRST: 4}
    assert effects.sum().to_numpy() == pytest.approx(1)
    assert (estimates["reason"].str.len() > 0).equals(estimates["value"].isna())

    page = STUDY.page(run)
    drawn = [figure.id for section in page.sections for figure in section.figures]
    assert len(set(drawn)) == len(drawn)
    assert {"loudness", "loudness-along", "unit-histogram", "components", "survival", "order", "parts"} <= set(drawn)
    assert {"steering", "reliance", "robustness", "readable", "effects"} <= set(drawn)
    tables = {table.title: table for section in page.sections for table in section.tables}
    decomposed = tables["The decomposition of the variance, every condition"].rows
    assert [(row[0], row[-1]) for row in decomposed] == [(HEADLINE, "1.000"), (HARD_FIRST, "1.000")]
    assert len(tables["What probes read"].rows) == 2  # of the headline's features
    assert len(tables["Conditions that were not run here"].rows) == len(CONDITIONS) - 2
    said = " ".join(text for section in page.sections for text in section.text)
    assert all(
        f"Not run here: {what}" in said for what in ("prevalence (E6)", "depth and width", "optimiser and dropout")
    )
    assert page.identity
    assert all(check.passed for check in page.identity)
