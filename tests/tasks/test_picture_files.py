"""Pictures from files: what is read is what was written, and files that are not what they should be are named."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from heldout.errors import ConfigError
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.digits import digits
from heldout.tasks.pictures import PicturesSettings, pictures

TRAIN, TEST = 20, 6  # pictures in the files


def idx(array: np.ndarray, magic: int) -> bytes:
    return magic.to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def mnist(folder: Path, *, packed: bool = False) -> dict[str, np.ndarray]:
    """Tiny files of MNIST; returns what they hold."""
    rng = np.random.default_rng(0)
    held = {}
    for part, n in (("train", TRAIN), ("t10k", TEST)):
        held[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 3, 4), dtype=np.uint8)
        held[f"{part}-labels-idx1-ubyte"] = np.arange(n, dtype=np.uint8) % 10
    for name, array in held.items():
        data = idx(array, 2048 + array.ndim)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return held


def cifar(folder: Path) -> np.ndarray:
    """Tiny files of CIFAR-10's binary version, four pictures each; returns the test file's records."""
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] = rng.integers(0, 10, 4)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return records


def content(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(split.items, Rectangular)
    assert split.items.targets is not None
    return split.items.inputs, split.items.targets


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_as_written(tmp_path: Path, packed: bool) -> None:
    held = mnist(tmp_path, packed=packed)
    found = pictures(PicturesSettings("mnist", str(tmp_path), 0.25, seed=3))
    assert {name: (split.role, len(split)) for name, split in found.items()} == {
        "train": ("fit", 15),
        "select": ("select", 5),
        "id": ("test", TEST),
    }
    inputs, targets = content(found["id"])
    assert inputs.shape == (TEST, 1, 3, 4)
    np.testing.assert_allclose(inputs[:, 0].numpy(), held["t10k-images-idx3-ubyte"] / 255, rtol=1e-7)
    np.testing.assert_array_equal(targets, held["t10k-labels-idx1-ubyte"])
    # Train and select are the training file, each picture with its own label and in one of the two.
    keys = np.concatenate([found[name].keys for name in ("train", "select")])
    assert sorted(keys) == list(range(TRAIN))
    for name in ("train", "select"):
        inputs, targets = content(found[name])
        np.testing.assert_allclose(inputs[:, 0], held["train-images-idx3-ubyte"][found[name].keys] / 255, rtol=1e-6)
        np.testing.assert_array_equal(targets, held["train-labels-idx1-ubyte"][found[name].keys])


def test_the_seed_draws_what_is_set_aside(tmp_path: Path) -> None:
    mnist(tmp_path)

    def aside(seed: int) -> list[int]:
        keys = pictures(PicturesSettings("mnist", str(tmp_path), 0.25, seed))["select"].keys
        assert keys is not None
        return sorted(keys)

    assert aside(0) == aside(0)
    assert any(aside(0) != aside(seed) for seed in range(1, 4))


def test_cifar_is_read_as_written(tmp_path: Path) -> None:
    records = cifar(tmp_path)
    found = pictures(PicturesSettings("cifar10", str(tmp_path), 0.2))
    assert {name: len(split) for name, split in found.items()} == {"train": 16, "select": 4, "id": 4}
    inputs, targets = content(found["id"])
    assert inputs.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(targets, records[:, 0])
    # Red, then green, then blue, each row by row.
    np.testing.assert_allclose(inputs[1, 2, 5, 7], records[1, 1 + 2 * 1024 + 5 * 32 + 7] / 255, rtol=1e-6)


def test_digits_need_no_file() -> None:
    found = pictures(PicturesSettings(select=0.25))
    known = digits()
    assert len(found["train"]) + len(found["select"]) == len(known["train"])
    inputs, targets = content(found["id"])
    assert sorted(set(targets.tolist())) == list(range(10))
    assert len(targets) == 1797 - len(known["train"])
    first, labels = content(known["id_select"])
    assert torch.equal(inputs[: len(first)], first)
    assert torch.equal(targets[: len(labels)], labels)


def replaced(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def cut(name: str, by: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) - by])

    return change


def packed_and_cut(folder: Path) -> None:
    data = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).write_bytes(data[: len(data) // 2])


def packed_and_damaged(folder: Path) -> None:
    data = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    data[-6] ^= 0xFF  # of the checksum
    (folder / IMAGES).write_bytes(bytes(data))


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
PAGE = b"\n<!DOCTYPE html><html><body>404</body></html>"
PICKLED = pickle.dumps({b"data": [0] * 3072}, protocol=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing(LABELS), "t10k-labels-idx1-ubyte .* is missing in .*; there: t10k-images-idx3-ubyte"),
        (cut(IMAGES, 5), "train-images-idx3-ubyte has 235 bytes behind its header, which says 20 x 3 x 4"),
        (replaced(IMAGES, idx(np.zeros((20, 3, 4), np.uint8), 2051) + b"\0"), "241 bytes behind its header"),
        (cut(IMAGES, 250), "cut short: 6 bytes"),
        (replaced(IMAGES, b""), "cut short: 0 bytes"),
        (replaced(IMAGES, idx(np.zeros((0, 3, 4), np.uint8), 2051)), "at least one item"),
        (replaced(IMAGES, idx(np.zeros(20, np.uint8), 2049)), "holds labels .*pictures in IDX format begin with 2051"),
        (replaced(LABELS, idx(np.zeros((6, 1, 1), np.uint8), 2051)), "holds pictures .*labels in IDX .* with 2049"),
        (replaced(LABELS, b"\1\2\3\4" * 8), "no IDX file of bytes .magic number 16909060"),
        (replaced(LABELS, idx(np.zeros(5, np.uint8), 2049)), "holds 6 pictures, but t10k-labels-idx1-ubyte 5 labels"),
        (replaced(LABELS, idx(np.full(6, 10, np.uint8), 2049)), "picture 1 has label 10; labels go from 0 to 9"),
        (replaced("t10k-images-idx3-ubyte", idx(np.zeros((6, 2, 2), np.uint8), 2051)), "must have one size"),
        (replaced(IMAGES, PAGE), "a web page"),
        (replaced(IMAGES, gzip.compress(PAGE)), "a web page"),
        (packed_and_cut, "train-images-idx3-ubyte is cut short: its gzip stream"),
        (packed_and_damaged, "train-images-idx3-ubyte cannot be read"),
    ],
)
def test_bad_files_of_mnist_are_named(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    mnist(tmp_path)
    change(tmp_path)
    with pytest.raises(ConfigError, match=words):
        pictures(PicturesSettings("mnist", str(tmp_path)))


def renamed(folder: Path) -> None:
    """As the Python version unpacks: names without an ending."""
    (folder / "data_batch_3.bin").unlink()
    (folder / "data_batch_3").write_bytes(PICKLED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing("data_batch_4.bin"), "data_batch_4.bin is missing"),
        (missing("test_batch.bin"), "test_batch.bin is missing"),
        (cut("data_batch_2.bin", 1), "data_batch_2.bin has 12291 bytes, which is no number of pictures"),
        (replaced("test_batch.bin", b""), "test_batch.bin has 0 bytes"),
        (replaced("test_batch.bin", b"\x0b" * 3073), "picture 1 has label 11"),
        (replaced("data_batch_1.bin", PAGE), "a web page"),
        (replaced("data_batch_1.bin", PICKLED), "pickled and never read here; get the binary version"),
        (renamed, "data_batch_3 is of CIFAR-10's Python version, .* binary version .cifar-10-binary.tar.gz"),
    ],
)
def test_bad_files_of_cifar_are_named(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    cifar(tmp_path)
    change(tmp_path)
    with pytest.raises(ConfigError, match=words):
        pictures(PicturesSettings("cifar10", str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "cifar"}, "unknown source 'cifar'"),
        ({"source": "mnist"}, "needs path"),
        ({"source": "digits", "path": "x"}, "leave path out"),
        ({"select": 1.0}, "select is a share"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PicturesSettings(**settings)  # type: ignore[arg-type]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not there; a folder is needed"):
        pictures(PicturesSettings("mnist", str(tmp_path / "none")))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; a folder is needed"):
        pictures(PicturesSettings("mnist", str(tmp_path / "file")))


def test_a_share_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    mnist(tmp_path)
    with pytest.raises(ConfigError, match="leaves 20 to train on and 0 to choose on"):
        pictures(PicturesSettings("mnist", str(tmp_path), 0.01))
