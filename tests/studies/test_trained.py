"""The networks of finished runs, audited for what their positions are labelled with, from the specs that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from heldout.audits.running import run_audit
from heldout.audits.steps import SUMMARY
from heldout.audits.summary import FEATURES
from heldout.errors import ConfigError
from heldout.evidence import read_estimates
from heldout.report.of_run import render_run
from heldout.runs import Run, execute
from heldout.studies.base import SMOKE, find_study
from heldout.studies.trained import NO_LABEL, network, split

SPECS = Path(__file__).parents[2] / "docs" / "audits"
CHANGED = {
    "dyck": {"train_sentences": 300, "sentences": 40, "training_steps": 20},
    "arithmetic": {"seeds": 1, "training_steps": 5},
}


@pytest.fixture(scope="module", params=["dyck", "arithmetic"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run that has trained one small network and nothing else."""
    name = request.param
    study = find_study(name)
    config, why = study.configure(SMOKE, CHANGED[name])
    steps = [s for s in study.steps(config, why) if "-train-" in s.name and not s.inputs][:1]
    if name == "arithmetic":
        steps = [s for s in study.steps(config, why) if s.name.startswith("arithmetic-train-sum_at_most")][:1]
    out = tmp_path_factory.mktemp(name) / "run"
    execute(name, steps, out=out, manifest={"config": config.model_dump(mode="json")}, engine="inline", progress=None)
    return name, out


def test_the_shipped_spec_audits_it_in_and_out_of_distribution(trained: tuple[str, Path], tmp_path: Path) -> None:
    name, run = trained
    given: dict[str, Any] = yaml.safe_load((SPECS / f"{name}.yaml").read_text())
    given["network"]["arguments"]["run"] = str(run)
    task = Run.open(run).record(Run.open(run).steps()[0])["settings"]
    for one in given["splits"].values():
        one["arguments"]["run"] = str(run)
    if name == "dyck":
        k = task["task"]["brackets"]
        given["scoring"]["candidates"] = [k, 2 * k]
    else:  # the small preset has operands of two digits
        given["splits"]["len_3_3"] = given["splits"].pop("len_4_4")
        given["splits"]["len_3_3"]["arguments"]["name"] = "len_3_3"
    given["features"] |= {"rows": 400, "draws": 19, "decode": False}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(given))
    audited = run_audit(path, runs=tmp_path / "runs", progress=None)
    rows = read_estimates(audited.output(SUMMARY) / FEATURES)
    loud = rows[rows["quantity"].str.startswith("variance_explained:")]
    tests = [n for n, s in given["splits"].items() if s["role"] == "test"]
    assert set(loud["split"]) == set(tests)
    assert set(loud["site"]) == set(given["features"]["sites"])
    assert loud["value"].notna().all()
    assert rows[rows["quantity"].str.startswith("changed:")]["value"].notna().all()
    page, _ = render_run(audited.path)
    assert page.summary


def test_labels_are_what_the_tokens_say(trained: tuple[str, Path]) -> None:
    name, run = trained
    found = split(str(run), "id", items=3)
    batch = found.items.take(np.arange(3))
    tokens = np.asarray(batch.inputs["tokens"] if isinstance(batch.inputs, dict) else batch.inputs)
    settings = Run.open(run).record(Run.open(run).steps()[0])["settings"]
    for row, labels in zip(tokens, zip(*(np.asarray(v) for v in batch.strata.values()), strict=True), strict=True):
        if name == "dyck":
            k, stack = settings["task"]["brackets"], []
            for token, depth, bracket in zip(row, *labels, strict=True):
                if token >= 2 * k:
                    assert depth == bracket == NO_LABEL
                    continue
                stack = [*stack, token] if token < k else stack[:-1]
                assert depth == len(stack)
                assert bracket == (stack[-1] if stack else NO_LABEL)
        else:
            w, n = settings["kind"]["width"], settings["kind"]["digits"]
            a, b = (int("".join(map(str, row[i * w : (i + 1) * w]))) for i in range(2))
            digit, carry = labels
            marked = np.flatnonzero(digit != NO_LABEL)
            np.testing.assert_array_equal(marked, 2 * w - 1 + np.arange(1, n))
            for i, at in enumerate(marked, start=1):
                assert digit[at] == (a + b) // 10**i % 10
                assert carry[at] == (a % 10**i + b % 10**i) // 10**i


def test_what_a_run_lacks_is_named(trained: tuple[str, Path]) -> None:
    name, run = trained
    with pytest.raises(ConfigError, match="unknown split 'unseen'"):
        split(str(run), "unseen")
    with pytest.raises(ConfigError, match="unknown trained network"):
        network(str(run), seed=7)
    if name == "arithmetic":
        with pytest.raises(ConfigError, match="unknown trained network 'arithmetic-train-sum_exactly-s0'"):
            network(str(run), kind="sum_exactly")
