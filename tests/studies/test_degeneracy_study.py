"""The degeneracy study: how its claims turn with the evidence, settings it refuses, and a whole small run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.analyses.estimates import Scores
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError
from heldout.evidence import Cell, Origin, read_estimates
from heldout.runs import execute
from heldout.statistics.verdict import Judgement, judge
from heldout.studies.base import SMOKE
from heldout.studies.degeneracy import JUDGE, STUDY
from heldout.studies.degeneracy_blocks import MEASURED as BLOCKS
from heldout.studies.degeneracy_claims import GAIN, TOLERANCE, claims
from heldout.studies.degeneracy_counts import PLANTS
from heldout.studies.degeneracy_judge import IB, PCA, Found, finding, learnt_gate
from heldout.studies.degeneracy_modular import BASES, LAYERS, SECTIONS
from heldout.studies.degeneracy_population import LOSSES
from heldout.studies.degeneracy_population import MEASURED as POPULATION

SEEDS = 6


def population(at: Path, sign: float) -> list[Path]:
    """Networks whose coefficients order them as their held-out losses do (1), or the other way round (-1)."""
    folders = []
    for seed in range(SEEDS):
        folder = at / f"population-{seed}"
        folder.mkdir(parents=True)
        held = np.random.default_rng(seed).permutation(8) / 10 + 0.1
        rows: dict[str, Any] = {
            "seed": seed,
            "way": [f"w{i}" for i in range(8)],
            "n_eff": sign * held,
            "quadratic": held,
        }
        pd.DataFrame(rows | {"weight_norm": held, "unmatched": "", "reason": ""}).to_parquet(folder / POPULATION)
        np.savez(folder / LOSSES, losses=np.tile(held[:, None], (1, 30)))
        folders.append(folder)
    return folders


def blocks(at: Path, sign: float) -> list[Path]:
    """A dense network that counts 1.4 times as many directions as one in blocks, or 1 / 1.4 times."""
    folders = []
    for seed in range(SEEDS):
        folder = at / f"blocks-{seed}"
        folder.mkdir(parents=True)
        count = [20.0, 20.0 * (1.4 + seed / 100) ** sign]
        rows = {
            "network": ["block", "dense"],
            **dict.fromkeys(("quadratic", "n_eff", "untrained", "quadratic@1"), count),
        }
        rows |= {"seed": seed, "parameters": 50, "held_loss": 0.1, "unmatched": "", "reason": ""}
        pd.DataFrame(rows).to_parquet(folder / BLOCKS)
        folders.append(folder)
    return folders


def streams(gain: float) -> Scores:
    """Agreement of the interaction basis above that of components, of 100 predictions in each of 20 units of text; at the
    full width, 8, both agree always and that does not count."""
    memory = Memory()
    rng = np.random.default_rng(0)
    for seed in range(SEEDS):
        for family, more in ((IB, 100 * gain), (PCA, 0.0)):
            for site in ("blocks.0", "blocks.1"):
                for rank in (2, 4, 8):
                    cell = Cell("code", "decoder", seed, "id", Origin(family, site, "fit", rank))
                    same = 50 + more + rng.normal(0, 0.1, 20) if rank < 8 else np.full(20, 100.0)
                    memory.add(cell, {"unit": np.arange(20), "n": np.full(20, 100.0), "same": same})
    return Scores.from_memory(memory)


def found(at: Path, *, sign: float, right: float = 1.0, miscounted: int = 0) -> Found:
    """Evidence that goes the way that every claim says, or (-1) the other way; `miscounted` kinds are off by one."""
    rng = np.random.default_rng(0)
    modular, shares, counts, plants = [], [], [], []
    for seed in range(SEEDS):
        noise = 0.01 * rng.normal()
        edges = {"lib": 100, "pca": round(100 * math.exp(0.3 * sign + noise))}
        pure = {"lib": 0.7 + 0.1 * sign + noise, "pca": 0.7}
        modular.append(
            {
                "accuracy": {"id/accuracy": right if seed == 0 else 1.0},
                **{
                    kind: {
                        "edges": {section: {"count": edges[kind]} for section in SECTIONS},
                        "z_layered": 3.0 + (5 * sign + noise if kind == "lib" else 0),
                    }
                    for kind in BASES
                },
            }
        )
        shares.append(
            {
                f"{kind} {site}": np.tile([1 - pure[kind], pure[kind], 0.0], (10, 1))
                for kind in BASES
                for site in LAYERS[:-1]
            }
        )
        after = 0.4 + 0.2 * sign + noise
        counts.append([{"step": step, "share": {TOLERANCE: share}} for step, share in ((0, 0.4), (10, after))])
        plants.append(
            {
                kind: {
                    "expected": 4,
                    "counted": 4 + (i < miscounted),
                    "unexplained": 0,
                    "interaction": 1e-14 if sign > 0 else 1e-2,
                    "components": 0.1 if sign > 0 else 1e-12,
                }
                for i, kind in enumerate(PLANTS)
            }
        )
    beside = (population(at, sign), blocks(at, sign), [], streams(0.0 if sign > 0 else 0.1))
    return Found(range(SEEDS), modular, shares, counts, plants, *beside)


def judged(evidence: Found) -> dict[str, Judgement]:
    gate = learnt_gate(evidence)
    return {j.id: j for j in judge([finding(claim, evidence, gate) for claim in claims()])}


def test_what_the_papers_say_is_supported(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=1))
    assert {name: j.verdict for name, j in verdicts.items()} == dict.fromkeys(verdicts, "supported")
    expected = {"D1": 0.2, "D2": 1.0, "D3": math.log(1.42), "D4": 0.05, "D6": 0.3, "D7": 0.1, "D8": 5.0, "D9": GAIN}
    for name, value in expected.items():
        assert verdicts[name].value == pytest.approx(value, abs=0.03)


def test_the_opposite_is_refuted(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=-1, miscounted=2))
    assert {name: j.verdict for name, j in verdicts.items()} == dict.fromkeys(verdicts, "refuted")


def test_one_kind_that_is_off_by_one_is_enough_to_refute_d4(tmp_path: Path) -> None:
    assert judged(found(tmp_path, sign=1, miscounted=1))["D4"].verdict == "refuted"


def test_networks_that_have_not_learnt_are_not_judged(tmp_path: Path) -> None:
    verdicts = judged(found(tmp_path, sign=1, right=0.98))
    assert {n: j.verdict for n, j in verdicts.items() if n in ("D6", "D7", "D8")} == dict.fromkeys(
        ("D6", "D7", "D8"), "not judged"
    )
    assert "0.9800 (seed 0)" in verdicts["D6"].reason
    assert verdicts["D1"].verdict == "supported"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"items": 20}, "items must be at least 121"),
        ({"moments": [9000]}, "between 0 and digits_steps"),
        ({"modul": 7}, "nearest: modulus"),
        ({"relative": 0}, "greater than 0"),
        ({"population": {"ways": ["sgd", "adam", "momentum", "sdg-decay"]}}, "unknown way of training 'sdg-decay'"),
        ({"blocks": {"widht": 3}}, "widht"),
        ({"language_model": "huge"}, "language_model"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STUDY.configure("laptop", given)


def test_a_whole_small_run(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE)
    manifest = {"config": config.model_dump(mode="json"), "not_judged": "smoke"}
    run = execute(
        "degeneracy", STUDY.steps(config, "smoke"), out=tmp_path / "run", workers=1, device="cpu", manifest=manifest
    )
    folder = run.output(JUDGE)
    verdicts = json.loads((folder / "claims.json").read_text())
    assert [j["id"] for j in verdicts] == [claim.id for claim in claims()]
    assert {j["verdict"] for j in verdicts} == {"not judged"}
    read = read_estimates(folder / "estimates.parquet")
    counted = read[read["quantity"].isin(["expected", "counted"])].set_index(["edit", "quantity"])["value"]
    for kind in PLANTS:
        assert counted[kind, "counted"] == counted[kind, "expected"] > 0
    page = STUDY.page(run)
    shown = [
        "edges",
        "features",
        "modules",
        "pictures",
        "counts",
        "planted",
        "coefficient",
        "blocks",
        "language",
        "setting",
    ]
    assert [s.id for s in page.sections] == shown
    assert any("Planted free directions: 14 a network, 14 counted" in s for s in page.summary)
