"""Pictures of ten classes from files on disk: MNIST (IDX files), CIFAR-10 (its binary version); or scikit-learn's digits.

    splits = pictures(PicturesSettings("mnist", "data/mnist"))

Nothing is fetched and nothing is unpickled. Any ten classes in the files of MNIST are read alike (Fashion-MNIST, KMNIST).
What the files say of themselves is checked: magic numbers, counts, sizes, labels. Pictures are told apart by their places
in the files, so that a copy of a training picture among the test pictures is not found; CIFAR-10 is known to hold some.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from heldout.errors import ConfigError, unknown
from heldout.tasks.base import Rectangular, Split, check_disjoint
from heldout.tasks.digits import digits
from heldout.tasks.rows import random_parts

Source = Literal["digits", "mnist", "cifar10"]
SOURCES: tuple[Source, ...] = get_args(Source)
CLASSES = 10

CIFAR_SHAPE = (3, 32, 32)
BATCHES = 5  # training files of CIFAR-10
UNSEEN = ("id_select", "id", "unseen_classes")  # of `digits`: together the half of the images that trains nothing
IMAGES, LABELS = 3, 1  # dimensions of an IDX file
HOLDS = {IMAGES: "pictures", LABELS: "labels"}
GZIP = b"\x1f\x8b"
PAGES = (b"<!doctype", b"<html", b"<?xml")  # what a download that failed leaves in place of data
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
LARGEST = 2**30  # bytes of a file, unpacked


@dataclass(frozen=True)
class PicturesSettings:
    """- `source`: ``digits`` (needs no file), ``mnist`` or ``cifar10``.
    - `path`: the folder of the files. MNIST: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same with
      ``t10k``, gzipped (``.gz``) or not. CIFAR-10: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.
    - `select`: share of the training pictures set aside to choose on; `seed` draws them.
    """

    source: Source = "digits"
    path: str = ""
    select: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"pictures: {unknown('source', str(self.source), SOURCES)}")
        if self.source == "digits" and self.path:
            raise ConfigError(
                f"pictures: digits come with scikit-learn and are in no file; leave path out (got {self.path!r}), or give "
                "source mnist or cifar10"
            )
        if self.source != "digits" and not self.path:
            raise ConfigError(f"pictures: source {self.source} needs path, the folder of its files")
        if not 0 < self.select < 1:
            raise ConfigError(f"pictures: select is a share between 0 and 1, got {self.select}")


@dataclass(frozen=True, eq=False)
class Pictures:
    """`inputs` (N, C, H, W) float32 from 0 to 1, `targets` (N,) int64 from 0 to 9, `keys` (N,) int64."""

    inputs: Tensor
    targets: Tensor
    keys: np.ndarray

    def split(self, name: str, role: Literal["fit", "select", "test"], index: np.ndarray, note: str) -> Split:
        at = torch.from_numpy(index)
        items = Rectangular(self.inputs[at], self.targets[at])
        return Split(name, role, items, note, keys=self.keys[index], units=self.keys[index])


def pictures(settings: PicturesSettings | None = None) -> dict[str, Split]:
    """The splits by name. Raises `ConfigError`, which names the file, where one is missing or not what it should be.

    ==========  ======  ===================================================================================
    ``train``   fit     training pictures
    ``select``  select  training pictures set aside
    ``id``      test    the test file; of digits the half of the images that the task `digits` does not train on
    ==========  ======  ===================================================================================
    """
    s = settings or PicturesSettings()
    if s.source == "digits":
        training, test = _digits()
    else:
        folder = Path(s.path)
        if not folder.is_dir():
            raise ConfigError(
                f"pictures: {folder} is {'a file' if folder.exists() else 'not there'}; a folder is needed"
            )
        training, test = _mnist(folder) if s.source == "mnist" else _cifar10(folder)
    part = random_parts(training.keys, (1 - s.select,), s.seed)
    train, select = (np.flatnonzero(part == number) for number in (0, 1))
    if not (len(train) and len(select)):
        raise ConfigError(
            f"pictures: a share of {s.select} of {len(part)} training pictures leaves {len(train)} to train on and "
            f"{len(select)} to choose on; both need one"
        )
    splits = [
        training.split("train", "fit", train, "training pictures"),
        training.split("select", "select", select, "training pictures set aside to choose on"),
        test.split("id", "test", np.arange(len(test.keys)), "held-out pictures"),
    ]
    check_disjoint(splits)
    return {each.name: each for each in splits}


def _digits() -> tuple[Pictures, Pictures]:
    known = digits()

    def together(names: Sequence[str]) -> Pictures:
        batches = [known[name].items.take(np.arange(len(known[name]))) for name in names]
        targets = torch.cat([b.targets for b in batches if b.targets is not None])
        return Pictures(
            torch.cat([b.inputs for b in batches]), targets, np.concatenate([_keys(known[n]) for n in names])
        )

    return together(["train"]), together(UNSEEN)


def _keys(split: Split) -> np.ndarray:
    assert split.keys is not None
    return split.keys


# -- MNIST ------------------------------------------------------------------------------------------------------------


def _mnist(folder: Path) -> tuple[Pictures, Pictures]:
    """IDX files (http://yann.lecun.com/exdb/mnist): magic 2048 + dimensions, each dimension's size (big-endian), bytes."""
    found = []
    for part in ("train", "t10k"):
        where = [_existing(folder, f"{part}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        images, labels = _idx(where[0], IMAGES), _idx(where[1], LABELS)
        if len(images) != len(labels):
            raise ConfigError(f"{where[0]} holds {len(images)} pictures, but {where[1].name} {len(labels)} labels")
        _check_labels(labels, where[1])
        found.append((images[:, None], labels))
    return _both(found, folder)


def _existing(folder: Path, name: str) -> Path:
    """The file of this name, as it is or gzipped; a dot may stand for the last hyphen but one, as some copies have it."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    for path in (folder / each for each in names):
        if path.is_file():
            return path
    raise ConfigError(f"pictures: {name} (or {name}.gz) is missing in {folder}; there: {_there(folder)}")


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file of bytes with this many dimensions."""
    data = _read(path)
    start, magic = 4 + 4 * dimensions, int.from_bytes(data[:4], "big")
    wanted = {d: 2048 + d for d in HOLDS}
    if len(data) < start or magic != wanted[dimensions]:
        said = f"holds {HOLDS[magic - 2048]}" if magic in wanted.values() else "is no IDX file of bytes"
        what = f"is cut short: {len(data)} bytes" if len(data) < start else f"{said} (magic number {magic})"
        raise ConfigError(f"{path} {what}; {HOLDS[dimensions]} in IDX format begin with {wanted[dimensions]}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) != start + math.prod(shape) or 0 in shape:
        words = " x ".join(map(str, shape))
        raise ConfigError(
            f"{path} has {len(data) - start} bytes behind its header, which says {words}; "
            f"{'a file of at least one item is needed' if 0 in shape else 'it is cut short or damaged: get it again'}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


# -- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def _cifar10(folder: Path) -> tuple[Pictures, Pictures]:
    """The binary version (https://www.cs.toronto.edu/~kriz/cifar.html): a byte of label, then 3 x 32 x 32 of pixels."""
    training = [_records(folder, f"data_batch_{number}") for number in range(1, BATCHES + 1)]
    joined = tuple(np.concatenate(parts) for parts in zip(*training, strict=True))
    return _both([(joined[0], joined[1]), _records(folder, "test_batch")], folder)


def _records(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3, 32, 32) and labels (N,) of one file."""
    path, size = folder / f"{name}.bin", 1 + math.prod(CIFAR_SHAPE)
    if not path.is_file():
        if (folder / name).is_file():
            raise ConfigError(_pickled(folder / name))
        raise ConfigError(f"pictures: {path.name} is missing in {folder}; there: {_there(folder)}")
    data = _read(path)
    if data.startswith(PICKLES):
        raise ConfigError(_pickled(path))
    if not data or len(data) % size:
        raise ConfigError(
            f"{path} has {len(data)} bytes, which is no number of pictures of {size} bytes each (a label and 3 x 32 x 32 "
            "pixels); it is cut short or no file of CIFAR-10's binary version"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels = records[:, 0]
    _check_labels(labels, path)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), labels


def _pickled(path: Path) -> str:
    return (
        f"{path} is of CIFAR-10's Python version, which is pickled and never read here; get the binary version "
        "(cifar-10-binary.tar.gz), with data_batch_1.bin to data_batch_5.bin and test_batch.bin"
    )


# -- both -------------------------------------------------------------------------------------------------------------


def _both(found: Sequence[tuple[np.ndarray, np.ndarray]], folder: Path) -> tuple[Pictures, Pictures]:
    """Pixels (N, C, H, W) and labels of training and test files as pictures, numbered through."""
    (train, _), (test, _) = found
    if train.shape[1:] != test.shape[1:]:
        raise ConfigError(
            f"pictures: in {folder} training pictures are {train.shape[1:]} and test pictures {test.shape[1:]}; they must "
            "have one size"
        )
    numbers = np.split(np.arange(len(train) + len(test)), [len(train)])
    made = [
        Pictures(torch.from_numpy(pixels.astype(np.float32)) / 255, torch.from_numpy(labels.astype(np.int64)), keys)
        for (pixels, labels), keys in zip(found, numbers, strict=True)
    ]
    return made[0], made[1]


def _read(path: Path) -> bytes:
    """A file's bytes, unpacked where it is gzipped."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            data: bytes = file.read(LARGEST + 1)
    except EOFError as error:
        raise ConfigError(f"{path} is cut short: its gzip stream ends in the middle; get it again") from error
    except (OSError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if len(data) > LARGEST:
        raise ConfigError(
            f"{path} is larger than {LARGEST // 2**20} MiB unpacked, which no file of MNIST or CIFAR-10 is"
        )
    if data[:512].lstrip().lower().startswith(PAGES):
        raise ConfigError(f"{path} is a web page and no data: what came in place of a download. Get the file again")
    return data


def _check_labels(labels: np.ndarray, path: Path) -> None:
    if labels.max() >= CLASSES:
        at = int(np.argmax(labels >= CLASSES))
        raise ConfigError(f"{path}: picture {at + 1} has label {labels[at]}; labels go from 0 to {CLASSES - 1}")


def _there(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return (", ".join(names[:8]) + (" ..." if len(names) > 8 else "")) or "nothing"
