from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import CheckpointError, NetworkError, NonFiniteError
from heldout.networks.mlp import MLP
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, read_tensors, save_weights, write_tensors
from heldout.training.history import History
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.optimizers import optimizer_of
from heldout.training.progress import bar
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=40, learning_rate=1e-2, warmup=5, evaluate_every=7, checkpoint_every=9, seed=3)


class Noisy(nn.Module):
    """An MLP with dropout and batch normalisation: random numbers and buffers must survive a resume too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = MLP((6, 16, 16))
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.drop(self.norm(self.body(x))))
        return out


def blobs() -> Split:
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(100) % 4
    x = F.one_hot(y, 6) * 2.0 + torch.randn(100, 6, generator=draw)
    return Split("train", "fit", Rectangular(x, y))


def accuracy(network: nn.Module) -> dict[str, float]:
    assert not network.training
    assert not torch.is_grad_enabled()
    batch = next(blobs().batches(100))
    return {"train/accuracy": float((network(batch.inputs).argmax(-1) == batch.targets).float().mean())}


def run(network: nn.Module, settings: TrainSettings = SETTINGS, **given: Any) -> History:
    batches = given.pop("batches", None) or shuffled(blobs(), 16, seed=settings.seed)
    return train(network, batches, cross_entropy, settings=settings, **given)


def weights(network: nn.Module) -> list[Tensor]:
    return [t.clone() for t in network.state_dict().values()]


def identical(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_it_learns_and_leaves_the_network_in_evaluation_mode() -> None:
    network = initialised(lambda: MLP((6, 16, 4)), 0)
    history = run(network, evaluate=accuracy)
    assert [step for step, _ in history] == [0, 7, 14, 21, 28, 35, 40]
    assert history.last("train/accuracy") > 0.85 > history.rows[0][1]["train/accuracy"]
    assert "batch/loss" not in history.rows[0][1]
    assert history.curve("batch/loss")[0][1] > history.last("batch/loss")
    assert not network.training


def test_it_takes_the_steps_of_a_loop_written_by_hand() -> None:
    settings = replace(SETTINGS, clip=0.5, weight_decay=0.1)
    ours, theirs = (initialised(lambda: MLP((6, 16, 4)), 0) for _ in range(2))
    run(ours, settings)
    batches = shuffled(blobs(), 16, seed=settings.seed)
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, foreach=False)
    for step in range(settings.steps):
        batch = batches(step)
        assert batch.targets is not None
        optimizer.zero_grad()
        F.cross_entropy(theirs(batch.inputs), batch.targets).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_decay_reaches_matrices_and_not_biases() -> None:
    network = initialised(lambda: MLP((6, 16, 4)), 0)
    with torch.no_grad():
        network.readout.bias.fill_(1.0)
    before = network.readout.weight.detach().clone()
    optimizer = optimizer_of(network, replace(SETTINGS, weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(network.readout.weight, before * (1 - 0.5 * SETTINGS.learning_rate))
    assert torch.equal(network.readout.bias, torch.ones(4))


def test_decay_of_linear_maps_leaves_embeddings_alone() -> None:
    network = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = optimizer_of(network, replace(SETTINGS, weight_decay=0.5, decay="linear"))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"2.weight"}


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    results = []
    for burn in (0, 5):
        torch.rand(burn)
        before = torch.random.get_rng_state()
        network = initialised(Noisy, 0)
        run(network)
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(network)
    assert identical(*results)


@pytest.mark.parametrize("stop", [1, 8, 9, 10, 27, 39])
def test_interrupted_and_resumed_is_bit_identical(tmp_path: Path, stop: int) -> None:
    whole, resumed, broken = (initialised(Noisy, seed) for seed in (0, 1, 0))
    expected = run(whole, evaluate=accuracy)
    batches = shuffled(blobs(), 16, seed=SETTINGS.seed)

    def failing(step: int) -> Batch:
        if step == stop:
            raise KeyboardInterrupt
        return batches(step)

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(broken, batches=failing, evaluate=accuracy, checkpoint=path)
    if not path.exists():
        resumed = initialised(Noisy, 0)  # nothing was saved yet: it starts again, from the seed's weights
    history = run(resumed, evaluate=accuracy, checkpoint=path)
    assert identical(whole, resumed)
    assert history == expected


def test_until_ends_training_after_its_row_whether_resumed_or_not(tmp_path: Path) -> None:
    def until(history: History) -> bool:
        asked.append(history.rows[-1][0])
        return asked[-1] >= 20

    asked: list[int] = []
    constant = replace(SETTINGS, schedule="constant")
    whole, short = initialised(Noisy, 0), initialised(Noisy, 0)
    history = run(whole, constant, evaluate=accuracy, until=until)
    assert asked == [7, 14, 21]
    assert [step for step, _ in history] == [0, 7, 14, 21]
    assert not whole.training
    run(short, replace(constant, steps=21), evaluate=accuracy)
    assert identical(whole, short)

    path, batches = tmp_path / "state.safetensors", shuffled(blobs(), 16, seed=SETTINGS.seed)

    def failing(step: int) -> Batch:
        if step == 19:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        run(initialised(Noisy, 0), constant, batches=failing, evaluate=accuracy, checkpoint=path, until=until)
    for _ in range(2):  # goes on to the end; then has ended
        resumed = initialised(Noisy, 1)
        assert run(resumed, constant, evaluate=accuracy, checkpoint=path, until=until) == history
        assert identical(whole, resumed)


def test_a_finished_run_is_read_back_without_training(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole, again = initialised(Noisy, 0), initialised(Noisy, 1)
    expected = run(whole, checkpoint=path, evaluate=accuracy)

    def never(step: int) -> Batch:
        raise AssertionError(step)

    assert run(again, batches=never, checkpoint=path, evaluate=accuracy) == expected
    assert identical(whole, again)


KILLED = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
import test_loop as t
batches = t.shuffled(t.blobs(), 16, seed=t.SETTINGS.seed)
def slow(step):
    time.sleep(0.02)
    print(step, flush=True)
    return batches(step)
t.run(t.initialised(t.Noisy, 0), batches=slow, checkpoint=Path({path!r}))
"""


def test_a_killed_process_resumes_bit_identically(tmp_path: Path) -> None:
    whole, resumed = initialised(Noisy, 0), initialised(Noisy, 1)
    expected = run(whole)
    path = tmp_path / "state.safetensors"
    code = textwrap.dedent(KILLED).format(here=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if int(line) >= 23:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert path.exists()
    assert run(resumed, checkpoint=path) == expected
    assert identical(whole, resumed)


def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    run(initialised(Noisy, 0), checkpoint=path)
    with pytest.raises(CheckpointError, match=r"other settings \(learning_rate: 0.01 -> 0.02, seed: 3 -> 4\)"):
        run(initialised(Noisy, 0), replace(SETTINGS, learning_rate=0.02, seed=4), checkpoint=path)
    run(initialised(Noisy, 0), replace(SETTINGS, checkpoint_every=None), checkpoint=path)


def test_a_checkpoint_that_is_older_than_a_setting_had_its_default(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    expected = run(initialised(Noisy, 0), checkpoint=path)
    tensors, record = read_tensors(path)
    del record["settings"]["decay"]
    write_tensors(path, tensors, record)
    assert run(initialised(Noisy, 1), checkpoint=path) == expected
    with pytest.raises(CheckpointError, match="decay: 'matrices' -> 'linear'"):
        run(initialised(Noisy, 0), replace(SETTINGS, decay="linear"), checkpoint=path)


def test_foreign_and_corrupt_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_weights(Noisy(), path)
    with pytest.raises(CheckpointError, match=r"no training checkpoint.*move the file away to train from the start"):
        run(Noisy(), checkpoint=path)
    path.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        run(Noisy(), checkpoint=path)
    path.unlink()
    run(initialised(Noisy, 0), checkpoint=path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        run(MLP((6, 16, 4)), checkpoint=path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_weights(Noisy(), path)


def test_a_tied_weight_is_trained_and_resumed_as_one(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.out = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(self.b(torch.relu(self.a(x))))
            return out

    path = tmp_path / "state.safetensors"
    whole, again = initialised(Tied, 0), initialised(Tied, 1)
    run(whole, checkpoint=path)
    run(again, checkpoint=path)
    assert identical(whole, again)
    assert again.a.weight is again.b.weight


def test_a_non_finite_loss_names_the_update_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    batches = shuffled(blobs(), 16, seed=0)

    def poisoned(step: int) -> Batch:
        batch = batches(step)
        return replace(batch, inputs=batch.inputs * float("nan")) if step == 20 else batch

    with pytest.raises(
        NonFiniteError, match=r"loss is nan at update 21 of 40. Try a lower learning_rate \(it is 0.01\)"
    ):
        run(initialised(Noisy, 0), batches=poisoned, checkpoint=path)
    network = initialised(Noisy, 1)
    run(network, batches=batches, checkpoint=path)
    assert all(torch.isfinite(w).all() for w in weights(network))


def test_weights_that_become_non_finite_in_the_last_update_are_not_saved(tmp_path: Path) -> None:
    network = initialised(lambda: MLP((6, 16, 4)), 0)

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs.sum() - outputs.sum().detach()).abs().sqrt()  # 0, with an infinite slope

    path = tmp_path / "state.safetensors"
    with pytest.raises(NonFiniteError, match="is NaN or infinite after update 1"):
        train(network, shuffled(blobs(), 16, seed=0), loss, settings=TrainSettings(steps=1), checkpoint=path)
    assert not path.exists()


def test_cross_entropy_counts_every_unmasked_position_once() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=draw)
    targets = torch.randint(7, (3, 5), generator=draw)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    batch = Batch(inputs=None, index=torch.arange(3), targets=targets, mask=mask)
    expected = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0][mask].mean()
    torch.testing.assert_close(cross_entropy(logits, batch), expected)
    with pytest.raises(NetworkError, match=r"outputs are \(3, 7\), targets \(3, 5\)"):
        cross_entropy(logits[:, 0], batch)


def test_progress_is_told_the_end_and_the_bar_draws(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int, float]] = []
    run(MLP((6, 16, 4)), progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (40, 40)
    with bar("seed 3") as progress:
        run(MLP((6, 16, 4)), progress=progress)
    assert "40/40" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["curves.parquet", "curves.json"])
def test_curves_are_written_and_read_back(tmp_path: Path, name: str) -> None:
    history = run(initialised(lambda: MLP((6, 16, 4)), 0), evaluate=lambda net: {**accuracy(net), "seconds": 1.0})
    history.write(tmp_path / name)
    assert History.read(tmp_path / name) == history
    frame = history.frame()
    assert list(frame.columns) == ["step", "split", "metric", "value"]
    assert set(zip(frame["split"], frame["metric"], strict=True)) == {
        ("train", "accuracy"),
        ("batch", "loss"),
        ("", "seconds"),
    }
    with pytest.raises(KeyError):
        history.last("id/accuracy")


def test_frozen_parameters_stay() -> None:
    network = initialised(lambda: MLP((6, 16, 4)), 0)
    network.hidden.requires_grad_(False)
    before = weights(network.hidden)
    run(network)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network.hidden), strict=True))
    with pytest.raises(NetworkError, match="MLP has no parameters to train"):
        run(network.requires_grad_(False))
