"""Seeds of a study trained as one computation are those trained one by one, to rounding, and are used like them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heldout.errors import ConfigError
from heldout.runs import Run, Step, StepContext, execute
from heldout.runs.steps import check_steps, companions
from heldout.studies.base import find_study
from heldout.tasks.base import Batch
from heldout.training.stacked import Stack
from heldout.training.together import train_together

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
    "nuclear": ("nuclear-train-binding", "nuclear-train-residual"),
}


def steps_of(study: str, **more: Any) -> list[Step]:
    found = find_study(study)
    config, _ = found.configure("smoke", {"seeds": 2, **SMALL[study], **more})
    return found.steps(config, "")


def kinds_of(study: str) -> list[list[Step]]:
    """The steps of each kind of network that is trained so, one a seed (`sequences`: one for all seeds)."""
    found = find_study(study)
    every = {
        step.name: step for step in found.steps(found.configure("smoke", {"seeds": 2, **SMALL.get(study, {})})[0], "")
    }
    if study == "sequences":
        return [[next(step for name, step in every.items() if "train" in name)]]
    return [[every[f"{kind}-s{seed}"] for seed in (0, 1)] for kind in TRAINED[study]]


def curves(run: Run, step: str) -> pd.DataFrame:
    folder = run.output(step)
    return pd.read_parquet(next(p for name in ("history", "curves") if (p := folder / f"{name}.parquet").exists()))


@pytest.mark.parametrize("study", list(SMALL))
def test_they_are_the_networks_that_are_trained_one_by_one(study: str, tmp_path: Path) -> None:
    steps = [step for kind in kinds_of(study) for step in kind]
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


class OneDevice(TorchDispatchMode):
    """Raises where tensors of two devices meet in one operation, copies from one to another apart. (Plain ``meta`` tensors
    would let many such operations pass.)"""

    def __init__(self) -> None:
        super().__init__()
        self.on_meta = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.ndim}
        assert len(devices) < 2 or "copy" in str(func), f"{func} on {devices}"
        self.on_meta += devices == {"meta"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("study", [*SMALL, "sequences"])
def test_updates_happen_on_the_steps_device_alone(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device ``meta``, which holds no numbers: no accelerator is needed to see that nothing of a batch, a forward
    pass, a loss, clipping or an optimiser has stayed on the CPU. It ends where losses are looked at, as it has none."""

    def unseen(*given: Any, evaluate: Any, **more: Any) -> Any:
        return train_together(*given, evaluate=None, **more)

    for place in ("side_by_side", "sequences_measure"):
        monkeypatch.setattr(f"heldout.studies.{place}.train_together", unseen)
    for steps in kinds_of(study):
        contexts = [StepContext(s.name, s.settings, {}, out=tmp_path, device="meta", together=True) for s in steps]
        function, given = (
            (steps[0].function, contexts[0]) if steps[0].together is None else (steps[0].together, contexts)
        )
        with OneDevice() as mode, pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            function(given)  # type: ignore[operator]
        assert mode.on_meta > 100  # ten updates or more


def test_what_strays_from_the_device_is_found() -> None:
    """The check above has an eye for a batch that was left behind."""
    stack = Stack([torch.nn.Embedding(3, 4).to("meta")] * 2)
    batch = Batch(torch.zeros(5, dtype=torch.int64), torch.arange(5))
    with OneDevice(), pytest.raises(AssertionError, match=r"embedding.*(cpu.*meta|meta.*cpu)"):
        stack(batch)
    with OneDevice():
        stack(batch.to("meta"))


def test_orders_of_answers_are_stacked_as_they_are_trained_apart(tmp_path: Path) -> None:
    """`sequences` trains all seeds in one step, and is told how."""
    (step,) = kinds_of("sequences")[0]
    found = {}
    for together in (False, True):
        (out := tmp_path / str(together)).mkdir()
        settings = {**step.settings, "updates": 10, "configuration": {**step.settings["configuration"], "dropout": 0.0}}
        ctx = StepContext(step.name, settings, {}, out=out, device="cpu", together=together)
        step.function(ctx)
        assert ctx.notes == ([{"trained together": [0, 1]}] if together else [])
        found[together] = json.loads((out / "curves.json").read_text())
    for seed in ("0", "1"):
        for (ours, mine), (theirs, other) in zip(found[True][seed], found[False][seed], strict=True):
            assert ours == theirs
            assert mine == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert found[True]["0"] != found[True]["1"]
