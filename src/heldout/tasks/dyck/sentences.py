"""Sentences: walks whose brackets have types, their identity, and which of their brackets are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

import numpy as np
from torch import Tensor

from heldout.errors import ConfigError
from heldout.tasks.dyck.walks import Drawn

FAR = 10  # a closing bracket is scored when its opening one is at least so many tokens back


@dataclass(frozen=True)
class Vocabulary:
    """Token ids for k types of bracket: opening 0 to k - 1, closing k to 2k - 1, then BOS, END and PAD."""

    brackets: int

    def __post_init__(self) -> None:
        if self.brackets < 1:
            raise ConfigError(f"dyck: brackets (k) must be at least 1, got {self.brackets}")

    @property
    def closers(self) -> slice:
        """The ids that a scored prediction is restricted to."""
        return slice(self.brackets, 2 * self.brackets)

    @property
    def bos(self) -> int:
        return 2 * self.brackets

    @property
    def end(self) -> int:
        return 2 * self.brackets + 1

    @property
    def pad(self) -> int:
        return 2 * self.brackets + 2

    def __len__(self) -> int:
        return 2 * self.brackets + 3

    def decode(self, tokens: Iterable[int]) -> str:
        """Readable: ``^ (a (b b) a) $``, with ^ for BOS and $ for END; padding is left out."""
        k = self.brackets
        names = list(ascii_lowercase) if k <= len(ascii_lowercase) else [str(i) for i in range(k)]
        words = [f"({n}" for n in names[:k]] + [f"{n})" for n in names[:k]] + ["^", "$"]
        return " ".join(words[int(t)] for t in tokens if int(t) != self.pad)


@dataclass(frozen=True, eq=False)
class Sentences:
    """N sentences laid end to end: `walks`, and `tokens` (total,) uint16 without BOS and END."""

    vocabulary: Vocabulary
    walks: Drawn
    tokens: np.ndarray

    @classmethod
    def draw(cls, walks: Drawn, vocabulary: Vocabulary, rng: np.random.Generator) -> Sentences:
        """Give every pair of brackets a type, uniformly and independently."""
        k = vocabulary.brackets
        types = rng.integers(k, size=len(walks.opens), dtype=np.uint16)
        begin = np.repeat(walks.offsets[:-1], np.diff(walks.offsets))
        return cls(vocabulary, walks, types[begin + walks.openers] + np.where(walks.opens, 0, k).astype(np.uint16))

    def __len__(self) -> int:
        return len(self.walks.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, in tokens, without BOS and END."""
        return np.diff(self.walks.offsets)

    @property
    def places(self) -> np.ndarray:
        """(total,) int64, each token's place in its sentence, from 0."""
        places: np.ndarray = np.arange(len(self.tokens)) - np.repeat(self.walks.offsets[:-1], self.lengths)
        return places

    @property
    def distances(self) -> np.ndarray:
        """(total,) int64, how many tokens back the pair began; 0 at opening brackets."""
        distances: np.ndarray = self.places - self.walks.openers
        return distances

    @property
    def far(self) -> np.ndarray:
        """(total,) bool, the closing brackets that are scored."""
        far: np.ndarray = self.distances >= FAR
        return far

    @property
    def depths(self) -> np.ndarray:
        """(N,) the deepest level of each sentence."""
        depths: np.ndarray = np.maximum.reduceat(self.walks.levels, self.walks.offsets[:-1])
        return depths

    def scored(self) -> np.ndarray:
        """(N,) int64, the number of scored brackets of each sentence."""
        return np.add.reduceat(self.far.astype(np.int64), self.walks.offsets[:-1])

    def keys(self) -> np.ndarray:
        """(N,) uint64, the identity of each sentence.

        The sum of one random 64-bit word for each (place, token): two different sentences share a key with
        probability 2^-64, so 300 000 of them have a collision with probability below 1e-8.
        """
        places = self.places
        words = _words(int(places.max()) + 1, 2 * self.vocabulary.brackets)[places, self.tokens]
        return np.add.reduceat(words, self.walks.offsets[:-1])

    def structures(self) -> np.ndarray:
        """(N,) uint64, the identity of each sentence's structure: its brackets without their types."""
        places = self.places
        words = _words(int(places.max()) + 1, 2)[places, self.walks.opens.astype(np.int64)]
        return np.add.reduceat(words, self.walks.offsets[:-1])

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """The structures of the top-level components (C,) uint64, and where each sentence's begin among them (N,)."""
        begins = np.flatnonzero(self.walks.opens & (self.walks.levels == 1))
        sizes = np.diff(begins, append=len(self.tokens))
        places = np.arange(len(self.tokens)) - np.repeat(begins, sizes)
        words = _words(int(places.max()) + 1, 2)[places, self.walks.opens.astype(np.int64)]
        return np.add.reduceat(words, begins), np.searchsorted(begins, self.walks.offsets[:-1])

    def take(self, index: np.ndarray) -> Sentences:
        """The sentences at `index` (B,)."""
        lengths = self.lengths[index]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        at = np.repeat(self.walks.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        w = self.walks
        walks = Drawn(offsets, w.opens[at], w.levels[at], w.openers[at])
        return Sentences(self.vocabulary, walks, self.tokens[at])

    @staticmethod
    def join(parts: Sequence[Sentences]) -> Sentences:
        """All sentences of `parts`, in order."""
        walks = [p.walks for p in parts]
        joined = Drawn(
            np.concatenate(([0], np.cumsum(np.concatenate([p.lengths for p in parts])))),
            np.concatenate([w.opens for w in walks]),
            np.concatenate([w.levels for w in walks]),
            np.concatenate([w.openers for w in walks]),
        )
        return Sentences(parts[0].vocabulary, joined, np.concatenate([p.tokens for p in parts]))


def levels(tokens: Tensor, brackets: int) -> Tensor:
    """(B, T) int64: each token's depth, 1 for an outermost bracket, the same for both of a pair; 0 for BOS and padding."""
    opens, closes = tokens < brackets, (tokens >= brackets) & (tokens < 2 * brackets)
    return (opens.long() - closes.long()).cumsum(1) + closes.long()


@lru_cache(maxsize=8)
def _words(places: int, symbols: int) -> np.ndarray:
    """(places, symbols) uint64 of fixed random words; a longer table begins with a shorter one."""
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(symbols,)))
    return rng.integers(2**64, size=(places, symbols), dtype=np.uint64)
