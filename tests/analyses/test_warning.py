"""AUROC against scikit-learn, distances against the closed form, and warnings on a network worked out by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from heldout.activations.accumulators import Moments
from heldout.analyses.faithfulness import Subject
from heldout.analyses.outputs import calibrated, scoring_of
from heldout.analyses.warning import (
    DISTANCE,
    ENTROPY,
    LENGTH,
    MARGIN,
    POSITION,
    RECONSTRUCTION,
    Distance,
    Warned,
    auroc,
    auroc_estimates,
    fit_distances,
    over_runs,
    warn,
)
from heldout.errors import EvidenceError, SplitError
from heldout.evidence import Estimate
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import attention_edits, keep_largest
from heldout.proxies.fit import Family
from heldout.tasks.base import Rectangular, Split

NETWORK = small.Linear2().eval()
MATRIX = small.projector(5, 2)
EDIT = small.projection_edit("first", MATRIX)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(1, 3)), min_size=2, max_size=60))
def test_auroc_is_scikit_learns_with_ties_and_weights(rows: list[tuple[int, bool, int]]) -> None:
    score, event, weight = (np.array(c) for c in zip(*rows, strict=True))
    if event.all() or not event.any():
        assert np.isnan(auroc(score, event))
        return
    assert auroc(score, event) == pytest.approx(roc_auc_score(event, score))
    assert auroc(score, event, weight) == pytest.approx(roc_auc_score(event, score, sample_weight=weight))
    assert auroc(-score, event) == pytest.approx(1 - auroc(score, event))
    assert auroc(score * 3 + 1, event) == pytest.approx(auroc(score, event))  # any rising function of it
    assert auroc(np.zeros_like(score), event) == 0.5


def test_integer_weights_are_repeats() -> None:
    rng = np.random.default_rng(0)
    score, event, weight = rng.normal(size=50), rng.random(50) < 0.4, rng.integers(0, 4, 50)
    repeated = auroc(np.repeat(score, weight), np.repeat(event, weight))
    assert auroc(score, event, weight) == pytest.approx(repeated)


def test_perfect_and_reversed_scores() -> None:
    event = np.array([False, False, True])
    assert auroc([0, 1, 2], event) == 1
    assert auroc([2, 1, 0], event) == 0
    with pytest.raises(EvidenceError, match="one length"):
        auroc([0, 1], event)


def test_the_distance_is_one_on_average_where_it_was_fitted_and_matches_the_closed_form() -> None:
    rows = torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    )
    moments = Moments()
    moments.update(rows)
    distance = Distance(moments)
    assert float(distance(rows).mean()) == pytest.approx(1, abs=0.02)
    centred = rows - rows.mean(0)
    exact = ((centred @ torch.linalg.inv(centred.T @ centred / len(rows))) * centred).sum(-1) / 6
    assert torch.allclose(distance(rows), exact, rtol=0.02)
    assert float(distance(rows + 100).min()) > float(distance(rows).max())


def test_warnings_of_a_linear_network_by_hand() -> None:
    subject = small.subject(NETWORK)
    split = small.split("id", 31)
    warned = warn(subject, split, EDIT, {}, batch_size=7)
    x = next(split.batches(100)).inputs
    hidden = x @ NETWORK.first.weight.T
    new = hidden @ MATRIX
    logits, proxied = hidden @ NETWORK.second.weight.T, new @ NETWORK.second.weight.T
    assert warned.disagrees.tolist() == (logits.argmax(-1) != proxied.argmax(-1)).tolist()
    lost = ((new - hidden) ** 2).sum(-1) / (hidden**2).sum(-1)
    assert warned.scores[RECONSTRUCTION] == pytest.approx(lost.detach().numpy())
    best = proxied.topk(2).values
    assert warned.scores[MARGIN] == pytest.approx((best[:, 1] - best[:, 0]).detach().numpy())
    p = proxied.softmax(-1)
    assert warned.scores[ENTROPY] == pytest.approx(-(p * p.log()).sum(-1).detach().numpy())
    assert set(warned.scores[LENGTH]) == {1.0}
    assert set(warned.scores[POSITION]) == {0.0}
    assert DISTANCE not in warned.scores


@pytest.mark.parametrize(("kind", "scores"), [("regression", set()), ("embedding", {MARGIN})])
def test_numbers_have_no_margin_and_embeddings_no_entropy(kind: str, scores: set[str]) -> None:
    split = small.split("id", 31)
    unlabelled = Split("id", "test", Rectangular(next(split.batches(100)).inputs))
    scoring = calibrated(scoring_of(kind), NETWORK, unlabelled)
    warned = warn(replace(small.subject(NETWORK), scoring=scoring), unlabelled, EDIT, {})
    assert set(warned.scores) & {MARGIN, ENTROPY} == scores


def test_scores_do_not_see_the_networks_own_answers() -> None:
    """Another readout above the edit changes the proxy and the network alike; a copy of the network with the same proxied
    outputs must get the same scores. Here the labels are changed: no score may move."""
    subject, split = small.subject(NETWORK), small.split("id", 31)
    batch = next(split.batches(100))
    relabelled = Split("id", "test", Rectangular(batch.inputs, (batch.targets + 1) % 3))
    a, b = warn(subject, split, EDIT, {}), warn(subject, relabelled, EDIT, {})
    assert all(np.array_equal(a.scores[k], b.scores[k]) for k in a.scores)


def decoder() -> Subject:
    torch.manual_seed(0)
    return Subject(Transformer(11, width=8, layers=2, heads=2, max_length=9).eval())


def sequences(name: str, role: str, n: int = 12) -> Split:
    rng = np.random.default_rng(n)
    inputs = torch.from_numpy(rng.integers(0, 11, size=(n, 9)))
    mask = torch.arange(9) < torch.from_numpy(rng.integers(3, 10, size=n))[:, None]
    return Split(name, role, Rectangular(inputs, inputs, mask=mask), units=np.arange(n) // 2)  # type: ignore[arg-type]


def attention_edit(subject: Subject, name: str) -> object:
    first = [
        attention_edits(
            subject.network, sequences("fit", "fit", 30), f"blocks.{i}.attn", [Family(name, (2,))], heads=2
        )[0]
        for i in range(2)
    ]
    return first[0].then(first[1])


def test_scores_at_positions_do_not_depend_on_the_batch() -> None:
    subject, split = decoder(), sequences("id", "test")
    edit = attention_edit(subject, "svd")
    distances = fit_distances(subject, sequences("fit", "fit", 30), edit.functions)  # type: ignore[attr-defined]
    assert len(distances) == 8
    whole = warn(subject, split, edit, distances, batch_size=100)  # type: ignore[arg-type]
    single = warn(subject, split, edit, distances, batch_size=1)  # type: ignore[arg-type]
    assert len(whole.unit) == int(next(split.batches(100)).mask.sum())
    assert set(whole.scores) == {RECONSTRUCTION, MARGIN, DISTANCE, LENGTH, POSITION, ENTROPY}
    for name in whole.scores:
        assert whole.scores[name] == pytest.approx(single.scores[name], abs=1e-5), name
    assert np.array_equal(whole.unit, single.unit)


def test_patterns_have_an_error_and_no_distance() -> None:
    subject, split = decoder(), sequences("id", "test")
    edit = keep_largest("blocks.1.attn", 1, heads=2, name="onehot", parameter=None)
    distances = fit_distances(subject, sequences("fit", "fit", 30), edit.functions)
    assert distances == {}
    warned = warn(subject, split, edit, distances)
    assert RECONSTRUCTION in warned.scores
    assert DISTANCE not in warned.scores


def test_distances_are_fitted_on_a_fit_split_only() -> None:
    with pytest.raises(SplitError, match="may not be fitted"):
        fit_distances(decoder(), sequences("id", "test"), ["blocks.0.mlp"])


def test_the_network_is_left_as_it_was() -> None:
    network: nn.Module = copy.deepcopy(NETWORK).train()
    warn(Subject(network), small.split("id", 5), EDIT, {})
    assert network.training
    assert not network.first._forward_hooks  # type: ignore[union-attr]


def test_estimates_carry_value_interval_and_reasons() -> None:
    rng = np.random.default_rng(0)
    n = 600
    event = rng.random(n) < 0.3
    warned = Warned(rng.integers(0, 30, n), event, {MARGIN: event + rng.normal(size=n), ENTROPY: rng.normal(size=n)})
    rows = {e.quantity: e for e in auroc_estimates(warned, where={"split": "id"}, rng=np.random.default_rng(1))}
    good, chance = rows[f"auroc: {MARGIN}"], rows[f"auroc: {ENTROPY}"]
    assert good.value == pytest.approx(roc_auc_score(event, warned.scores[MARGIN]))
    assert good.low < good.value < good.high
    assert good.low > 0.6
    assert chance.low < 0.5 < chance.high
    assert (good.n, good.null, good.split) == (30, 0.5, "id")
    assert "has no such score" in rows[f"auroc: {DISTANCE}"].reason
    never = Warned(warned.unit, np.zeros(n, dtype=bool), warned.scores)
    assert "disagreement on 0 of 600" in auroc_estimates(never, where={}, rng=rng)[1].reason


@pytest.mark.slow
def test_the_interval_covers_chance_for_scores_that_know_nothing() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        unit = np.repeat(np.arange(40), 15)
        hard = rng.random(40)[unit] < 0.5  # disagreement comes in clusters
        event = rng.random(600) < np.where(hard, 0.5, 0.1)
        warned = Warned(unit, event, {MARGIN: rng.normal(size=40)[unit] + rng.normal(size=600)})
        (row,) = auroc_estimates(warned, where={}, rng=rng, names=(MARGIN,))
        covered += row.low <= 0.5 <= row.high
    assert 0.88 <= covered / 200 <= 0.99


def test_of_many_predictions_the_same_random_ones_are_kept_whatever_the_batches() -> None:
    subject, split = decoder(), sequences("id", "test", 40)
    edit = attention_edit(subject, "svd")
    whole = warn(subject, split, edit, {}, batch_size=1000)  # type: ignore[arg-type]
    few = [warn(subject, split, edit, {}, batch_size=size, limit=60) for size in (9, 1000)]  # type: ignore[arg-type]
    assert len(whole.unit) > 120
    assert 20 <= len(few[0].unit) == len(few[1].unit) <= 60
    for name, values in few[0].scores.items():
        assert np.sort(values) == pytest.approx(np.sort(few[1].scores[name]), abs=1e-5)
    assert set(few[0].unit) <= set(whole.unit)


def test_runs_are_joined_by_the_interval_of_the_verdict_rule() -> None:
    one = Estimate("auroc: distance", 0.7, 0.6, 0.8, n=30, seed=0, parameter=4.0, split="id")
    two = Estimate("auroc: distance", 0.9, 0.85, 0.95, n=20, seed=1, parameter=8.0, split="id")
    alone, joined = over_runs([one]), over_runs([one, two])
    assert (alone.value, alone.low, alone.high, alone.seeds, alone.seed) == (0.7, 0.6, 0.8, 1, None)
    assert joined.value == pytest.approx(0.8)
    assert joined.low < 0.7 < 0.9 < joined.high  # two runs that differ say little of others
    assert (joined.n, joined.seeds, joined.parameter) == (20, 2, None)
    nothing = Estimate("auroc: distance", float("nan"), seed=1, split="id", reason="too few")
    assert over_runs([one, nothing]).reason == "run 1: too few"
