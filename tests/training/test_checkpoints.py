from __future__ import annotations

import copy
import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from heldout.errors import CheckpointError, StoreError
from heldout.networks.mlp import MLP
from heldout.training import checkpoints
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.seeds import initialised


class Tied(nn.Module):
    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.readout = nn.Linear(4, 7, bias=False)
        if tie:
            self.readout.weight = self.embed.weight


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "weights.safetensors"


def test_weights_buffers_and_metadata_come_back(path: Path) -> None:
    a, b = initialised(Tied, 0), initialised(Tied, 1)
    a.norm(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    save_weights(a, path, {"seed": 0, "widths": [1, 2]})
    assert load_weights(b, path) == {"seed": 0, "widths": [1, 2]}
    assert same(state(a), state(b))
    assert b.readout.weight is b.embed.weight


def test_tied_weights_are_written_once_and_fill_an_untied_network(path: Path) -> None:
    a, b = initialised(Tied, 0), initialised(lambda: Tied(tie=False), 1)
    save_weights(a, path)
    assert "readout.weight" not in load_file(path)
    load_weights(b, path)
    assert torch.equal(b.readout.weight, a.embed.weight)


def test_untied_values_do_not_fit_a_tied_network(path: Path) -> None:
    save_weights(initialised(lambda: Tied(tie=False), 0), path)
    with pytest.raises(CheckpointError, match=r"embed.weight and readout.weight are one tied weight"):
        load_weights(Tied(), path)


def test_a_file_of_another_program_loads_where_it_fits(path: Path, tmp_path: Path) -> None:
    a, b = initialised(lambda: MLP((4, 3, 2)), 0), initialised(lambda: MLP((4, 3, 2)), 1)
    save_file(a.state_dict(), tmp_path / "other.safetensors")
    assert load_weights(b, tmp_path / "other.safetensors") == {}
    assert same(state(a), state(b))


def test_a_mismatch_lists_everything_and_changes_nothing(path: Path) -> None:
    save_weights(MLP((4, 3, 3, 2)), path)
    network = MLP((5, 3, 2))
    before = state(network)
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, path)
    message = str(caught.value)
    assert "in the file but not in the network: hidden.1.linear.bias, hidden.1.linear.weight" in message
    assert "hidden.0.linear.weight (file (3, 4), network (3, 5))" in message
    with pytest.raises(CheckpointError, match=r"2 missing from the file: hidden.2"):
        load_weights(MLP((4, 3, 3, 3, 2)), path)
    assert same(before, state(network))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_is_named_and_explained(path: Path, damage: str) -> None:
    save_weights(MLP((4, 3, 2)), path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "noise": b"\xff" * 64, "empty": b""}[damage])
    with pytest.raises(
        CheckpointError, match=r"weights.safetensors is not a readable safetensors file.*Restore a copy"
    ):
        load_weights(MLP((4, 3, 2)), path)


def test_a_missing_file_is_said_to_be_missing(path: Path) -> None:
    for suffix in (".safetensors", ".pt"):
        with pytest.raises(CheckpointError, match="there is no file"):
            load_weights(MLP((4, 2)), path.with_suffix(suffix))


def test_a_pt_file_loads_weights_only(tmp_path: Path) -> None:
    a, b = initialised(lambda: MLP((4, 2)), 0), initialised(lambda: MLP((4, 2)), 1)
    torch.save(a.state_dict(), tmp_path / "a.pt")
    load_weights(b, tmp_path / "a.pt")
    assert same(state(a), state(b))


def test_a_pt_file_that_needs_unpickling_is_refused(tmp_path: Path) -> None:
    torch.save(MLP((4, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="nothing is unpickled here"):
        load_weights(MLP((4, 2)), tmp_path / "a.pt")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="a mapping with epoch, model, not a state dict"):
        load_weights(MLP((4, 2)), tmp_path / "b.pt")


def test_a_full_disk_leaves_the_old_file_and_no_litter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = initialised(lambda: MLP((4, 2)), 0)
    save_weights(network, path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device. Free some space"):
        save_weights(initialised(lambda: MLP((4, 2)), 1), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"b": 1, "a": 2}
    for name in ("one", "two"):
        save_weights(initialised(lambda: MLP((4, 3, 2)), 0), tmp_path / name, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
