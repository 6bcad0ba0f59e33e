"""Divergence of attention and maps by depth: closed forms, and the `at` path against the full one."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.analyses.attention import ATTENTION_JSD, depth_maps, divergence_of, pattern_divergence
from heldout.analyses.estimates import Scores, View
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.pairs import OTHER_SEED, WHOLE, compare_networks
from heldout.analyses.scoring import Scoring
from heldout.analyses.tables import Memory
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import attention_edits, place
from heldout.proxies.fit import Family
from heldout.tasks.base import Batch, Split
from heldout.tasks.dyck import Dyck, DyckSettings, levels
from heldout.tasks.ragged import at_scored, everywhere
from heldout.training.seeds import initialised

LAST = "blocks.1.attn"
PATTERN = place(LAST, "pattern", 0)


@cache
def task() -> Dyck:
    return Dyck(DyckSettings(brackets=3, depth=4, deeper=8, cap=60, train=600, sentences=30, scored=60))


def subject(seed: int = 0) -> Subject:
    network = initialised(lambda: Transformer(9, width=16, heads=1, max_length=62), seed)
    return Subject(network.eval(), "dyck", "t", seed, Scoring(candidates=(3, 6)))


def edits() -> list[Edit]:
    families = [Family("svd", (2, 16)), Family("kmeans", (3,)), Family("weights", (2,)), Family("onehot")]
    return attention_edits(
        subject().network, everywhere(task().splits["train"]), LAST, families, heads=1, batch_size=500
    )


def view(memory: Memory) -> View:
    scores = Scores.from_memory(memory)
    return View("t", 0, lambda c: np.array([scores.sums(c)[1].sum()]))


def test_divergence_of_patterns() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    q = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    half = 0.5 * math.log2(1 / 0.75) + 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25))
    torch.testing.assert_close(pattern_divergence(p, q), torch.tensor([1.0, 0.0, half]))
    torch.testing.assert_close(pattern_divergence(q, p), pattern_divergence(p, q))


@pytest.mark.parametrize("name", ["unseen_structure_long", "unseen_depth"])
def test_scored_positions_alone_give_what_all_positions_give(name: str) -> None:
    whole, part = task().splits[name], at_scored(task().splits[name])
    found = []
    for split in (whole, part):
        memory = Memory()
        faithfulness(
            subject(), [split], edits(), memory, read=[PATTERN], extra=divergence_of([PATTERN]), batch_size=400
        )
        found.append(view(memory))
    for edit in edits():
        where = {"split": name, "edit": edit.origin.label, "site": LAST}
        for metric in (
            "n",
            "same",
            "net_correct",
            "proxy_correct",
            "both_correct",
            "kl",
            "jsd",
            "proxy_loss",
            ATTENTION_JSD,
        ):
            a, b = (v.total(metric, **where)[0] for v in found)
            assert a == pytest.approx(b, rel=1e-4, abs=1e-4), (edit.origin.label, metric)


def test_fitting_everywhere_does_not_see_what_is_asked_for() -> None:
    train = task().splits["train"]
    families = [Family("svd", (2,))]
    part = at_scored(train)
    same = train.subset(np.flatnonzero([s.any() for s in _marks(train)]))
    a, b = (
        attention_edits(subject().network, everywhere(s), LAST, families, heads=1, batch_size=500)[0]
        for s in (part, same)
    )
    rows = torch.randn(5, 16)
    site = place(LAST, "query", 0)
    torch.testing.assert_close(a.functions[site](rows, None), b.functions[site](rows, None))


def _marks(split: Split) -> list[Tensor]:
    marked = [split.items.take(np.array([i])).scored for i in range(len(split))]
    return [m for m in marked if m is not None]


def test_levels_are_those_of_the_sentences() -> None:
    split = task().splits["unseen_depth"]
    batch = split.items.take(np.arange(6))
    k = 3
    depth = levels(batch.inputs, k)
    assert batch.scored is not None
    closer = torch.zeros_like(depth)
    closer[:, :-1] = depth[:, 1:]  # the bracket that is predicted stands one later in the inputs
    assert torch.equal(closer[batch.scored], batch.strata["query_depth"][batch.scored])
    assert levels(torch.tensor([[6, 0, 1, 4, 3, 8, 8]]), k).tolist() == [[0, 1, 2, 2, 1, 0, 0]]


def test_depth_maps_add_up() -> None:
    split = at_scored(task().splits["unseen_depth"])
    chosen = {edit.origin.label: edit.functions for edit in edits() if edit.origin.label in ("svd-16", "onehot")}

    def key_depth(batch: Batch) -> Tensor:
        return levels(batch.inputs["tokens"], 3)

    found = depth_maps(
        subject(),
        split,
        chosen,
        pattern=PATTERN,
        query_depth=lambda b: b.strata["query_depth"].clamp(min=0),
        key_depth=key_depth,
        rows=9,
        columns=9,
        batch_size=300,
    )
    assert set(found) == {"network", "svd-16", "onehot"}
    total = sum(int(b.scored.sum()) for b in split.batches(300) if b.scored is not None)
    for m in found.values():
        np.testing.assert_allclose(m.mass.sum(axis=1), m.queries, rtol=1e-5)
        np.testing.assert_allclose(m.looked.sum(axis=1), m.queries)
        assert m.queries.sum() == total
        assert (m.wrong <= m.looked).all()
        assert (m.same <= m.queries).all()
    np.testing.assert_allclose(found["network"].same, found["network"].queries)
    np.testing.assert_allclose(found["svd-16"].mass, found["network"].mass, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["onehot"].mass, found["network"].looked)  # all mass is where most of it was
    scoring, wrong = subject().scoring, 0
    with Tap(subject().network) as tap:
        for batch in split.batches(300):
            wrong += int((~scoring.predictions(tap(batch).output, batch).correct).sum())
    assert found["network"].wrong.sum() == wrong


def test_another_network_is_scored_like_an_edit() -> None:
    split = at_scored(task().splits["id"])
    memory = Memory()
    compare_networks(subject(), subject(1).network, [split], memory, batch_size=300)
    v, where = view(memory), {"split": "id", "edit": OTHER_SEED, "site": WHOLE}
    same, n = 0, 0
    for batch in split.batches(100_000):
        tops = [subject(seed).scoring.predictions(subject(seed).network(**batch.inputs), batch).top for seed in (0, 1)]
        same, n = same + int((tops[0] == tops[1]).sum()), n + len(tops[0])
    assert v.ratio("same", **where)[0] == pytest.approx(same / n)
    assert 0 < same < n
    itself = Memory()
    compare_networks(subject(), subject().network, [split], itself, batch_size=300)
    assert view(itself).ratio("same", **where)[0] == 1.0
    assert view(itself).total("kl", **where)[0] == pytest.approx(0, abs=1e-5)
