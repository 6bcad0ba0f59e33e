"""The dyck study: what settings it refuses, what it claims, and a whole small run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.errors import ConfigError, SplitError
from heldout.evidence import read_estimates, read_scores
from heldout.studies.base import SMOKE, find_study
from heldout.studies.dyck import DEPTH, FAMILIES, NETWORK, OUT, DyckConfig, step_settings
from heldout.studies.dyck_audit import DEEP, dyck, head_families, splits
from heldout.studies.running import run_study

STUDY = find_study("dyck")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"brackets": 0}, "brackets: Input should be greater than 0"),
        ({"depth": 0}, "depth: Input should be greater than 0"),
        ({"cap": 3}, "cap: Input should be greater than or equal to 4"),
        ({"deeper": 11}, r"deeper \(m'\) must be at least depth \+ 2 = 12, got 11"),
        ({"ranks": [1, 65]}, "rank 65 is above the width of a head; at most 64"),
        ({"heads": 3}, "width must be a multiple of heads"),
        ({"heads": 4}, "rank 32 is above the width of a head; at most 16"),
        ({"batch": 256}, "batch must hold the longest sentence and its start, 257; got 256"),
        ({"warmup": 5000}, "warmup must be at most training_steps"),
        ({"train_sentences": 2000}, "train_sentences must be at least fit_sentences"),
        ({"clusters": [20_000]}, "20000 clusters of 10000 rows"),
        ({"clusters": []}, "clusters: Tuple should have at least 1 item"),
        ({"structure": "word"}, "structure: Input should be 'sentence' or 'component'"),
        ({"layers": 1}, "layers: Input should be greater than or equal to 2"),
        ({"rank": 3}, "unknown field 'rank'; nearest: ranks"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STUDY.configure("laptop", given)


def test_bad_settings_end_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "heldout", "run", "dyck", "--preset", "smoke", "--set", "cap=2"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "cap" in found.stderr + found.stdout
    assert "Traceback" not in found.stderr


def test_a_split_that_cannot_be_drawn_says_why() -> None:
    # With one type and at most six tokens, every structure is seen, and none reaches ten tokens back.
    config = DyckConfig(brackets=1, depth=2, deeper=4, cap=6, train_sentences=4_000, batch=100, sentences=10, scored=0)
    with pytest.raises(SplitError, match=r"cannot be drawn: of \d+ sentences .* \(\d+\.\d+%\) meet its definition"):
        dyck(step_settings(config)["task"])


def test_splits_of_the_study() -> None:
    config, _ = STUDY.configure(SMOKE)
    assert isinstance(config, DyckConfig)
    found = splits(step_settings(config)["task"])
    assert set(OUT) <= set(found)
    assert [s.name for s in found.values() if s.role == "fit"] == ["train", "fit"]
    shared = np.intersect1d(found["fit"].keys, found["id"].keys)
    assert len(shared) == 0
    for name in ("id", DEPTH):
        batch = found[name].items.take(np.arange(5))
        assert batch.scored is not None
        assert batch.scored.any(dim=1).all()
        assert set(batch.strata) == {DEEP}
        assert (batch.strata[DEEP][batch.scored].sum() > 0) == (name == DEPTH)


def test_draws_are_of_random_families_only() -> None:
    config, _ = STUDY.configure("laptop")
    s = step_settings(config) if isinstance(config, DyckConfig) else {}
    draws = {f.name: sum(g.name == f.name for g in head_families(s, None)) for f in head_families(s, None)}
    assert draws == {"svd": 1, "kmeans": 5, "weights": 1, "onehot": 1, "topk": 1, "haar": 20, "mean": 1}
    wanted = head_families(s, {("blocks.1.attn", "kmeans", 8), ("blocks.1.attn", "onehot", None)})
    assert [(f.name, f.parameters) for f in wanted] == [("kmeans", (8,)), ("onehot", ())]


def test_a_whole_small_run(tmp_path: Path) -> None:
    run = run_study("dyck", preset=SMOKE, runs=tmp_path, workers=2, device="cpu")
    judged = json.loads((run.output("dyck-judge") / "claims.json").read_text())
    assert [j["id"] for j in judged] == ["G1", "G1-svd", "G2", "G3", "G4", "G5"]
    assert {j["verdict"] for j in judged} == {"not judged"}
    assert all("smoke" in j["reason"] for j in judged)

    estimates = read_estimates(run.output("dyck-judge") / "estimates.parquet")
    gaps = estimates[estimates["quantity"] == "excess_gap"]
    assert set(gaps["edit"]) == set(FAMILIES)
    assert set(OUT) <= set(gaps["split"])
    assert gaps["value"].notna().all()
    same = estimates[(estimates["quantity"] == "same_prediction") & (estimates["site"] == "blocks.1.attn")]
    full = same[(same["edit"].isin(["svd", "weights"])) & (same["parameter"] == 32)]
    assert (full["value"] == 1.0).all()  # rank 32 of 32 is the network
    assert {"attention_jsd", "gap_from_seen", "kappa_shallow", "kappa_deep"} <= set(estimates["quantity"])
    assert "other_seed" in set(estimates["edit"])

    audit = run.output("dyck-audit-s0")
    _, columns = read_scores(next(audit.glob(f"{NETWORK}-s0-{DEPTH}-blocks.1.attn-svd-8-*.parquet")))
    assert set(columns[DEEP]) == {0, 1}  # kappa is cut at the training depth
    parts = run.output("dyck-components-s0")
    assert {"depth", "type", "opens"} == set(pd.read_parquet(parts / "contents.parquet")["label"])
    with np.load(parts / "example.npz") as example:
        np.testing.assert_allclose(example["layer 1"].sum(axis=1), 1, rtol=1e-5)
    with np.load(parts / "maps.npz") as maps:
        np.testing.assert_allclose(maps["network/mass"].sum(axis=1), maps["network/queries"], rtol=1e-5)

    page = STUDY.page(run)
    assert page.sections[0].figures[0].id == "gap"
    names = [figure.id for section in page.sections for figure in section.figures]
    assert {"training", "attention-example", "attention-jsd", "accuracy", "mass-svd", "errors-svd", "addback"} <= set(
        names
    )
    assert "interaction" in names
    beside = read_estimates(run.output("dyck-interaction") / "estimates.parquet")
    assert set(zip(beside["site"], beside["edit"], strict=True)) == {
        (f"blocks.{i}", family) for i in range(2) for family in ("ib", "pca")
    }
    whole = beside[(beside["quantity"] == "same_prediction") & (beside["parameter"] == 32) & (beside["edit"] == "ib")]
    assert (whole["value"] == 1.0).all()
    assert len(set(names)) == len(names)
