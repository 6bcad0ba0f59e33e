"""The character vocabulary: tab, newline and printable ASCII, and three marks. T is the number of positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

CHARACTERS = "\t\n" + "".join(map(chr, range(32, 127)))
BOS, UNK, PAD = (len(CHARACTERS) + i for i in range(3))
SIZE = len(CHARACTERS) + 3

_IDS = np.full(128, UNK, dtype=np.uint8)
_IDS[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))


def encode(text: str) -> np.ndarray:
    """(T,) uint8, one token a character; UNK for every character outside the vocabulary."""
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    return np.where(points < 128, _IDS[np.minimum(points, 127)], np.uint8(UNK))


def decode(tokens: ArrayLike) -> str:
    """The text of some tokens: BOS and PAD are left out, UNK is U+FFFD."""
    marks = {BOS: "", PAD: "", UNK: "\ufffd"}
    return "".join(marks.get(int(t), CHARACTERS[int(t)] if int(t) < BOS else "") for t in np.ravel(np.asarray(tokens)))


def shifted(targets: np.ndarray) -> np.ndarray:
    """What a network reads to predict `targets` (..., T): BOS first, then all targets but the last."""
    first = np.full((*targets.shape[:-1], 1), BOS, dtype=targets.dtype)
    return np.concatenate([first, targets[..., :-1]], axis=-1)
