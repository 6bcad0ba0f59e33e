"""The splits of Dyck-(k, m): what each is, and drawing until there are enough sentences and enough scored brackets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from heldout.errors import ConfigError, SplitError, unknown
from heldout.tasks.base import Role, Split
from heldout.tasks.dyck.sentences import FAR, Sentences, Vocabulary
from heldout.tasks.dyck.walks import Walks
from heldout.tasks.ragged import Ragged

Sense = Literal["sentence", "component"]
SENSES: tuple[Sense, ...] = ("sentence", "component")

SHORT = 32  # where ``unseen_structure_short`` ends and ``unseen_structure_long`` begins, in tokens
DISTANCES = (FAR, 16, 32, 64, 128)  # lower ends of the classes of the stratum ``distance``
_CHUNK = 20_000  # sentences drawn at a time
_PATIENCE = 2_000_000  # a split that would need more draws than this is given up

Accept = Callable[[Sentences], np.ndarray]


@dataclass(frozen=True)
class DyckSettings:
    """Settings of the task.

    - `brackets` (k) types, at most `depth` (m) deep; `deeper` (m') is the depth of the language that ``unseen_depth``
      is drawn from.
    - `cap`: the longest sentence in tokens, in every split.
    - `train`: sentences to train on. Every other split is drawn until it has at least `sentences` sentences *and*
      `scored` scored brackets.
    - `structure`: what makes a structure seen: that of the whole ``sentence`` occurs in train, or that of each of its
      top-level components does (``component``).
    """

    brackets: int = 20
    depth: int = 10
    deeper: int = 20
    cap: int = 512
    train: int = 200_000
    sentences: int = 2_000
    scored: int = 5_000
    structure: Sense = "sentence"

    def __post_init__(self) -> None:
        if self.structure not in SENSES:
            raise ConfigError(f"dyck: {unknown('structure', str(self.structure), SENSES)}")
        for name in ("brackets", "depth", "train", "sentences"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dyck: {name} must be at least 1, got {getattr(self, name)}")
        if self.scored < 0:
            raise ConfigError(f"dyck: scored must be at least 0, got {self.scored}")
        if self.deeper < self.depth + 2:
            raise ConfigError(
                f"dyck: deeper (m') must be at least depth + 2 = {self.depth + 2}, got {self.deeper}: only brackets "
                f"whose pair is {FAR} or more tokens apart are scored, and a pair at the deepest level closes at once, "
                f"so none at a depth beyond {self.depth} would ever be scored"
            )


class Dyck:
    """The task: `settings`, `vocabulary`, and `splits` by name.

    ==============================  ======  ==================================================================
    ``train``                       fit     one fixed sample; training seeds vary initialisation and order only
    ``id_select``, ``id``           select, two halves of a fresh sample
                                    test
    ``seen_structure``              test    the structure occurs in train
    ``unseen_structure_short``      test    it does not, at most 32 tokens
    ``unseen_structure_long``       test    it does not, more than 32 tokens
    ``unseen_depth``                test    deeper than m, from the language of depth m'
    ``unseen_depth_length_matched`` test    at most m deep, unseen structure, lengths as in ``unseen_depth``
    ==============================  ======  ==================================================================

    No sentence is in two splits, and none twice in a split other than ``train``. An item's inputs are BOS and its
    tokens, its targets its tokens and END, and the loss covers all of them. Scored are the closing brackets at least
    ten tokens after their opening one, read where the token before them stands, restricted to `closers`. Strata of a
    scored position: ``query_depth``, the bracket's depth (its opening one's), and ``distance``, the lower end of its
    class (10, 16, 32, 64, 128 tokens); both are 0 elsewhere. The unit of resampling is the sentence.
    """

    def __init__(self, settings: DyckSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self.vocabulary = Vocabulary(settings.brackets)
        self.splits: dict[str, Split] = {}
        self._sentences: dict[str, Sentences] = {}
        self._rates: dict[str, float] = {}
        self._stream = 0
        self._units = 0

        here = Walks(settings.depth, settings.cap)
        draw = self._rng()
        train = Sentences.draw(here.draw(here.draw_lengths(settings.train, draw), draw), self.vocabulary, draw)
        self._trained = self._taken = np.unique(train.keys())
        structures = Structures(train, settings.structure)
        seen, kind = structures.seen, f"{settings.structure} structure"
        self._add("train", "fit", train, "one fixed sample of the language", 1.0)

        both, rate = self._draw("id", here, lambda s: np.ones(len(s), dtype=bool), times=2)
        half = len(both) // 2
        note = "fresh sample of the same language, no sentence of train"
        self._add("id_select", "select", both.take(np.arange(half)), f"{note}; the half that chooses", rate)
        self._add("id", "test", both.take(np.arange(half, len(both))), f"{note}; the half that judges", rate)
        wanted: list[tuple[str, str, Accept]] = [
            ("seen_structure", f"{kind} seen in train", seen),
            (
                "unseen_structure_short",
                f"{kind} not seen in train, at most {SHORT} tokens",
                lambda s: ~seen(s) & (s.lengths <= SHORT),
            ),
            (
                "unseen_structure_long",
                f"{kind} not seen in train, more than {SHORT} tokens",
                lambda s: ~seen(s) & (s.lengths > SHORT),
            ),
        ]
        for name, note, accept in wanted:
            self._add(name, "test", *self._noted(note, self._draw(name, here, accept)))
        there = Walks(settings.deeper, settings.cap)
        deep = self._draw("unseen_depth", there, lambda s: s.depths > settings.depth)
        note = f"deeper than {settings.depth}, from the language of depth {settings.deeper}"
        self._add("unseen_depth", "test", *self._noted(note, deep))
        matched = self._draw_lengths("unseen_depth_length_matched", here, deep[0].lengths, lambda s: ~seen(s))
        note = f"{kind} not seen in train, at most {settings.depth} deep, lengths those of unseen_depth"
        self._add("unseen_depth_length_matched", "test", *self._noted(note, matched))

    @property
    def closers(self) -> slice:
        """The token ids that a scored prediction is restricted to."""
        return self.vocabulary.closers

    def decode(self, tokens: Iterable[int]) -> str:
        """A sentence to read; see `Vocabulary.decode`."""
        return self.vocabulary.decode(tokens)

    def composition(self) -> list[dict[str, Any]]:
        """One row a split: what it is made of.

        `accepted` is the share of drawn sentences that meet the split's definition and are not in train, before
        sentences that an earlier split took are left out.
        `scored_deep` is the share of scored brackets that are themselves deeper than m.
        """
        rows = []
        for name, s in self._sentences.items():
            far = s.far
            depths, counts = np.unique(s.depths, return_counts=True)
            rows.append(
                {
                    "split": name,
                    "role": self.splits[name].role,
                    "note": self.splits[name].note,
                    "sentences": len(s),
                    "scored": int(far.sum()),
                    "scored_deep": float((s.walks.levels[far] > self.settings.depth).mean()) if far.any() else 0.0,
                    "mean_length": float(s.lengths.mean()),
                    "median_length": float(np.median(s.lengths)),
                    "depths": {int(d): int(n) for d, n in zip(depths, counts, strict=True)},
                    "accepted": self._rates[name],
                }
            )
        return rows

    def _rng(self) -> np.random.Generator:
        """A generator for the next draw; the data of one split do not depend on how much another took."""
        self._stream += 1
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, self._stream)))

    @staticmethod
    def _noted(note: str, drawn: tuple[Sentences, float]) -> tuple[Sentences, str, float]:
        return drawn[0], note, drawn[1]

    def _add(self, name: str, role: Role, sentences: Sentences, note: str, rate: float) -> None:
        keys, units = np.unique(sentences.keys(), return_inverse=True)
        self.splits[name] = Split(
            name=name,
            role=role,
            items=items(sentences, self.vocabulary),
            note=f"{note}; at most {self.settings.cap} tokens",
            keys=keys[units],
            units=self._units + units.astype(np.int64),
        )
        self._units += len(keys)
        self._sentences[name], self._rates[name] = sentences, rate

    def _new(self, sentences: Sentences, accepted: np.ndarray) -> np.ndarray:
        """The numbers of accepted sentences that are in no split yet, each once; from now on they are."""
        keys = sentences.keys()
        first = np.unique(keys, return_index=True)[1]
        fresh = accepted & np.isin(np.arange(len(keys)), first) & ~_within(keys, self._taken)
        return np.flatnonzero(fresh)

    def _take(self, sentences: Sentences, index: np.ndarray) -> Sentences:
        taken = sentences.take(index)
        self._taken = np.union1d(self._taken, taken.keys())
        return taken

    def _draw(self, name: str, walks: Walks, accept: Accept, *, times: int = 1) -> tuple[Sentences, float]:
        """Enough accepted sentences for `times` splits, and the share accepted."""
        rng, s = self._rng(), self.settings
        parts: list[Sentences] = []
        drawn = accepted = have = scored = 0
        while have < times * s.sentences or scored < times * s.scored:
            share = min(have / (times * s.sentences), scored / (times * s.scored) if s.scored else 1.0)
            if drawn >= 10 * _CHUNK and drawn > share * _PATIENCE:
                raise SplitError(
                    f"dyck: split {name!r} cannot be drawn: of {drawn} sentences of at most {s.cap} tokens and depth "
                    f"{walks.depth}, {accepted} ({accepted / drawn:.2%}) meet its definition, which gives {have} new "
                    f"sentences with {scored} scored brackets; wanted are {times * s.sentences} and "
                    f"{times * s.scored}. Ask for fewer (sentences, scored), raise cap, or change train"
                )
            chunk = Sentences.draw(walks.draw(walks.draw_lengths(_CHUNK, rng), rng), self.vocabulary, rng)
            meets = accept(chunk) & ~_within(chunk.keys(), self._trained)
            drawn, accepted = drawn + len(chunk), accepted + int(meets.sum())
            new = self._new(chunk, meets)
            totals = scored + np.cumsum(chunk.scored()[new])
            enough = (have + 1 + np.arange(len(new)) >= times * s.sentences) & (totals >= times * s.scored)
            if enough.any():
                new = new[: int(np.argmax(enough)) + 1]
            if len(new):
                parts.append(self._take(chunk, new))
                have, scored = have + len(new), int(totals[len(new) - 1])
        return Sentences.join(parts), accepted / drawn

    def _draw_lengths(self, name: str, walks: Walks, lengths: np.ndarray, accept: Accept) -> tuple[Sentences, float]:
        """One accepted sentence of each of `lengths`, and the share accepted."""
        rng = self._rng()
        parts: list[Sentences] = []
        drawn = accepted = 0
        while len(lengths):
            if drawn >= _PATIENCE:
                raise SplitError(
                    f"dyck: split {name!r} cannot be drawn: of {drawn} sentences of the wanted lengths {accepted} "
                    f"({accepted / drawn:.2%}) meet its definition, and {len(lengths)} lengths (shortest "
                    f"{lengths.min()}) are still without one. Raise depth, or lower train"
                )
            chunk = Sentences.draw(walks.draw(lengths, rng), self.vocabulary, rng)
            meets = accept(chunk) & ~_within(chunk.keys(), self._trained)
            drawn, accepted = drawn + len(chunk), accepted + int(meets.sum())
            new = self._new(chunk, meets)
            if len(new):
                parts.append(self._take(chunk, new))
            lengths = np.delete(lengths, new)
        return Sentences.join(parts), accepted / drawn


class Structures:
    """The structures that occur in `sentences`, in one of two senses; see `DyckSettings.structure`."""

    def __init__(self, sentences: Sentences, sense: Sense) -> None:
        self.sense = sense
        self.known = np.unique(sentences.structures() if sense == "sentence" else sentences.components()[0])

    def seen(self, sentences: Sentences) -> np.ndarray:
        """(N,) bool, whether each sentence's structure is among them."""
        if self.sense == "sentence":
            return _within(sentences.structures(), self.known)
        structures, begins = sentences.components()
        return np.logical_and.reduceat(_within(structures, self.known), begins)


def items(sentences: Sentences, vocabulary: Vocabulary) -> Ragged:
    """Sentences as items: BOS in front of the inputs, END behind the targets, strata of the scored brackets."""
    ends = sentences.walks.offsets[1:]
    begins = sentences.walks.offsets[:-1]

    def with_end(flat: np.ndarray, value: int) -> np.ndarray:
        return np.insert(flat, ends, value)

    far = sentences.far
    classes = np.array((0, *DISTANCES))[np.digitize(sentences.distances, DISTANCES)]
    return Ragged(
        np.insert(sentences.tokens, begins, vocabulary.bos),
        with_end(sentences.tokens, vocabulary.end),
        offsets=sentences.walks.offsets + np.arange(len(sentences) + 1),
        pad=vocabulary.pad,
        scored=with_end(far, False),
        strata={
            "query_depth": with_end(np.where(far, sentences.walks.levels, 0).astype(np.int16), 0),
            "distance": with_end(np.where(far, classes, 0).astype(np.int16), 0),
        },
    )


def _within(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) bool, which of `values` are in `known`, which is sorted and not empty."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    within: np.ndarray = known[at] == values
    return within
