"""Seeds of a study trained as one computation are those trained one by one, to rounding, and are used like them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from heldout.errors import ConfigError
from heldout.runs import Run, Step, StepContext, execute
from heldout.runs.steps import check_steps, companions
from heldout.studies.base import find_study
from heldout.training.loop import Loss
from heldout.training.optimizers import make_optimizer
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Stack
from heldout.training.stacked import _together as together

SMALL: dict[str, dict[str, Any]] = {
    "digits": {"training_steps": 10},
    "dyck": {"training_steps": 20, "batches": "aligned"},
    "arithmetic": {},
    "degeneracy": {"steps": 30},
    "nuclear": {"steps": 30},
}
TRAINED = {  # study -> one step of each kind of network that is trained so
    "digits": ("digits-train-mlp", "digits-train-cnn"),
    "dyck": ("dyck-train",),
    "arithmetic": ("arithmetic-train-sum_at_most", "arithmetic-train-product"),
    "degeneracy": ("degeneracy-train-modular", "degeneracy-train-pictures"),
    "nuclear": ("nuclear-train-binding", "nuclear-train-vintage-residual"),
}


def steps_of(study: str, **more: Any) -> list[Step]:
    found = find_study(study)
    config, _ = found.configure("smoke", {"seeds": 2, **SMALL[study], **more})
    return found.steps(config, "")


def curves(run: Run, step: str) -> pd.DataFrame:
    folder = run.output(step)
    return pd.read_parquet(next(p for name in ("history", "curves") if (p := folder / f"{name}.parquet").exists()))


@pytest.mark.parametrize("study", list(SMALL))
def test_they_are_the_networks_that_are_trained_one_by_one(study: str, tmp_path: Path) -> None:
    every = steps_of(study)
    wanted = {f"{kind}-s{seed}" for kind in TRAINED[study] for seed in (0, 1)} & {step.name for step in every}
    steps = [step for step in every if step.name in wanted]
    assert len(steps) >= 2
    side, apart = (
        execute(study, steps, out=tmp_path / name / "run", engine="inline", together=name == "side", progress=None)
        for name in ("side", "apart")
    )
    for step in steps:
        assert len(side.record(step.name)["together"]) == 2
        assert "together" not in apart.record(step.name)
        ours, theirs = (curves(run, step.name).set_index(["step", "split", "metric"])["value"] for run in (side, apart))
        assert ours.index.equals(theirs.index)
        loss = theirs.index.get_level_values("split") == "batch"
        # Dropout is drawn otherwise side by side.
        rel = 1e-2 if step.settings.get("kind", {}).get("dropout") else 1e-6
        assert ours[loss].to_numpy() == pytest.approx(theirs[loss].to_numpy(), rel=rel)
        if rel == 1e-6:
            assert ours.to_numpy() == pytest.approx(theirs.to_numpy(), rel=1e-5, abs=1e-6)
    first, second = (curves(side, step.name)["value"] for step in steps[:2])
    assert not first.equals(second)


def test_what_reads_a_network_does_not_see_how_it_was_trained(tmp_path: Path) -> None:
    """The whole study, each seed with its siblings."""
    steps = steps_of("digits", networks=("mlp",))
    finished = execute("digits", steps, out=tmp_path / "run", engine="inline", together=True, progress=None)
    assert finished.manifest["status"] == "done"
    assert {"digits-audit-mlp-s0", "digits-judge"} <= set(finished.steps())


def test_sentences_are_trained_together_only_where_their_batches_have_one_shape() -> None:
    dyck = find_study("dyck")
    sizes = {}
    for batches in ("own", "aligned"):
        config, _ = dyck.configure("smoke", {"seeds": 3, "batches": batches})
        order = check_steps(dyck.steps(config, ""))
        sizes[batches] = len(companions(order)["dyck-train-s0"])
    assert sizes == {"own": 1, "aligned": 3}
    assert dyck.configure("paper")[0].batches == "aligned"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="batches"):
        dyck.configure("smoke", {"batches": "bucketed"})


@pytest.mark.parametrize(
    ("study", "given"),
    [
        ("dyck", {"batches": "aligned", "precision": "bfloat16"}),
        ("arithmetic", {"precision": "bfloat16"}),
        ("code", {"precision": "bfloat16"}),
    ],
)
def test_settings_that_are_younger_than_stored_outputs_leave_their_keys(study: str, given: dict[str, Any]) -> None:
    """At their default they are in no key; otherwise they are, in that of the step that trains."""
    found = find_study(study)
    plain, other = (
        {step.name: step for step in found.steps(found.configure("smoke", more)[0], "")} for more in ({}, given)
    )
    changed = {name for name, step in plain.items() if step.settings != other[name].settings}
    assert changed
    assert all("train" in name or "weights" in name for name in changed)
    for name in changed:
        assert set(other[name].settings) - set(plain[name].settings) == set(given)
        assert given.keys().isdisjoint(plain[name].settings)


@pytest.mark.parametrize("study", list(SMALL))
def test_an_update_happens_on_the_steps_device_alone(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device ``meta``, which holds no numbers and refuses what lies elsewhere: no accelerator is needed to see that
    nothing of a forward pass, a loss or an update has stayed on the CPU."""
    seen: list[torch.device] = []

    class EnoughError(Exception):
        pass

    def first_update(stack: Stack, batches: Any, loss: Loss, *, settings: TrainSettings, **_: Any) -> None:
        stack.train()
        values = stack.losses(together([each(0) for each in batches], 0).to("meta"), loss, own=True)
        values.sum().backward()  # type: ignore[no-untyped-call]
        trained = {name: p for name, p in stack.parameters.items() if p.requires_grad}
        make_optimizer(trained, set(trained), settings, None).step()
        seen.extend([values.device, *(p.grad.device for p in trained.values() if p.grad is not None)])
        raise EnoughError

    monkeypatch.setattr("heldout.training.together.train_stacked", first_update)
    every = steps_of(study)
    for kind in TRAINED[study]:
        steps = [step for step in every if step.name in {f"{kind}-s{seed}" for seed in (0, 1)}]
        if not steps:
            continue
        contexts = [StepContext(s.name, s.settings, {}, out=tmp_path, device="meta") for s in steps]
        assert steps[0].together is not None
        with pytest.raises(EnoughError):
            steps[0].together(contexts)
    assert len(seen) > 4
    assert {device.type for device in seen} == {"meta"}
