"""The splits of the `sequences` task: sequences of tokens, several binary features of them, answered one after another."""

from __future__ import annotations

import numpy as np
import torch

from heldout.errors import SplitError
from heldout.tasks.base import Rectangular, Role, Split
from heldout.tasks.features.sampling import independent
from heldout.tasks.sequences.settings import SequencesSettings

START = 2  # the token that a decoder begins with; labels are 0 and 1
_STREAMS = ("train", "val", "test")  # positions are spawn keys: append only
_TRIES = 200


class Sequences:
    """The task: `settings`, feature `names`, and `splits` by name.

    =========  ====  ===================================================
    ``train``  fit   to train on
    ``val``    fit   fresh sequences: readings are fitted here
    ``test``   test  fresh sequences: readings are tested here
    =========  ====  ===================================================

    Inputs are two tensors: the sequence (B, length) int64, and what the decoder is given (B, F) int64, `START` and then the
    labels of the places before. Targets are (B, F) int64, the labels in the order in which they are answered. Strata are
    every feature's value, by its name. Features are balanced and independent; no sequence is in two splits, however its
    stretches are arranged. The unit of resampling is the sequence.

    `seed` draws the data and nothing else. Two tasks that differ in `order` alone have the same sequences.
    """

    def __init__(self, settings: SequencesSettings, seed: int = 0) -> None:
        self.settings, self.seed, self.names = settings, seed, settings.names
        self.values: dict[str, np.ndarray] = {}
        self.splits: dict[str, Split] = {}
        self._found = settings.found()
        self._taken = np.empty(0, dtype=np.int64)
        for name in _STREAMS:
            note = "the sequences to train on" if name == "train" else "fresh sequences of the same distribution"
            self._add(name, "test" if name == "test" else "fit", getattr(settings, name), note)

    def _add(self, name: str, role: Role, n: int, note: str) -> None:
        s = self.settings
        draw = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, _STREAMS.index(name))))
        values = independent(n, [2] * len(self._found), draw)
        stretches = self._draw_new(values, draw, name)  # (n, F, stretch)
        keys = self._keys(stretches)
        unit = np.unique(keys, return_inverse=True)[1].astype(np.int64) + len(self._taken)
        self._taken = np.concatenate((self._taken, np.unique(keys)))
        tokens = stretches + np.arange(len(self._found))[:, None] * s.alphabet
        if s.arrangement == "moved":
            tokens = np.take_along_axis(tokens, draw.random((n, len(self._found))).argsort(1)[:, :, None], axis=1)
        labels = torch.from_numpy(values[:, list(s.answered)])
        given = torch.cat((torch.full((n, 1), START), labels[:, :-1]), dim=1)
        items = Rectangular(
            (torch.from_numpy(tokens.reshape(n, s.length)), given),
            labels,
            strata={f: torch.from_numpy(values[:, i]) for i, f in enumerate(self.names)},
        )
        self.values[name] = values
        self.splits[name] = Split(name, role, items, note, keys=keys, units=unit)

    def _draw_new(self, values: np.ndarray, draw: np.random.Generator, name: str) -> np.ndarray:
        """(N, F, stretch) int64: uniform among sequences that have these values and are in no split so far."""
        stretches = self._draw(values, draw)
        for _ in range(_TRIES):
            again = np.flatnonzero(np.isin(self._keys(stretches), self._taken))
            if not len(again):
                return stretches
            stretches[again] = self._draw(values[again], draw)
        raise SplitError(
            f"sequences: split {name!r} cannot be drawn without sequences of an earlier split; {len(again)} of "
            f"{len(values)} find no free place. Give longer stretches or a larger alphabet, or ask for fewer rows"
        )

    def _draw(self, values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return np.stack([f.draw(values[:, i], draw) for i, f in enumerate(self._found)], axis=1)

    def _keys(self, stretches: np.ndarray) -> np.ndarray:
        """(N,) int64, what stands in all stretches as one number; where they stand does not matter."""
        s, keys = self.settings, np.zeros(len(stretches), dtype=np.int64)
        for i, f in enumerate(self._found):
            keys = keys * s.alphabet**s.stretch + f.codes(stretches[:, i])
        return keys
