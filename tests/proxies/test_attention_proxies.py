"""Simplified attention: known patterns, exact truncated weights, and edits that touch only what they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.errors import ConfigError, ProxyError, SplitError
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import (
    attention_edits,
    both_modules,
    capture_operands,
    keep_largest,
    place,
    single_directions,
    truncated_weights,
)
from heldout.proxies.fit import Family
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training.seeds import initialised

WIDTH, HEADS = 16, 2
LAST = "blocks.1.attn"


def make(**given: Any) -> Transformer:
    settings = {"width": WIDTH, "heads": HEADS, "max_length": 12, **given}
    return initialised(lambda: Transformer(9, **settings), 0).eval()


def data(role: Any = "fit", n: int = 40) -> Split:
    tokens = torch.randint(9, (n, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[::2, 7:] = False
    return Split("train", role, Rectangular(tokens, mask=mask))


def batch() -> Batch:
    return data().items.take(np.arange(5))


def edits(*families: Family, **given: Any) -> list[Edit]:
    return attention_edits(make(), data(), LAST, families, heads=HEADS, **given)


def read(edit: Edit | None, sites: Sequence[str]) -> list[Tensor]:
    with Tap(make(), read=sites, edit=edit.functions if edit else None) as tap:
        reading = tap(batch())
    return [reading[s] for s in sites]


def output(edit: Edit | None) -> Tensor:
    with Tap(make(), edit=edit.functions if edit else None) as tap:
        return tap(batch()).output[batch().mask]


@pytest.mark.parametrize("basis", ["joint", "separate"])
@pytest.mark.parametrize("centred", [False, True])
def test_full_rank_is_the_network(basis: Any, centred: bool) -> None:
    (edit,) = edits(Family("svd", (WIDTH // HEADS,)), basis=basis, centred=centred)
    torch.testing.assert_close(output(edit), output(None), rtol=1e-4, atol=1e-5)
    (less,) = edits(Family("svd", (2,)), basis=basis, centred=centred)
    assert (output(less) - output(None)).abs().max() > 1e-3


def test_the_joint_basis_is_that_of_queries_and_keys_stacked() -> None:
    rank = 3
    (edit,) = edits(Family("svd", (rank,)))
    sites = [place(LAST, part, 1) for part in ("query", "key")]
    with Tap(make(), read=sites) as tap:
        reading = tap(data().items.take(np.arange(40)))
    mask = data().items.take(np.arange(40)).mask
    q, k = (reading[s][mask].double() for s in sites)
    v = torch.linalg.svd(torch.cat([q, k]), full_matrices=False).Vh[:rank]
    for site, rows in zip(sites, (q, k), strict=True):
        torch.testing.assert_close(edit.functions[site](rows, None), rows @ v.T @ v)
    (own,) = edits(Family("svd", (rank,)), basis="separate")
    assert not torch.allclose(own.functions[sites[0]](q, None), q @ v.T @ v, atol=1e-4)


def test_an_edit_touches_the_heads_that_it_names_and_no_other_place() -> None:
    (edit,) = edits(Family("svd", (2,)))
    assert set(edit.functions) == {place(LAST, part, head) for part in ("query", "key") for head in range(HEADS)}
    one = Edit({s: f for s, f in edit.functions.items() if s.endswith("[1]")}, edit.origin)
    whole = [f"{LAST}@attn.{part}" for part in ("query", "key", "value")]
    before, after = read(None, whole), read(one, whole)
    mask = batch().mask
    for x, y, changed in zip(before, after, (True, True, False), strict=True):
        assert torch.equal(x[:, 0], y[:, 0])
        assert torch.equal(x[:, 1], y[:, 1]) != changed
        assert torch.equal(x[:, 1][~mask], y[:, 1][~mask])  # padding is left alone


def test_clusters_have_code_books_of_their_own_and_draws_of_their_own() -> None:
    first, second = edits(Family("kmeans", (3,), draw=0), Family("kmeans", (3,), draw=1), sample=60)
    assert first.origin == second.origin
    books = []
    for edit in (first, second):
        q, k = read(edit, [place(LAST, part, 0) for part in ("query", "key")])
        mask = batch().mask
        books.append((q[mask].unique(dim=0), k[mask].unique(dim=0)))
        assert len(books[-1][0]) <= 3
        assert len(books[-1][1]) <= 3
    assert not torch.equal(books[0][0], books[0][1])
    assert not torch.equal(books[0][0], books[1][0])


def test_controls_one_subspace_for_both_and_the_mean() -> None:
    haar, mean = edits(Family("haar", (2,), draw=3), Family("mean"))
    rows = torch.randn(7, WIDTH // HEADS)
    sites = [place(LAST, part, 0) for part in ("query", "key")]
    torch.testing.assert_close(haar.functions[sites[0]](rows, None), haar.functions[sites[1]](rows, None))
    other = haar.functions[place(LAST, "query", 1)](rows, None)
    assert not torch.allclose(haar.functions[sites[0]](rows, None), other)
    assert (mean.functions[sites[0]](rows, None).std(dim=0) == 0).all()
    assert mean.origin.parameter is None


def explicit(x: Tensor, rank: int | None) -> list[Tensor]:
    """Scores (B, T, T) of each head from the weights, M = W_q^T W_k truncated by a plain SVD of the D x D matrix."""
    attention = make().blocks[1].attn
    found = []
    for w_q, b_q, w_k, b_k in zip(
        attention.query.weight.double().chunk(HEADS),
        attention.query.bias.double().chunk(HEADS),
        attention.key.weight.double().chunk(HEADS),
        attention.key.bias.double().chunk(HEADS),
        strict=True,
    ):
        u, s, vh = torch.linalg.svd(w_q.T @ w_k)
        m = (u[:, :rank] * s[:rank]) @ vh[:rank]
        linear = (x @ w_q.T @ b_k)[..., None] + (x @ w_k.T @ b_q)[..., None, :] + b_q @ b_k
        found.append((x @ m @ x.transpose(-1, -2) + linear) / (WIDTH // HEADS) ** 0.5)
    return found


@pytest.mark.parametrize("rank", [1, 3, WIDTH // HEADS])
def test_truncated_weights_give_the_attention_of_the_truncated_form(rank: int) -> None:
    edit = truncated_weights(make(), LAST, rank, heads=HEADS)
    with Tap(make(), read=["blocks.1.norm1", f"{LAST}@attn.pattern"], edit=edit.functions) as tap:
        reading = tap(Batch(batch().inputs, batch().index))
    causal = torch.ones(10, 10, dtype=torch.bool).tril()
    for head, scores in enumerate(explicit(reading["blocks.1.norm1"].double(), rank)):
        wanted = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        torch.testing.assert_close(reading[f"{LAST}@attn.pattern"][:, head].double(), wanted, rtol=1e-4, atol=1e-6)


def test_truncated_weights_at_full_rank_change_nothing() -> None:
    torch.testing.assert_close(output(truncated_weights(make(), LAST, WIDTH // HEADS, heads=HEADS)), output(None))


def test_truncated_weights_survive_a_singular_projection() -> None:
    network = make()
    with torch.no_grad():
        network.blocks[1].attn.query.weight[1] = network.blocks[1].attn.query.weight[0]
    edit = truncated_weights(network, LAST, WIDTH // HEADS, heads=HEADS)
    wanted = network(batch().inputs)
    with Tap(network, edit=edit.functions) as tap:
        torch.testing.assert_close(tap(batch()).output, wanted, rtol=1e-4, atol=1e-5)


class Rotated(nn.Module):
    """Attention whose queries and keys are turned by their position before the product."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        angle = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])

        def turn(y: Tensor) -> Tensor:
            a, b = y.chunk(2, -1)
            return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)[:, None]

        return F.scaled_dot_product_attention(turn(self.query(x)), turn(self.key(x)), self.value(x)[:, None])[:, 0]


def test_rotary_positions_are_refused_for_weights() -> None:
    with pytest.raises(ProxyError, match="rotary"):
        attention_edits(initialised(Rotated, 0), data(), ".", [Family("weights", (2,))], heads=1)


def test_weights_are_refused_for_a_rotary_transformer_and_accepted_for_alibi() -> None:
    with pytest.raises(ProxyError, match=r"attn\.query.*rotary positions.*use svd of the activations instead"):
        attention_edits(make(positions="rotary"), data(), LAST, [Family("weights", (2,))], heads=2)
    # ALiBi adds to the scores and leaves queries and keys alone, so that the form is W_q^T W_k; whole rank is exact.
    network = make(positions="alibi")
    for rank, same in ((WIDTH // HEADS, True), (1, False)):
        (edit,) = attention_edits(network, data(), LAST, [Family("weights", (rank,))], heads=HEADS)
        with Tap(network, edit=edit.functions) as tap:
            edited = tap(batch()).output
        assert torch.allclose(edited, network(batch().inputs), rtol=1e-4, atol=1e-5) == same


def test_largest_entries_of_a_pattern_made_by_hand() -> None:
    rows = torch.tensor([[0.1, 0.4, 0.4, 0.1], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]])
    hot = keep_largest(LAST, 1, heads=1).functions[place(LAST, "pattern", 0)](rows, None)
    assert hot.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # ties: the smallest position
    two = keep_largest(LAST, 3, heads=1).functions[place(LAST, "pattern", 0)](rows, None)
    torch.testing.assert_close(two[0], torch.tensor([1, 4, 4, 0]) / 9)
    torch.testing.assert_close(two[2], torch.tensor([1, 1, 1, 0]) / 3)
    every = keep_largest(LAST, 9, heads=1).functions[place(LAST, "pattern", 0)](rows, None)
    torch.testing.assert_close(every, rows)


def test_one_hot_attention_takes_the_value_of_the_largest_score() -> None:
    edit = edits(Family("onehot"))[0]
    assert (edit.origin.name, edit.origin.parameter, edit.origin.fit_split) == ("onehot", None, "")
    sites = [f"{LAST}@attn.{part}" for part in ("scores", "value", "pattern")]
    plain = Batch(batch().inputs, batch().index)
    with Tap(make(), read=sites) as tap:
        scores, values, _ = (tap(plain)[s] for s in sites)
    best = scores.argmax(-1)
    with Tap(make(), read=[sites[2], f"{LAST}.out:input"], edit=edit.functions) as tap:
        reading = tap(plain)
    patterns, mixed = reading[sites[2]], reading[f"{LAST}.out:input"]
    assert torch.equal(patterns, F.one_hot(best, 10).float())
    wanted = values.gather(2, best[..., None].expand_as(values)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, wanted)


def test_edits_of_two_modules_meet_where_family_and_size_agree() -> None:
    families = [Family("svd", (2, 4)), Family("onehot")]
    first, last = (attention_edits(make(), data(), f"blocks.{i}.attn", families, heads=HEADS) for i in (0, 1))
    joined = both_modules(first, last)
    assert [e.origin.label for e in joined] == ["svd-2", "svd-4", "onehot"]
    assert joined[0].origin.site == "blocks.0.attn + blocks.1.attn"
    assert set(joined[0].functions) == {*first[0].functions, *last[0].functions}


def test_a_component_added_back_is_the_rank_with_that_component() -> None:
    seen = capture_operands(make(), data(), LAST, heads=HEADS)
    singles = dict(single_directions(seen, LAST, 2, heads=HEADS, fit_split="train"))
    assert list(singles) == list(range(2, WIDTH // HEADS))
    (three,) = edits(Family("svd", (3,)))
    rows = torch.randn(6, WIDTH // HEADS)
    for site, function in three.functions.items():
        torch.testing.assert_close(singles[2].functions[site](rows, None), function(rows, None), rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused() -> None:
    with pytest.raises(SplitError, match="svd may not be fitted on split 'train'"):
        attention_edits(make(), data("test"), LAST, [Family("svd", (2,))], heads=HEADS)
    assert attention_edits(make(), data("test"), LAST, [Family("svd", (2,))], heads=HEADS, oracle=True)[0].origin.oracle
    assert attention_edits(make(), data("test"), LAST, [Family("onehot")], heads=HEADS)
    with pytest.raises(ConfigError, match="unknown simplification of attention 'pca'"):
        edits(Family("pca", (2,)))
    with pytest.raises(ConfigError, match="unknown basis"):
        edits(Family("svd", (2,)), basis="both")
    with pytest.raises(ProxyError, match="rank 9"):
        edits(Family("svd", (9,)))
    with pytest.raises(ProxyError, match="whose heads have width 8"):
        edits(Family("weights", (9,)))
    with pytest.raises(ProxyError, match="no linear map 'q'"):
        truncated_weights(make(), LAST, 2, heads=HEADS, projections=("q", "k"))
    with pytest.raises(ProxyError, match="at least one position"):
        keep_largest(LAST, 0, heads=1)
