"""The digits study from its first command to its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from heldout.cli import main
from heldout.evidence import read_estimates
from heldout.report.of_run import render_run
from heldout.runs import Run
from heldout.studies.base import find_study
from heldout.studies.comparing import compare_runs
from heldout.studies.running import run_study

SMALL = ('networks=["mlp"]', "null_draws=2")


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as leave:
        main(list(arguments))
    assert not leave.value.code


def steps_done(run: Path) -> list[tuple[str, str]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [(e["event"], e["step"]) for e in events if e["event"] in ("finished", "reused")]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    command("run", "digits", "--preset", "smoke", "--workers", "2", "--device", "cpu", "--runs", str(runs))
    return runs / "digits-smoke"


def test_the_smoke_run_leaves_a_page_with_everything(smoke: Path) -> None:
    page, target = render_run(smoke)
    assert target == smoke / "report.html"
    assert [j.id for j in page.judgements] == [c.id for c in find_study("digits").claims()]
    assert all(j.verdict == "not judged" and "smoke" in j.reason for j in page.judgements)
    assert len(page.identity) == 4
    assert all(check.passed for check in page.identity)
    html = target.read_text()
    for word in ("Identity", "H1", "unseen_classes", "haar", "No claim is judged here"):
        assert word.lower() in html.lower(), word


def test_every_estimate_has_a_value_within_its_interval_or_a_reason(smoke: Path) -> None:
    estimates = read_estimates(Run.open(smoke).output("digits-judge") / "estimates.parquet")
    bare = estimates[estimates["value"].isna()]
    assert (bare["reason"] != "").all()
    valued = estimates[estimates["value"].notna()]
    assert (valued["low"] <= valued["value"] + 1e-12).all()
    assert (valued["value"] <= valued["high"] + 1e-12).all()
    assert (valued["n"] > 100).all()
    shares = valued[valued["quantity"].isin(["same_prediction", "jsd", "accuracy_network", "accuracy_proxy"])]
    assert shares["value"].between(0, 1).all()
    assert (valued[valued["quantity"] == "kl"]["value"] >= 0).all()
    expected = {"same_prediction", "kl", "jsd", "gap", "excess_gap", "gap_reweighted", "gap_oracle", "kappa"}
    assert expected | {"loss_recovered", "accuracy_network", "accuracy_proxy"} <= set(estimates["quantity"])
    # Every quantity stands in one row a place.
    where = ["quantity", "network", "split", "site", "edit", "parameter", "oracle"]
    assert not estimates.duplicated(where).any()


def test_a_second_run_computes_nothing_and_gives_the_same_page(smoke: Path) -> None:
    page, before = (smoke / "report.html").read_bytes(), steps_done(smoke)
    command("run", "digits", "--preset", "smoke", "--workers", "2", "--device", "cpu", "--runs", str(smoke.parent))
    after = steps_done(smoke)[len(before) :]
    assert {event for event, _ in after} == {"reused"}
    assert len(after) == len(Run.open(smoke).steps())
    assert (smoke / "report.html").read_bytes() == page


def outputs(run: Run) -> dict[str, bytes]:
    """Every table and weight of a run, by step and file."""
    return {
        f"{step}/{path.name}": path.read_bytes()
        for step in run.steps()
        for path in sorted(run.output(step).iterdir())
        if path.name != "step.json"
    }


def small(runs: Path, *more: str) -> Run:
    return run_study(
        "digits", preset="smoke", seeds=1, settings=[*SMALL, *more], runs=runs, engine="inline", device="cpu"
    )


def test_two_directories_get_the_same_bytes_and_another_setting_others(tmp_path: Path) -> None:
    first, second = small(tmp_path / "a"), small(tmp_path / "b")
    ours, theirs = outputs(first), outputs(second)
    assert len(ours) > 20
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert [first.output(s).name for s in first.steps()] == [second.output(s).name for s in second.steps()]
    assert "the same" in compare_runs(first.path, second.path)

    other = small(tmp_path / "a", "noise=0.5")
    assert other.path != first.path
    text = compare_runs(first.path, other.path)
    assert "  noise: 0.25 -> 0.5" in text
    assert "noisy" in text
    number = r"-?[\d.e-]+"
    interval = rf"{number} \[{number}, {number}\]"
    moved = [line for line in text.splitlines() if " on " in line]
    assert moved
    assert all(re.fullmatch(rf"  \w+ mlp .* on \w+: {interval} -> {interval}, z = [+-][\d.]+", line) for line in moved)
    frames = [read_estimates(r.output("digits-judge") / "estimates.parquet") for r in (first, other)]
    row = [f[(f["quantity"] == "accuracy_network") & (f["split"] == "noisy")]["value"].iloc[0] for f in frames]
    assert row[1] < row[0]  # more noise is harder
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(*frames)


def test_another_grid_is_audited_without_training_again(tmp_path: Path) -> None:
    first, other = small(tmp_path), small(tmp_path, "ranks=[4]")
    assert dict(map(reversed, steps_done(other.path))) == {  # type: ignore[arg-type]
        "digits-train-mlp-s0": "reused",
        "digits-audit-mlp-s0": "finished",
        "digits-judge": "finished",
    }
    text = compare_runs(first.path, other.path)
    assert "  ranks: [2, 8] -> [4]" in text
    assert "only in the first: " in text  # sizes that the other does not have are counted, and not passed over
