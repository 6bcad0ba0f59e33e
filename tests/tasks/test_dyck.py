"""The published statistics of Dyck-(20, 10), the exactness of the sampler, and the definition of every split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import check_disjoint
from heldout.tasks.dyck import Dyck, DyckSettings, Sentences, Vocabulary, Walks

SMALL = DyckSettings(train=10_000, sentences=200, scored=400, cap=256)


@cache
def small() -> Dyck:
    return Dyck(SMALL)


def sample(n: int, *, depth: int = 10, cap: int = 4_000, seed: int = 0) -> Sentences:
    rng = np.random.default_rng(seed)
    walks = Walks(depth, cap)
    return Sentences.draw(walks.draw(walks.draw_lengths(n, rng), rng), Vocabulary(20), rng)


def quantile(walks: Walks, q: float) -> int:
    return int(walks.lengths[np.searchsorted(np.cumsum(walks.probabilities), q)])


# --- the language ---------------------------------------------------------------------------------------------------


def test_the_length_distribution_has_the_known_moments() -> None:
    # Published by simulation of 200 000 sentences without a cap; here from the exact distribution.
    walks = Walks(10, 4_000)
    p, lengths = walks.probabilities, walks.lengths
    assert walks.dropped < 1e-9
    assert (lengths * p).sum() == pytest.approx(49.9, rel=0.02)
    assert quantile(walks, 0.5) == 14
    assert quantile(walks, 0.9) == pytest.approx(146, rel=0.02)
    assert quantile(walks, 0.99) == pytest.approx(374, rel=0.02)
    assert p[lengths <= 32].sum() == pytest.approx(0.659, rel=0.02)
    assert (lengths * p)[lengths > 512].sum() / (lengths * p).sum() == pytest.approx(0.028, rel=0.06)
    assert Walks(10, 512).dropped == pytest.approx(0.0023, rel=0.06)
    assert Walks(10, 512).dropped == pytest.approx(p[lengths > 512].sum())


def naive(depth: int, cap: int) -> dict[str, float]:
    """Every structure of at most `cap` tokens and its probability, token by token as the language is defined."""
    found: dict[str, float] = {}

    def go(word: str, level: int, p: float) -> None:
        if level == 0 and len(word) >= 4:
            found[word] = p / 2
        if len(word) == cap:
            return
        if level < depth:
            must = level == 0 and len(word) < 4
            go(word + "(", level + 1, p * (1 if must else 0.5))
        if level > 0:
            go(word + ")", level - 1, p * (1 if level == depth else 0.5))

    go("", 0, 1.0)
    return found


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_walks_have_the_probabilities_of_the_token_by_token_definition(depth: int) -> None:
    cap, n = 10, 60_000
    exact = naive(depth, cap)
    walks = Walks(depth, cap)
    assert walks.dropped == pytest.approx(1 - sum(exact.values()))
    for length, p in zip(walks.lengths, walks.probabilities, strict=True):
        share = sum(q for word, q in exact.items() if len(word) == length) / sum(exact.values())
        assert p == pytest.approx(share)
    sentences = sample(n, depth=depth, cap=cap)
    words = ["".join("(" if o else ")" for o in w) for w in split(sentences.walks.opens, sentences)]
    counts = Counter(words)
    assert set(counts) <= set(exact)
    expected = np.array([exact[w] for w in exact]) / sum(exact.values()) * n
    if len(exact) > 1:
        assert chisquare([counts[w] for w in exact], expected).pvalue > 0.001


def split(flat: np.ndarray, sentences: Sentences) -> Iterator[np.ndarray]:
    offsets = sentences.walks.offsets
    return (flat[a:b] for a, b in pairwise(offsets))


def test_sentences_are_well_nested_and_know_their_pairs() -> None:
    s = sample(300, cap=200)
    for tokens, levels, openers, depth in zip(
        split(s.tokens, s), split(s.walks.levels, s), split(s.walks.openers, s), s.depths, strict=True
    ):
        stack: list[int] = []
        deepest = 0
        for i, token in enumerate(tokens.tolist()):
            if token < 20:
                stack.append(i)
                deepest = max(deepest, len(stack))
                assert (levels[i], openers[i]) == (len(stack), i)
            else:
                assert (levels[i], openers[i]) == (len(stack), stack[-1])
                assert tokens[stack.pop()] == token - 20
        assert not stack
        assert deepest == depth <= 10


def check_statistics(n: int, depth_tolerance: float, closing_tolerance: float) -> None:
    s = sample(n)
    histogram = np.bincount(s.depths, minlength=11)[1:] / n
    published = [0.166, 0.208, 0.125, 0.084, 0.060, 0.044, 0.035, 0.029, 0.023, 0.227]
    np.testing.assert_allclose(histogram, published, atol=depth_tolerance)
    closing, levels = ~s.walks.opens, s.walks.levels
    share = np.bincount(levels[closing], minlength=11)[1:] / closing.sum()
    np.testing.assert_allclose(share, 0.1, atol=closing_tolerance)
    assert s.far[closing].mean() == pytest.approx(0.189, abs=closing_tolerance)
    far = [s.far[closing & (levels == d)].mean() for d in range(1, 11)]
    np.testing.assert_allclose(far, [0.245] * 6 + [0.227, 0.161, 0.032, 0.0], atol=2 * closing_tolerance)
    assert far[9] == 0
    types = np.bincount(s.tokens[s.walks.opens], minlength=20) / s.walks.opens.sum()
    np.testing.assert_allclose(types, 0.05, atol=closing_tolerance)


def test_statistics_of_a_small_sample() -> None:
    # Four standard errors: sqrt(.2 x .8 / 20 000) = .0028 for depths; closings come in sentences, hence the rest.
    check_statistics(20_000, 0.012, 0.01)


@pytest.mark.slow
def test_statistics_of_the_published_sample() -> None:
    check_statistics(200_000, 0.004, 0.003)
    s = sample(200_000)
    assert len(s.tokens) == pytest.approx(9.99e6, rel=0.02)
    assert len(np.unique(s.structures())) == pytest.approx(93_200, rel=0.02)


# --- the splits -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_splits_have_the_published_shapes() -> None:
    rows = {row["split"]: row for row in Dyck(DyckSettings()).composition()}
    published = {
        "id": (0.763, 63, 0.05),
        "seen_structure": (0.314, 10.5, 0.03),
        "unseen_structure_short": (0.105, 24.8, 0.02),
        "unseen_structure_long": (0.336, 121, 0.05),
        "unseen_depth": (0.157, 232, 0.05),
    }
    for name, (accepted, length, tolerance) in published.items():
        assert rows[name]["accepted"] == pytest.approx(accepted, rel=0.04), name
        assert rows[name]["mean_length"] == pytest.approx(length, rel=tolerance), name
        assert rows[name]["sentences"] >= 2_000
        assert rows[name]["scored"] >= 5_000
    per_sentence = {name: row["scored"] / row["sentences"] for name, row in rows.items()}
    assert per_sentence["seen_structure"] == pytest.approx(0.22, abs=0.03)
    assert per_sentence["unseen_structure_short"] == pytest.approx(1.97, abs=0.1)
    assert per_sentence["unseen_structure_long"] == pytest.approx(12.6, abs=0.8)
    assert per_sentence["unseen_depth"] == pytest.approx(27.5, abs=1.5)
    assert 0.33 < rows["unseen_depth"]["scored_deep"] < 0.37
    component = {row["split"]: row for row in Dyck(DyckSettings(structure="component")).composition()}
    unseen = sum(component[f"unseen_structure_{x}"]["accepted"] for x in ("short", "long"))
    assert unseen == pytest.approx(0.379, rel=0.03)
    assert component["unseen_structure_short"]["accepted"] / unseen == pytest.approx(0.118, rel=0.06)


def sentences_of(task: Dyck, name: str) -> list[tuple[int, ...]]:
    """The tokens of every sentence of a split, read back from its batches."""
    items = task.splits[name].items
    batch = items.take(np.arange(len(items)))
    assert batch.targets is not None
    end = task.vocabulary.end
    return [tuple(row[: row.index(end)]) for row in batch.targets.tolist()]


def structure(sentence: tuple[int, ...]) -> str:
    return "".join("(" if t < 20 else ")" for t in sentence)


def deepest(sentence: tuple[int, ...]) -> int:
    return int(np.cumsum([1 if t < 20 else -1 for t in sentence]).max())


def components(word: str) -> list[str]:
    levels = np.cumsum([1 if c == "(" else -1 for c in word])
    cuts = [0, *(np.flatnonzero(levels == 0) + 1)]
    return [word[a:b] for a, b in pairwise(cuts)]


def test_every_split_is_what_it_says() -> None:
    task = small()
    words = {name: sentences_of(task, name) for name in task.splits}
    seen = {structure(s) for s in words["train"]}
    assert all(structure(s) in seen for s in words["seen_structure"])
    for name in ("unseen_structure_short", "unseen_structure_long", "unseen_depth", "unseen_depth_length_matched"):
        assert not any(structure(s) in seen for s in words[name]), name
    assert max(map(len, words["unseen_structure_short"])) <= 32 < min(map(len, words["unseen_structure_long"]))
    assert {deepest(s) > 10 for s in words["unseen_depth"]} == {True}
    assert max(map(deepest, words["unseen_depth"])) > 12
    for name in set(words) - {"unseen_depth"}:
        assert max(map(deepest, words[name])) <= 10, name
    lengths = [sorted(map(len, words[name])) for name in ("unseen_depth", "unseen_depth_length_matched")]
    assert lengths[0] == lengths[1]
    everything = [s for name in words for s in set(words[name])]
    assert len(everything) == len(set(everything)), "a sentence is in two splits"
    assert all(len(set(words[name])) == len(words[name]) for name in set(words) - {"train"})
    assert max(map(len, everything)) <= 256


def test_structure_by_components() -> None:
    task = Dyck(DyckSettings(train=10_000, sentences=200, scored=0, cap=256, structure="component"))
    seen = {c for s in sentences_of(task, "train") for c in components(structure(s))}
    for name, wanted in (("seen_structure", True), ("unseen_structure_short", False), ("unseen_structure_long", False)):
        assert all(seen.issuperset(components(structure(s))) == wanted for s in sentences_of(task, name)), name
    assert "component structure" in task.splits["seen_structure"].note


def test_scored_positions_and_strata_by_a_stack() -> None:
    task = small()
    for name in ("id", "unseen_depth"):
        items = task.splits[name].items
        batch = items.take(np.arange(0, len(items), 7))
        assert batch.targets is not None
        assert batch.scored is not None
        assert batch.mask is not None
        inputs, targets = batch.inputs.numpy(), batch.targets.numpy()
        for b in range(len(batch)):
            stack: list[int] = []
            length = int(batch.mask[b].sum())
            assert inputs[b, 0] == 40
            assert targets[b, length - 1] == 41
            np.testing.assert_array_equal(inputs[b, 1:length], targets[b, : length - 1])
            assert (inputs[b, length:] == 42).all()
            for i in range(inputs.shape[1]):
                scored, depth, distance = False, 0, 0
                if i < length - 1:
                    if targets[b, i] < 20:
                        stack.append(i)
                    else:
                        depth = len(stack)
                        distance = i - stack.pop()
                        scored = distance >= 10
                assert bool(batch.scored[b, i]) == scored
                want = depth if scored else 0 if i < length else -1
                assert batch.strata["query_depth"][b, i] == want
                if scored:
                    assert batch.strata["distance"][b, i] == max(d for d in (10, 16, 32, 64, 128) if d <= distance)


def test_roles_notes_keys_and_units() -> None:
    task = small()
    splits = list(task.splits.values())
    check_disjoint(splits)
    assert {s.name: s.role for s in splits} == {
        "train": "fit",
        "id_select": "select",
        "id": "test",
        "seen_structure": "test",
        "unseen_structure_short": "test",
        "unseen_structure_long": "test",
        "unseen_depth": "test",
        "unseen_depth_length_matched": "test",
    }
    assert all("at most 256 tokens" in s.note for s in splits)
    units = [np.unique(s.unit_ids()) for s in splits]
    assert len(np.unique(np.concatenate(units))) == sum(map(len, units))
    assert all(len(np.unique(s.unit_ids())) == len(set(sentences_of(task, s.name))) for s in splits)


def test_there_are_enough_sentences_and_enough_scored_brackets() -> None:
    rows = {row["split"]: row for row in small().composition()}
    for name, row in rows.items():
        assert sum(row["depths"].values()) == row["sentences"]
        if name != "train":
            assert row["sentences"] >= 200, name
        if name not in {"train", "id", "id_select"}:
            assert row["scored"] >= 400, name
    assert rows["id"]["scored"] + rows["id_select"]["scored"] >= 800
    assert rows["seen_structure"]["sentences"] > 500, "short sentences have few scored brackets, so many are drawn"


def test_the_same_seed_gives_the_same_task_and_another_does_not() -> None:
    a, b, c = (Dyck(DyckSettings(train=2_000, sentences=50, scored=0), seed) for seed in (0, 0, 1))
    for name in a.splits:
        assert sentences_of(a, name) == sentences_of(b, name)
        assert sentences_of(a, name) != sentences_of(c, name)


def test_more_sentences_begin_with_the_fewer() -> None:
    few, many = (Dyck(DyckSettings(train=2_000, sentences=n, scored=0)) for n in (50, 80))
    assert sentences_of(many, "unseen_depth")[:50] == sentences_of(few, "unseen_depth")


def test_keys_tell_sentences_apart_and_know_equal_ones() -> None:
    s = sample(20_000, cap=64)
    tokens = [tuple(t) for t in split(s.tokens, s)]
    assert len(set(tokens)) == len(np.unique(s.keys())) < len(tokens)
    assert len({structure(t) for t in tokens}) == len(np.unique(s.structures()))
    alone = s.take(np.array([17]))
    assert alone.keys()[0] == s.keys()[17]
    assert Sentences.join([alone, s]).keys()[1:].tolist() == s.keys().tolist()


def test_sentences_can_be_read() -> None:
    assert Vocabulary(3).decode([6, 0, 2, 5, 3, 7, 8, 8]) == "^ (a (c c) a) $"
    assert Vocabulary(30).decode([29, 59]) == "(29 29)"
    assert small().closers == slice(20, 40)
    assert len(small().vocabulary) == 43


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"brackets": 0}, "brackets must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"cap": 3}, "cap must be at least 4, the shortest sentence, got 3"),
        ({"deeper": 11}, r"deeper \(m'\) must be at least depth \+ 2 = 12, got 11: only brackets whose pair is 10"),
        ({"deeper": 5}, r"must be at least depth \+ 2"),
        ({"structure": "words"}, "unknown structure 'words'; choose from sentence, component"),
        ({"train": 0}, "train must be at least 1"),
        ({"sentences": 0}, "sentences must be at least 1"),
        ({"scored": -1}, "scored must be at least 0"),
    ],
)
def test_bad_settings_say_which_and_what_is_accepted(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Dyck(DyckSettings(**given))


def test_a_pair_one_below_the_deepest_level_can_be_far_apart() -> None:
    task = Dyck(DyckSettings(train=2_000, sentences=400, scored=400, deeper=12))
    assert 0 < task.composition()[-2]["scored_deep"] < 0.05


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cap": 24}, r"'unseen_structure_long' cannot be drawn: of 200000 .* 24 tokens and depth 10, 0 \(0.00%\)"),
        ({"brackets": 1}, r"'seen_structure' cannot be drawn: .* 0 \(0.00%\) meet its definition"),
    ],
)
def test_a_split_that_cannot_be_drawn_says_why(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        Dyck(DyckSettings(train=5_000, sentences=50, scored=0, **given))
