"""The nuclear study: how its claims turn with the evidence, settings it refuses, and a whole small run."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.analyses.geometry.derived import COMPONENTS, FORMULA
from heldout.analyses.geometry.interventions import FULL
from heldout.analyses.geometry.squares import Squares, squares
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import read_estimates
from heldout.runs import execute
from heldout.statistics.verdict import Judgement, judge
from heldout.studies import nuclear_baselines as baselines
from heldout.studies.base import SMOKE
from heldout.studies.nuclear import JUDGE, STUDY
from heldout.studies.nuclear_claims import ANSWERED, BEATS, KNOWN_RIGHT, claims
from heldout.studies.nuclear_helix import HELIX
from heldout.studies.nuclear_judge import NETWORK, Found, all_gates, beside_baselines, best_rank, finding, paired
from heldout.studies.nuclear_measure import DERIVED, KEPT, TERMS_FOUND, frame_of
from heldout.studies.nuclear_primer import KNOWN, MEASURED
from heldout.studies.nuclear_train import PREDICTIONS

SEEDS = range(6)
Z = np.repeat(np.arange(40, 60), 4)  # twenty chains of four nuclei
NUCLEI = pd.DataFrame({"z": Z, "n": Z + np.tile([4, 5, 6, 8], 20), "unit": Z, "region": 0})
ERRORS = np.random.default_rng(0).normal(0, 1, len(Z))  # whatever has an error has this one, times a factor
MODELS = (*baselines.BASELINES, *baselines.PUBLISHED)


def folder(at: Path, name: str) -> Path:
    (at / name).mkdir(parents=True)
    return at / name


def scored(factors: dict[str, float]) -> pd.DataFrame:
    """Nuclei of two splits, with what each predicts: off by `ERRORS` times its factor."""
    value = 8e3 * (NUCLEI["z"] + NUCLEI["n"])
    one = NUCLEI.assign(value=value, uncertainty=1.0, **{k: value + f * ERRORS for k, f in factors.items()})
    return pd.concat([one.assign(split=split) for split in ("select", "id", "new")], ignore_index=True)


def sums(factors: dict[str, float]) -> Squares:
    return squares({name: factor * ERRORS for name, factor in factors.items()}, Z)


def found(
    at: Path, *, sign: int, beats: bool = True, best: float = 0.0, known: str = "clock", answers: float = 1.0
) -> Found:
    """Evidence that goes the way that every claim says, or (-1) the other way.

    `beats`: whether networks beat the formula at random; `best`: how much better the kernel method is than the other
    baselines on later nuclei; `known`: what a closed-form clock is called; `answers`: accuracy on unseen pairs.
    """
    rng = np.random.default_rng(1)
    factors = dict.fromkeys(MODELS, 100.0)
    scored(factors).to_parquet(folder(at, "baselines") / baselines.PREDICTED)
    later = {**factors, "kernel": 100 * math.exp(-best)}
    scored(later).to_parquet(folder(at, "baselines-vintage") / baselines.PREDICTED)
    (folder(at, "known-11") / KNOWN).write_text(json.dumps({"clock": {"label": known, "right": "clock"}}))
    networks = []
    for seed in SEEDS:
        noise = 0.01 * rng.normal()
        one = {"binding": 50.0 if beats else 150.0, "vintage": 100 * math.exp(-0.4 * sign + noise)}
        for name, factor in one.items():
            at_seed = folder(at, f"train-{name}-s{seed}")
            scored({"predicted": factor}).to_parquet(at_seed / PREDICTIONS)
        cut = {FULL: 50.0, "1": 90.0, "4": 50 * math.exp((0.02 if sign > 0 else 0.3) + noise), "8": 80.0, "16": 50.0}
        frames = [frame_of(sums(cut)).assign(site="penultimate", split=split) for split in ("select", "id")]
        pd.concat(frames).to_parquet(folder(at, f"kept-s{seed}") / KEPT)
        terms = folder(at, f"terms-binding-s{seed}")
        strongest = np.array([[0.3, -0.8], [0.75, 0.1]]) if sign > 0 else np.array([[0.1, 0.2], [-0.15, 0.2]])
        nulls = {"null": np.full((99, 2), 0.3), "untrained": np.tile([[[0.4, -0.2], [0.1, 0.2]]], (5, 1, 1))}
        np.savez(terms / TERMS_FOUND, names=np.array(["volume", "pairing"]), partial=strongest + noise, **nulls)
        rivals = frame_of(sums({FORMULA: 100.0, COMPONENTS: 100 * math.exp(-0.3 * sign + noise)}))
        (terms / DERIVED).write_text(json.dumps({"squares": rivals.to_dict("list")}))
        rows = [{"column": c, "excess": e} for c, e in (("z", 9.0), ("n", 0.1 * sign + noise))]
        pd.DataFrame(rows).to_parquet(folder(at, f"helix-binding-s{seed}") / HELIX)
        pizzas = 4 + seed % 2 if sign > 0 else 0
        networks += [
            {"seed": seed, "label": "pizza" if i < pizzas else "clock", "pizzas": int(i < pizzas)} for i in range(9)
        ]
    cell = {"modulus": 11, "width": 4, "weight_decay": 1.0, "share": 0.8, "all_pairs": False, "accuracy": answers}
    table = pd.DataFrame(networks).assign(pooling="concat", mixed=0, **cell)
    table.assign(clocks=1 - table["pizzas"]).to_parquet(folder(at, "primer-11-concat-4-1.0") / MEASURED)
    return Found(SEEDS, ("binding", "vintage"), 8, {path.name: path for path in at.iterdir()})


def judged(evidence: Found) -> dict[str, Judgement]:
    gates = {gate.name: gate for gate in all_gates(evidence)}
    return {j.id: j for j in judge([finding(claim, evidence, gates) for claim in claims()])}


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_what_the_paper_says_is_supported(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=1))
    assert {name: j.verdict for name, j in verdicts.items()} == dict.fromkeys(
        ("N1", "N2", "N3", "N4", "N5", "N6"), "supported"
    )
    # N2: .75 and .8 over the larger of both nulls, .4 and .3 (permuted); N5: 4 or 5 of 9 are pizzas, 5 or 4 clocks.
    expected = {"N1": math.log(1.1) - 0.02, "N2": 0.425, "N3": 0.1, "N4": 0.3, "N5": 4 / 9, "N6": 0.4}
    for name, value in expected.items():
        assert verdicts[name].value == pytest.approx(value, abs=0.02)
    assert verdicts["N1"].clusters == verdicts["N4"].clusters == verdicts["N6"].clusters == 20
    assert verdicts["N2"].clusters is verdicts["N3"].clusters is verdicts["N5"].clusters is None


def test_the_opposite_is_refuted(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=-1))
    assert {name: j.verdict for name, j in verdicts.items()} == dict.fromkeys(verdicts, "refuted")


def test_one_baseline_that_does_better_refutes_n6(tmp_path: Path) -> None:
    verdict = judged(found(tmp_path, sign=1, best=0.8))["N6"]
    assert verdict.verdict == "refuted"
    assert verdict.value == pytest.approx(-0.4, abs=0.02)
    assert {p.label: p.value > 0 for p in verdict.parts} == {name: name != "kernel" for name in baselines.BASELINES}


def test_a_baseline_that_does_nearly_as_well_does_not_support_n6(tmp_path: Path) -> None:
    """Better by less than the smallest effect that counts, in every seed."""
    verdict = judged(found(tmp_path, sign=1, best=0.37))["N6"]
    assert 0 < verdict.value < math.log(1.05)
    assert verdict.verdict != "supported"


def test_networks_behind_the_formula_are_not_read(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=1, beats=False))
    assert [name for name, j in verdicts.items() if j.verdict == "not judged"] == ["N1", "N2", "N3", "N4"]
    assert f"gate failed: {BEATS} (largest error 1.50 of the formula's (seed 0), on id)" in verdicts["N1"].reason
    assert {verdicts[name].verdict for name in ("N5", "N6")} == {"supported"}


def test_one_network_behind_the_formula_is_enough(tmp_path: Path) -> None:
    evidence = found(tmp_path, sign=1)
    scored({"predicted": 101.0}).to_parquet(evidence.folder("train-binding-s3") / PREDICTIONS)
    verdicts = judged(evidence)
    assert verdicts["N3"].verdict == "not judged"
    assert "1.01 of the formula's (seed 3)" in verdicts["N3"].reason


@pytest.mark.parametrize(
    ("given", "gate"), [({"known": "pizza"}, KNOWN_RIGHT), ({"answers": 0.9}, ANSWERED)], ids=["names", "answers"]
)
def test_the_primer_is_judged_where_it_can_show_something(tmp_path: Path, given: dict[str, Any], gate: str) -> None:
    verdicts = judged(found(tmp_path, sign=1, **given))
    assert [name for name, j in verdicts.items() if j.verdict == "not judged"] == ["N5"]
    assert f"gate failed: {gate}" in verdicts["N5"].reason


def test_too_few_named_networks_are_a_reason_and_no_value(tmp_path: Path) -> None:
    evidence = found(tmp_path, sign=1)
    path = evidence.cells[0] / MEASURED
    table = pd.read_parquet(path)
    table.loc[(table["seed"] == 2) & (table.index % 9 > 3), "label"] = "unclear"
    table.to_parquet(path)
    verdict = judged(evidence)["N5"]
    assert verdict.verdict == "not judged"
    assert "seed 2: 4 of 9 networks are named; 5 are needed" in verdict.reason


# -- what is compared --------------------------------------------------------------------------------------------------


def test_the_number_of_components_is_chosen_on_select_alone(tmp_path: Path) -> None:
    """What is best on id does not matter, nor what is best with more components than the claim allows."""
    evidence = found(tmp_path, sign=1)
    chosen = judged(evidence)["N1"]
    for seed in SEEDS:
        path = evidence.folder(f"kept-s{seed}") / KEPT
        table = pd.read_parquet(path)
        held = table["split"] == "id"
        table.loc[held & (table["predictor"] == "1"), "sum"] = 0.01  # nearly right, on id
        table.to_parquet(path)
    assert judged(evidence)["N1"].theta_by_seed == chosen.theta_by_seed
    select = sums({FULL: 50, "1": 90, "2": 70, "8": 70, "16": 10})
    assert best_rank(select, 8) == 2  # the smallest of equals
    assert best_rank(select, 16) == 16
    assert best_rank(select, 1) == 1


def test_seeds_may_choose_different_numbers(tmp_path: Path) -> None:
    evidence = found(tmp_path, sign=1)
    path = evidence.folder("kept-s0") / KEPT
    table = pd.read_parquet(path)
    table.loc[(table["split"] == "select") & (table["predictor"] == "8"), "sum"] = 0.01
    table.to_parquet(path)
    theta = judged(evidence)["N1"].theta_by_seed
    assert theta[0] == pytest.approx(math.log(1.1) - math.log(80 / 50))
    assert min(theta[1:]) > 0


def test_networks_and_baselines_are_scored_on_the_same_nuclei(tmp_path: Path) -> None:
    evidence = found(tmp_path, sign=1)
    errors = beside_baselines(evidence, "vintage", 0, "new")
    assert errors.names == (*MODELS, NETWORK)
    assert errors.rms("kernel") == pytest.approx(100 * np.sqrt(np.mean(ERRORS**2)), rel=1e-9)
    path = evidence.folder("baselines-vintage") / baselines.PREDICTED
    table = pd.read_parquet(path)
    for other in (table.iloc[:-1], table.iloc[::-1], table.assign(n=table["n"] + 1)):
        other.to_parquet(path)
        with pytest.raises(StatisticsError, match="different nuclei of new"):
            beside_baselines(evidence, "vintage", 0, "new")
    verdict = judged(evidence)["N6"]
    assert verdict.verdict == "not judged"
    assert "vintage and the baselines were scored on different nuclei of new" in verdict.reason


def test_without_a_network_by_vintage_n6_says_so(tmp_path: Path) -> None:
    evidence = found(tmp_path, sign=1)
    verdicts = judged(Found(evidence.seeds, ("binding",), evidence.most, evidence.folders))
    assert verdicts["N6"].reason == "no network was trained on 'vintage'"
    assert verdicts["N1"].verdict == "supported"


# -- resampling of chains ----------------------------------------------------------------------------------------------


def tiny(a: list[float], b: list[float]) -> Squares:
    """Three chains of one, two and three nuclei, with the sums of two predictors."""
    return Squares(("a", "b"), np.array([8, 9, 10]), np.array([1.0, 2.0, 3.0]), np.column_stack([a, b]))


def test_the_variance_is_that_of_all_resamples() -> None:
    """Three chains have 27 resamples, each as likely as any other; seeds share them."""
    seeds = [tiny([1, 6, 2], [2, 2, 3]), tiny([4, 4, 3], [1, 5, 4])]
    test = paired(seeds, ["a", "a"], ["b", "b"], 0.0, shift=0.1)
    draws = []
    for chains in product(range(3), repeat=3):
        totals = [one.sums[list(chains)].sum(axis=0) for one in seeds]
        draws.append(np.mean([0.5 * math.log(a / b) for a, b in totals]))
    theta = [0.1 + 0.5 * math.log(one.sums[:, 0].sum() / one.sums[:, 1].sum()) for one in seeds]
    assert test.theta_by_seed == pytest.approx(theta, rel=1e-12)
    units = test.se**2 - np.var(theta, ddof=1) / 2
    assert units == pytest.approx(np.var(draws), rel=0.08)  # of 2000 draws, good to about 3%
    assert test.n_clusters == 3


def test_seeds_share_their_draws() -> None:
    """Seeds that are alike vary with the chains together, and seeds that are opposite not at all."""
    one = tiny([1, 6, 2], [2, 2, 3])
    alone = paired([one, one], ["a"] * 2, ["b"] * 2, 0.0)
    many = paired([one] * 9, ["a"] * 9, ["b"] * 9, 0.0)
    assert many.se == pytest.approx(alone.se, rel=1e-12)
    assert alone.se > 0
    opposite = paired([one, one], ["a", "b"], ["b", "a"], 0.0)
    assert opposite.value == pytest.approx(0, abs=1e-15)
    assert opposite.se**2 == pytest.approx(np.var(opposite.theta_by_seed, ddof=1) / 2, rel=1e-9)


def test_other_units_in_a_seed_are_refused() -> None:
    one = tiny([1, 6, 2], [2, 2, 3])
    other = Squares(one.names, np.array([8, 9, 11]), one.n, one.sums)
    with pytest.raises(StatisticsError, match="different units"):
        paired([one, other], ["a"] * 2, ["b"] * 2, 0.0)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"networks": ["residual"]}, "'binding' must be among them"),
        ({"networks": ["binding", "bindnig"]}, "unknown network 'bindnig'"),
        ({"networks": ["binding", "noise", "noise"]}, "network 'noise' is named twice"),
        ({"kernels": ["gausian"]}, "unknown kernel 'gausian'"),
        ({"kernels": []}, "kernels"),
        ({"train": 0.9, "select": 0.1}, "must leave nuclei to judge on, got 0.9 and 0.1"),
        ({"old": 2016, "new": 2012}, "earlier evaluation than new, got 2016 and 2012"),
        ({"table": 2019}, "table"),
        ({"components": [8, 1]}, r"components must rise, each number once, got \[8, 1\]"),
        ({"components": [1, 1, 8]}, "components must rise"),
        ({"components": [1, 256]}, "256 of a network 128 wide"),
        ({"components": [9, 16]}, "none is at most 8"),
        ({"features": 200}, "features: 200 of a network 128 wide"),
        ({"draws": 9}, "greater than or equal to 19"),
        ({"weighting": "mass"}, "weighting"),
        ({"widht": 64}, "nearest: width"),
        ({"primer": {"moduli": [12]}}, "moduli must be odd and at least 5, got 12"),
        ({"primer": {"shares": [1.5]}}, "less than or equal to 1"),
        ({"primer": {"hiden": 16}}, "hiden"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STUDY.configure("laptop", given)


@pytest.mark.parametrize("preset", list(STUDY.presets))
def test_presets_have_steps_for_every_seed(preset: str) -> None:
    config, _ = STUDY.configure(preset, {"seeds": 3, "networks": ["binding", "vintage"]})
    names = [step.name for step in STUDY.steps(config, "")]
    assert len(names) == len(set(names))
    assert [f"nuclear-kept-s{seed}" in names for seed in range(4)] == [True, True, True, False]
    assert "nuclear-terms-asymmetry-s0" not in names


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_whole_small_run(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE)
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    steps = STUDY.steps(config, "smoke")
    run = execute("nuclear", steps, out=tmp_path / "run", engine="inline", device="cpu", manifest=manifest)
    at = run.output(JUDGE)
    verdicts = json.loads((at / "claims.json").read_text())
    assert [j["id"] for j in verdicts] == [claim.id for claim in claims()]
    assert {j["verdict"] for j in verdicts} == {"not judged"}
    assert [g["name"] for g in json.loads((at / "gates.json").read_text())] == [BEATS, KNOWN_RIGHT, ANSWERED]
    read = read_estimates(at / "estimates.parquet")
    kept = read[(read["quantity"] == "rms_kept") & (read["site"] == "penultimate")].set_index(["split", "parameter"])
    rms = read[(read["quantity"] == "rms") & (read["network"] == "binding")].set_index("split")["value"]
    for split in ("select", "id"):
        # With as many components as the network is wide nothing is taken away.
        whole, full = (kept["value"][split, parameter] for parameter in (float(config.width), np.nan))
        assert whole == full
        assert full == pytest.approx(rms[split], abs=0.1)  # keV: the split's own targets are float32
    sizes = read[(read["quantity"] == "rms") & (read["network"] == "formula")].set_index(["reference", "split"])["n"]
    assert sizes["baselines-vintage", "new"] == 159
    helix = read[read["quantity"] == "helix"]
    assert set(helix["network"]) == {*config.networks, "untrained"}
    page = STUDY.page(run)
    assert page.summary
    assert len({s.id for s in page.sections}) == len(page.sections) > 0
