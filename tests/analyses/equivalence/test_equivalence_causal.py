"""Ablation and swap on networks whose causes are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade_adders import LOW, SPARE, STEPS, TRUE, USED, Adder, items, operands, tokens

from heldout.activations.accumulators import Moments
from heldout.activations.edits import Edit
from heldout.analyses.equivalence.ablation import (
    DRAWS,
    Removal,
    class_removal,
    random_equal_rank,
    random_equal_variance,
)
from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.equivalence.edited import score_edits
from heldout.analyses.equivalence.passes import Sequences, activations, collect
from heldout.analyses.equivalence.swap import swap
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, ProxyError, SiteError
from heldout.evidence import Cell, Origin
from heldout.networks.transformer import Transformer
from heldout.training.seeds import initialised


def accumulated(network: torch.nn.Module, x: Sequences, site: str = "sum") -> tuple[Centroids, Moments]:
    """The units digit's classes at the last position of the prompt."""
    centroids, moments = Centroids(10), Moments()
    for cut, rows in activations(network, x, [site], [9], batch_size=64):
        centroids.update(rows[site][:, 0], x.tokens[cut, 10])
        moments.update(rows[site][:, 0])
    return centroids, moments


def totals(memory: Memory, label: str) -> dict[str, float]:
    """Sums over all rows of the one cell of an edit."""
    ((_, parts),) = [found for found in memory.parts.values() if found[0].edit.label == label]
    return {name: float(sum(columns[name].sum() for columns in parts)) for name in parts[0]}


def mean_square(removal: Removal, rows: torch.Tensor) -> float:
    return float((removal.reconstruct(rows) - rows).square().sum(dim=1).mean())


def test_removing_the_class_subspace_brings_all_centroids_together() -> None:
    x = items(*operands(500))
    network = Adder(LOW, loud=1.0)
    centroids, moments = accumulated(network, x)
    removal = class_removal(centroids, moments)
    rows = collect(network, x, "sum", 9)
    assert removal.rank == 9
    torch.testing.assert_close(removal.basis.T @ removal.basis, torch.eye(9).double())
    left = removal.reconstruct(rows)
    for c in range(10):
        torch.testing.assert_close(left[x.tokens[:, 10] == c].mean(0), rows.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(removal.reconstruct(left), left, rtol=0, atol=1e-12)  # a projection
    assert removal.displacement(moments) == pytest.approx(mean_square(removal, rows), rel=1e-12)
    between = centroids.between_share * moments.variance
    assert removal.displacement(moments) >= between - 1e-12  # all that is between, and what else lies in there
    assert removal.overlap(removal) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.987, 1.0])
def test_random_subspaces_remove_as_much_on_the_rows_themselves(share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(900, 12, generator=generator, dtype=torch.float64) * torch.logspace(1, -2, 12).double() + 4
    rows = torch.cat([rows, rows[:, :3]], dim=1)  # 15 wide, 12 dimensions
    moments = Moments()
    moments.update(rows)
    target = share * moments.variance
    ranks = []
    for seed in range(DRAWS):
        by_variance = random_equal_variance(moments, target, seed=seed)
        by_rank = random_equal_rank(moments, target, 3, seed=seed)
        for removal in (by_variance, by_rank):
            assert mean_square(removal, rows) == pytest.approx(target, rel=1e-9)
            assert removal.displacement(moments) == pytest.approx(target, rel=1e-9)
            eye = torch.eye(removal.rank).double()
            torch.testing.assert_close(removal.basis.T @ removal.basis, eye, rtol=0, atol=1e-10)
        assert (by_variance.weights[:-1] == 1).all()
        assert 0 < by_variance.weights[-1] <= 1 + 1e-9
        assert by_rank.rank == 3
        ranks.append(by_variance.rank)
    assert max(ranks) <= 12
    assert (min(ranks) == 12) == (share == 1.0)
    again = random_equal_variance(moments, target, seed=0)
    assert torch.equal(again.basis, random_equal_variance(moments, target, seed=0).basis)


def test_random_subspaces_are_uniform_in_the_span() -> None:
    rows = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 4:] = 0
    moments = Moments()
    moments.update(rows)
    first = torch.stack([random_equal_rank(moments, 1.0, 1, seed=s).basis[:, 0] for s in range(800)])
    assert (first[:, 4:].abs() < 1e-12).all()
    outer = (first.T @ first / 800)[:4, :4].numpy()
    assert outer == pytest.approx(np.eye(4) / 4, abs=0.04)
    assert first.mean(0).abs().max() < 0.06


def cell(split: str = "id") -> Cell:
    return Cell("arithmetic", "nano", 0, split, Origin("none"))


def scored(network: Adder, x: Sequences, edits: list[Edit]) -> tuple[Memory, tuple[float, ...]]:
    memory = Memory()
    found = score_edits(network, x, edits, memory, cell(), batch_size=128)
    assert found.check.difference == 0
    return memory, found.exact


def removals(network: Adder, x: Sequences) -> list[Edit]:
    centroids, moments = accumulated(network, x)
    wanted = class_removal(centroids, moments)
    target = wanted.displacement(moments)
    random = [random_equal_variance(moments, target, seed=s) for s in range(DRAWS)]
    return [
        wanted.edit("sum", [9], 15, Origin("classes", "sum", "train")),
        *(r.edit("sum", [9], 15, Origin("equal_variance", "sum", "train")) for r in random),
    ]


def test_where_the_classes_are_the_cause_removing_them_costs_more_than_as_much_of_anything() -> None:
    network, x = Adder(LOW, loud=1.0), items(*operands(600))
    memory, exact = scored(network, x, removals(network, x))
    classes, random = totals(memory, "classes"), totals(memory, "equal_variance")
    assert classes["n"] == classes["exact_before"] == 600
    assert random["n"] == random["exact_before"] == DRAWS * 600
    assert classes["exact"] / 600 < 0.2  # one constant units digit
    assert random["exact"] / random["n"] > 0.95
    assert classes["digit_0"] == classes["exact"] == classes["same"]
    assert all(classes[f"digit_{i}"] == 600 for i in range(1, 6))  # other positions are as they were
    assert exact[0] == classes["exact"] / 600
    assert np.mean(exact[1:]) == pytest.approx(random["exact"] / random["n"])
    assert classes["kl"] > random["kl"] / DRAWS


def test_where_the_classes_are_all_there_is_nothing_can_be_told_apart() -> None:
    network, x = Adder(LOW), items(*operands(600))
    centroids, moments = accumulated(network, x)
    wanted = class_removal(centroids, moments)
    random = [random_equal_variance(moments, wanted.displacement(moments), seed=s) for s in range(3)]
    assert wanted.displacement(moments) == pytest.approx(moments.variance)
    assert [wanted.overlap(r) for r in random] == pytest.approx([1, 1, 1])
    edits = [w.edit("sum", [9], 15, Origin(f"r{i}", "sum")) for i, w in enumerate([wanted, *random])]
    _, exact = scored(network, x, edits)
    assert max(exact) < 0.2


def test_an_edit_elsewhere_costs_nothing() -> None:
    network, x = Adder(LOW, loud=1.0), items(*operands(50))
    centroids, moments = accumulated(network, x)
    edit = class_removal(centroids, moments).edit("sum", [3], 15, Origin("classes", "sum"))
    memory, exact = scored(network, x, [edit])
    assert exact == (1.0,)
    assert totals(memory, "classes")["kl"] == 0


def test_bad_ablations_are_named() -> None:
    network, x = Adder(LOW), items(*operands(50))
    centroids, moments = accumulated(network, x)
    with pytest.raises(ProxyError, match="cannot be removed"):
        random_equal_variance(moments, 2 * moments.variance, seed=0)
    with pytest.raises(ProxyError, match="span 9 dimensions"):
        random_equal_rank(moments, 1.0, 10, seed=0)
    with pytest.raises(ProxyError, match="same rows"):
        class_removal(centroids, Moments())
    flat, same = Centroids(2), Moments()
    rows = torch.randn(1, 4).double().repeat(6, 1)
    flat.update(rows, torch.arange(6) % 2)
    same.update(rows)
    with pytest.raises(ProxyError, match="coincide"):
        class_removal(flat, same)
    with pytest.raises(ConfigError, match="0 to 14"):
        class_removal(centroids, moments).edit("sum", [15], 15, Origin("classes"))
    narrow = class_removal(centroids, moments).edit("sum", [1], 2, Origin("classes"))
    with pytest.raises(SiteError, match="each of 2 positions"):
        scored(network, x, [narrow])


def test_swapping_spare_positions_changes_what_depends_on_them_and_nothing_else() -> None:
    a, b = operands(200, low=1000)
    h = tokens(a % LOW, b % LOW, a % LOW + b % LOW)
    ignoring = swap(Adder(LOW), items(a, b), h, ["embed", "sum"], SPARE, batch_size=33)
    for measures in ignoring.values():
        assert all(not values.any() for values in measures.values())
    assert set(ignoring) == {"embed", "sum"}
    answered = items(a, b, a + b)
    low = tokens(a % LOW, b % LOW, a % LOW + b % LOW)
    adding = swap(Adder(TRUE), answered, low, ["embed", "sum"], SPARE)
    assert adding["embed"]["changed"].all()  # a + b turns to a % 1000 + b % 1000, and back for the partner
    assert adding["embed"]["partner_changed"].all()
    assert (adding["embed"]["kl"] > 0).all()
    assert not adding["sum"]["changed"].any()  # behind the sum no position is read by another


def test_swapping_used_positions_carries_the_answer_over() -> None:
    (a, b), (c, d) = operands(300, low=1000), operands(300, low=1000, seed=1)
    found = swap(Adder(LOW), items(a, b), tokens(c, d, c % LOW + d % LOW), ["embed"], USED)["embed"]
    differs = (a + b - c - d) % 10 != 0
    assert (found["first_differs"] == differs).all()
    assert (found["first_adopted"] == differs).all()
    assert (found["changed"] == (a % LOW + b % LOW != c % LOW + d % LOW)).all()
    half = swap(Adder(LOW), items(a, b), tokens(c, d, c), ["embed"], USED[:3])["embed"]  # one operand only
    assert 0 < half["first_adopted"].sum() < half["first_differs"].sum()


def test_a_swap_with_itself_and_at_every_position() -> None:
    (a, b), (c, d) = operands(40), operands(40, seed=1)
    x, other = items(a, b), tokens(c, d, c % LOW + d % LOW)
    itself = swap(Adder(LOW), x, x.tokens, ["embed"], range(15))["embed"]
    assert not itself["changed"].any()
    assert (itself["kl"] == 0).all()
    whole = swap(Adder(LOW), x, other, ["sum"], range(15))["sum"]
    assert (whole["first_adopted"] == whole["first_differs"]).all()
    with pytest.raises(ConfigError, match="0 to 14"):
        swap(Adder(LOW), x, other, ["sum"], [15])
    assert STEPS[0] == 9


def transformer() -> Transformer:
    return initialised(lambda: Transformer(10, width=16, layers=2, heads=2, max_length=15).double(), 100)


def test_swaps_in_a_transformer_by_layer() -> None:
    (a, b), (c, d) = operands(60), operands(60, seed=1)
    x, partner = items(a, b), tokens(c, d, a % LOW + b % LOW)  # one answer behind both: the prompts alone differ
    sites = ["blocks.0:input", "blocks.0", "blocks.1"]
    whole = swap(transformer(), x, partner, sites, range(10), batch_size=13)
    for site in sites[:2]:  # all of the prompt, and the rest is shared: x has become its partner
        assert (whole[site]["first_adopted"] == whole[site]["first_differs"]).all()
        assert whole[site]["first_differs"].any()
    spare = swap(transformer(), x, partner, sites, SPARE)
    assert (spare["blocks.0:input"]["kl"] > 0).all()
    assert (spare["blocks.0"]["kl"] > 0).all()
    assert (spare["blocks.1"]["kl"] == 0).all()  # behind the last block by construction


def test_the_two_directions_of_a_swap_are_each_others_mirror() -> None:
    (a, b), (c, d) = operands(60), operands(60, seed=1)
    forth = swap(transformer(), items(a, b), tokens(c, d, c % LOW + d % LOW), ["blocks.0"], USED)["blocks.0"]
    back = swap(transformer(), items(c, d), tokens(a, b, a % LOW + b % LOW), ["blocks.0"], USED)["blocks.0"]
    assert np.array_equal(forth["changed"], back["partner_changed"])
    assert forth["partner_kl"] == pytest.approx(back["kl"], rel=1e-9, abs=1e-15)
    assert not np.array_equal(forth["kl"], forth["partner_kl"])


def test_activations_of_a_transformer_are_those_that_it_computes() -> None:
    network, x = transformer(), items(*operands(20))
    assert network.positions is not None
    expected = network.blocks[0](network.embed(x.tokens[:, :15]) + network.positions(torch.arange(15)))
    torch.testing.assert_close(collect(network, x, "blocks.0", 9, batch_size=6), expected[:, 9].detach())
