"""The interaction basis: its identities (I1 to I8), its invariances, and the proxies and edits made of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heldout
from heldout.activations.accumulators import Moments
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections, chain
from heldout.activations.tap import Tap
from heldout.errors import ConfigError, NonFiniteError, ProxyError, SplitError
from heldout.networks.transformer import Transformer
from heldout.proxies.bases import Bases, global_bases, local_bases, neuron_bases, principal_bases
from heldout.proxies.checks import check_nested, check_proxy, sample
from heldout.proxies.fit import Family, fit_edits
from heldout.proxies.interaction import Basis, InteractionBasis, NeuronBasis, PrincipalBasis
from heldout.proxies.spectrum import Spectrum
from heldout.tasks.base import Batch, Rectangular, Split

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(inputs: Any, **given: Any) -> Split:
    return Split("fit", "fit", Rectangular(inputs, **given))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """x -> x weight + bias, rows as everywhere here."""
    layer = nn.Linear(*weight.shape, bias=bias is not None, dtype=torch.float64)
    layer.weight.data = weight.T.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


W1, B1, W2, B2, W3 = draw(6, 9, seed=1), draw(9, seed=2), draw(9, 7, seed=3), draw(7, seed=4), draw(7, 4, seed=5)
DATA = fit(draw(300, 6, seed=6) @ draw(6, 6, seed=7) + 1)
RELU = chain(linear(W1, B1), torch.relu, linear(W2, B2), torch.relu, linear(W3))
LAYERS = [".:input", "1", "3", "4"]  # the input, behind each ReLU, the output
EXACT = Probes("exact")


def relu_bases() -> Bases:
    return local_bases(Sections(RELU, LAYERS), DATA)


def rows_of(layer: int, network: nn.Module = RELU, layers: list[str] = LAYERS) -> Tensor:
    with Tap(network, read=[layers[layer]]) as tap:
        return tap(Batch(DATA.items.inputs, torch.arange(300)))[layers[layer]].double()


def parts(basis: Basis) -> tuple[Tensor, Tensor, Tensor]:
    assert basis.encoder_ is not None
    assert basis.decoder_ is not None
    assert basis.weights_ is not None
    return basis.encoder_, basis.decoder_, basis.weights_


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_features_are_uncorrelated_with_variance_the_weights(layer: int) -> None:
    """I1: C^+ C = 1, and C C^+ is a projector that leaves the data alone. I2: <f^T f> = L."""
    basis = relu_bases().bases[layer]
    encoder, decoder, weights = parts(basis)
    rows = rows_of(layer)
    torch.testing.assert_close(decoder @ encoder, torch.eye(basis.features).double(), **CLOSE)
    projector = encoder @ decoder
    torch.testing.assert_close(projector @ projector, projector, **CLOSE)
    features = basis.encode(rows)
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(basis.features).double(), **CLOSE)
    torch.testing.assert_close(features.T @ features / len(rows), weights.diag(), **CLOSE)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_jacobian_gram_of_features_is_the_identity(layer: int) -> None:
    """I3: C^+ M C^+T = 1. I4: L is the spectrum of G M. I5: C C^T = P M P."""
    bases = relu_bases()
    metric = bases.gram(LAYERS[layer]).matrix()
    basis = bases.bases[layer]
    encoder, decoder, weights = parts(basis)
    torch.testing.assert_close(decoder @ metric @ decoder.T, torch.eye(basis.features).double(), **CLOSE)
    rows = rows_of(layer)
    covariance = torch.from_numpy(np.cov(rows.numpy().T, bias=True))
    spectrum = torch.linalg.eigvals(covariance @ metric).real.sort(descending=True).values[: basis.features]
    torch.testing.assert_close(weights, spectrum, rtol=1e-9, atol=1e-12)
    assert basis.activation_ is not None
    support = basis.activation_.vectors[:, : basis.activation_.rank]
    projector = support @ support.T
    torch.testing.assert_close(encoder @ encoder.T, projector @ metric @ projector, **CLOSE)


def test_the_recursion_needs_the_pulled_back_metric_only() -> None:
    """I5: C C^T of the next layer in place of its features gives the same Jacobian Gram."""
    bases = relu_bases()
    encoder, _, _ = parts(bases.bases[2])
    x = rows_of(1)
    whole = torch.func.vmap(torch.func.jacrev(lambda f: torch.relu(f @ W2 + B2)))(x)  # (B, 7, 9)
    pulled = torch.einsum("bid,ij,bje->de", whole, encoder @ encoder.T, whole) / len(x)
    torch.testing.assert_close(bases.gram("1").matrix(), pulled, **CLOSE)


def test_local_and_global_agree_at_the_last_section_and_differ_before() -> None:
    """I6: the global metric is the mean of the whole product, the local one of each factor."""
    sections = Sections(RELU, LAYERS)
    local, whole = local_bases(sections, DATA), global_bases(sections, DATA)
    torch.testing.assert_close(local.bases[2].weights_, whole.bases[2].weights_, **CLOSE)
    x = DATA.items.inputs
    jacobian = torch.func.vmap(torch.func.jacrev(lambda f: RELU(f[None])[0]))(x)
    expected = torch.einsum("bid,bie->de", jacobian, jacobian) / len(x)
    torch.testing.assert_close(whole.gram(".:input").matrix(), expected.detach(), **CLOSE)
    assert float((parts(local.bases[0])[2] / parts(whole.bases[0])[2] - 1).abs().max()) > 0.05


def test_linear_networks_have_one_basis_and_diagonal_weights() -> None:
    """T3, I7: a linear 12-10-9-6 network: local is global, weights between features are +-1, L is the same everywhere."""
    steps = [linear(draw(12, 10, seed=1)), linear(draw(10, 9, seed=2)), linear(draw(9, 6, seed=3))]
    sections, data = Sections(chain(*steps), [".:input", "0", "1", "2"]), fit(draw(200, 12, seed=4))
    local, whole = local_bases(sections, data, final="pca"), global_bases(sections, data, final="pca")
    top = float(parts(local.bases[0])[2][0])
    for ours, other in zip(local.bases, whole.bases, strict=True):
        torch.testing.assert_close(ours.weights_, other.weights_, rtol=1e-12, atol=1e-12 * top)
        torch.testing.assert_close(ours.weights_, local.bases[0].weights_, rtol=1e-12, atol=1e-12 * top)
        assert ours.features == 6
    for step, first, second in zip(steps[:2], local.bases[:2], local.bases[1:], strict=False):
        between = parts(first)[1] @ step.weight.detach().T @ parts(second)[0]
        torch.testing.assert_close(between.abs(), torch.eye(6).double(), rtol=0, atol=1e-10)


def folded(rows: list[Tensor], jacobians: list[Tensor]) -> list[Tensor]:
    """Weights of the published algorithm with a constant feature behind each layer, from the last section on: features
    (centred, the constant first and not rotated with the others), whitened, aligned, scaled.

    `rows`: (N, D + 1) of each layer, the last entry 1; `jacobians`: (N, D' + 1, D + 1) of each section, and the read-out.
    """
    following, found = torch.eye(rows[-1].shape[1], dtype=torch.float64), []
    for f, jacobian in zip(rows[-2::-1], jacobians[::-1], strict=True):
        n, width = f.shape
        centring = torch.eye(width, dtype=torch.float64)
        centring[-1, :-1] = -f[:, :-1].mean(dim=0)  # x Y = x - mean, for x that ends in 1
        gram = (f @ centring).T @ (f @ centring) / n
        values, vectors = torch.linalg.eigh(gram)
        constant = int(vectors[-1].abs().argmax())
        order = [constant, *(i for i in range(width) if i != constant and values[i] > 1e-12 * values.max())]
        values, vectors = values[order], vectors[:, order]
        whiten, colour = centring @ vectors / values.sqrt(), (vectors * values.sqrt()).T @ centring.inverse()
        read = torch.einsum("nij,ik->nkj", jacobian, following)
        metric = colour @ (torch.einsum("nki,nkj->ij", read, read) / n) @ colour.T
        weights, rotation = torch.linalg.eigh(metric[1:, 1:])
        weights, rotation = weights.flip(0), rotation.flip(1)
        kept = int((weights > 1e-12 * weights[0]).sum())
        found.insert(0, weights[:kept])
        own = whiten[:, 1:] @ rotation[:, :kept] * weights[:kept].sqrt()
        following = torch.cat([whiten[:, :1] * metric[0, 0].clamp(min=0).sqrt(), own], dim=1)
    return found


def test_biases_need_not_be_folded() -> None:
    """T4, I8: the centred basis with the constant as one more feature, against ours without."""
    rows = [torch.cat([rows_of(i), torch.ones(300, 1).double()], dim=1) for i in range(4)]
    big = [torch.zeros(7 + 0, 10).double(), torch.zeros(8, 10).double(), torch.zeros(5, 8).double()]
    big[0] = torch.block_diag(W1.T, torch.ones(1, 1).double())
    big[0][:-1, -1] = B1
    big[1] = torch.block_diag(W2.T, torch.ones(1, 1).double())
    big[1][:-1, -1] = B2
    big[2] = torch.block_diag(W3.T, torch.ones(1, 1).double())
    jacobians = []
    for i in range(3):
        gate = (rows[i + 1] > 0).double() if i < 2 else torch.ones_like(rows[i + 1])
        jacobians.append(gate[:, :, None] * big[i])
    rows[-1] = rows[-1][:, :-1]
    jacobians[-1] = jacobians[-1][:, :-1]  # the output carries no constant
    for ours, theirs in zip(relu_bases().bases, folded(rows, jacobians), strict=False):
        weights = parts(ours)[2]
        torch.testing.assert_close(weights, theirs, rtol=1e-9, atol=1e-12 * float(weights[0]))


# --- invariances: the three degeneracies ------------------------------------------------------------------------------


def planted(inner: nn.Module | Callable[[Tensor], Tensor], outer: nn.Module) -> Bases:
    """Bases of a network with the layers before and behind what was planted; layer 1 is the one that was changed."""
    return local_bases(Sections(chain(linear(W1, B1), torch.relu, inner, outer), [".:input", "2", "3"]), DATA)


def plain() -> Bases:
    return planted(nn.Identity(), chain(linear(W2, B2), torch.tanh))


def same(a: Bases, b: Bases, rows_a: Tensor, rows_b: Tensor) -> None:
    """Equal weights in both layers, and equal features but for their signs."""
    for layer in (0, 1):
        torch.testing.assert_close(a.bases[layer].weights_, b.bases[layer].weights_, rtol=1e-9, atol=1e-11)
    ours, theirs = a.bases[1].encode(rows_a), b.bases[1].encode(rows_b)
    torch.testing.assert_close(ours.abs(), theirs.abs(), rtol=1e-7, atol=1e-9)


def principal_changed(a: Tensor, b: Tensor) -> float:
    spectra = [PrincipalBasis().fit(x).weights_ for x in (a, b)]
    assert spectra[0] is not None
    assert spectra[1] is not None
    n = min(map(len, spectra))
    return float((spectra[0][:n] / spectra[1][:n] - 1).abs().max())


def test_an_affine_change_of_coordinates_changes_nothing() -> None:
    """T2, I4."""
    change, shift = draw(9, 9, seed=11), draw(9, seed=12)
    undo = chain(linear(change.inverse(), -shift @ change.inverse()), linear(W2, B2), torch.tanh)
    moved = planted(linear(change, shift), undo)
    hidden = rows_of(1)
    same(plain(), moved, hidden, hidden @ change + shift)
    assert principal_changed(hidden, hidden @ change + shift) > 0.5


def test_linearly_dependent_activations_change_nothing() -> None:
    """Degeneracy A: three neurons that are sums of the others, and a read-out that uses both."""
    extend = torch.cat([torch.eye(9).double(), draw(9, 3, seed=13)], dim=1)  # f -> (f, f A)
    read = torch.cat([W2 - draw(9, 3, seed=13) @ draw(3, 7, seed=14), draw(3, 7, seed=14)])
    moved = planted(linear(extend), chain(linear(read, B2), torch.tanh))
    hidden = rows_of(1)
    same(plain(), moved, hidden, hidden @ extend)
    assert moved.bases[1].activation_ is not None
    assert moved.bases[1].activation_.rank == plain().bases[1].activation_.rank  # type: ignore[union-attr]
    assert principal_changed(hidden, hidden @ extend) > 0.3


def test_directions_that_nothing_reads_change_nothing() -> None:
    """Degeneracy B: four lively neurons, curved functions of the input, that the next layer does not see."""
    mix = draw(9, 4, seed=15)
    read = torch.cat([W2, torch.zeros(4, 7).double()])
    moved = planted(lambda f: torch.cat([f, torch.sin(f @ mix)], dim=1), chain(linear(read, B2), torch.tanh))
    hidden = rows_of(1)
    wide = torch.cat([hidden, torch.sin(hidden @ mix)], dim=1)
    assert moved.bases[1].features == plain().bases[1].features
    for layer in (0, 1):
        torch.testing.assert_close(moved.bases[layer].weights_, plain().bases[layer].weights_, rtol=1e-9, atol=1e-11)
    same(plain(), moved, hidden, wide)
    assert PrincipalBasis().fit(wide).features == PrincipalBasis().fit(hidden).features + 4


def test_synchronised_neurons_mixed_change_nothing() -> None:
    """Degeneracy C: neurons that fire together may be mixed before the ReLU if they are unmixed behind it."""
    x = DATA.items.inputs
    gate = x @ draw(6, seed=16)
    first = torch.stack([gate, 2 * gate, gate * 0.5], dim=1)  # one gate, three sizes; a mean that keeps them apart
    assert bool(((first > 0).sum(dim=1) % 3 == 0).all())
    weight = torch.cat([torch.outer(draw(6, seed=16), torch.tensor([1.0, 2.0, 0.5]).double()), W1[:, :6]], dim=1)
    mix = torch.tensor([[1.0, 0.3, 0.2], [0.1, 1.5, 0.4], [0.2, 0.1, 0.7]]).double()  # positive: gates stay as they are
    whole = torch.block_diag(mix, torch.eye(6).double())
    layers = [".:input", "1", "2"]
    before = chain(linear(weight), torch.relu, chain(linear(W2, B2), torch.tanh))
    after = chain(linear(weight @ whole), torch.relu, chain(linear(whole.inverse() @ W2, B2), torch.tanh))
    torch.testing.assert_close(before(x), after(x), **CLOSE)
    a, b = (local_bases(Sections(network, layers), DATA) for network in (before, after))
    rows_a, rows_b = (rows_of(1, network, layers) for network in (before, after))
    same(a, b, rows_a, rows_b)
    assert principal_changed(rows_a, rows_b) > 0.05


def test_rotating_the_last_layer_leaves_the_others() -> None:
    sections = Sections(RELU, LAYERS)
    for neuron, rotated in zip(
        local_bases(sections, DATA).bases[:3], local_bases(sections, DATA, final="pca").bases, strict=False
    ):
        torch.testing.assert_close(neuron.weights_, rotated.weights_, **CLOSE)


# --- positions and probes ---------------------------------------------------------------------------------------------


def test_identities_hold_for_a_transformer_with_padding() -> None:
    """I2 and I3 over counted positions, from residual stream to residual stream."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Transformer(9, width=6, layers=2, heads=2, max_length=8)
    tokens = torch.randint(0, 9, (60, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.randint(2, 8, (60, 1), generator=torch.Generator().manual_seed(2))
    layers = [("blocks.0:input", "1:"), ("blocks.0", "1:"), ("blocks.1", "last")]
    sections, split = Sections(network, layers), fit(tokens, mask=mask)
    bases = local_bases(sections, split, probes=EXACT, batch_size=20)
    for layer, moments in zip((0, 1), sections.moments(split), strict=False):
        encoder, decoder, weights = parts(bases.bases[layer])
        features = encoder.T @ (moments.scatter() / moments.count) @ encoder
        torch.testing.assert_close(features, weights.diag(), rtol=1e-9, atol=1e-10)
        metric = bases.gram(sections.layers[layer].site).matrix()
        torch.testing.assert_close(decoder @ metric @ decoder.T, torch.eye(len(weights)).double(), rtol=0, atol=1e-7)
    edit = bases.edit("blocks.0", 3)
    assert edit.origin.settings["positions"] == "1:"
    (function,) = edit.functions.values()
    rows = draw(60, 7, 6)
    new = function(rows, mask)
    assert torch.equal(new[:, 0], rows[:, 0])
    assert torch.equal(new[~mask], rows[~mask])
    counted = mask & (torch.arange(7) > 0)
    torch.testing.assert_close(new[counted], bases["blocks.0"].at(3).reconstruct(rows[counted]), rtol=0, atol=0)


def test_random_probes_find_the_basis_and_say_their_error() -> None:
    sections = Sections(RELU, LAYERS)
    exact, found = local_bases(sections, DATA), local_bases(sections, DATA, probes=Probes("full", draws=64))
    gram = found.gram("3")
    relative = float((gram.matrix() - exact.gram("3").matrix()).norm() / gram.matrix().norm())
    assert 0 < relative < 3 * gram.error < 0.1
    assert found.settings["metric_relative"] == 1e-6
    assert exact.settings["metric_relative"] == 1e-12
    ratio = parts(found["3"])[2][:2] / parts(exact["3"])[2][:2]
    torch.testing.assert_close(ratio, torch.ones(2).double(), rtol=3 * gram.error, atol=0)


def test_float32_activations_find_the_same_leading_features() -> None:
    """T17: the angle between leading subspaces from float32 and float64 activations."""
    exact = relu_bases()["1"]
    single = InteractionBasis(relu_bases().gram("1").matrix(), relative=1e-6).fit(rows_of(1).float())
    for k in (1, 3, 5):
        planes = [torch.linalg.qr(parts(b)[0][:, :k]).Q for b in (exact, single)]
        cosines = torch.linalg.svdvals(planes[0].T @ planes[1]).clamp(max=1)
        assert float(torch.arccos(cosines.min())) < 1e-2


# --- proxies and edits ------------------------------------------------------------------------------------------------

METRIC = draw(16, 16, seed=20).T @ draw(16, 16, seed=20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InteractionBasis(METRIC, 4),
        lambda: InteractionBasis(METRIC),
        lambda: InteractionBasis(METRIC, 16),
        lambda: PrincipalBasis(4),
        lambda: NeuronBasis(4),
    ],
)
def test_the_battery(make: Callable[[], Basis]) -> None:
    check_proxy(make)


def test_ranks_nest() -> None:
    check_nested(PrincipalBasis)
    check_nested(NeuronBasis)
    basis, x = InteractionBasis(METRIC).fit(sample(400, 16)), sample(50, 16, seed=3).double()
    for low, high in ((2, 8), (8, 2), (3, 16)):
        twice = basis.at(high).reconstruct(basis.at(low).reconstruct(x))
        torch.testing.assert_close(twice, basis.at(min(low, high)).reconstruct(x), rtol=1e-8, atol=1e-8)
    # Projections are oblique: their error falls in the metric of the activations' covariance, not in the neurons'.
    moments = Moments()
    moments.update(sample(400, 16))
    whitened = torch.linalg.inv(moments.scatter() / 400)
    gaps = [basis.at(k).reconstruct(x) - x for k in range(17)]
    errors = [float(torch.einsum("nd,de,ne->", g, whitened, g)) for g in gaps]
    assert all(b <= a * (1 + 1e-9) + 1e-9 for a, b in pairwise(errors))
    assert torch.equal(basis.at(16).reconstruct(x), x)


def test_interaction_over_an_isotropic_metric_is_principal() -> None:
    x = sample(400, 16)
    ours, pca = InteractionBasis(torch.eye(16)).fit(x), PrincipalBasis().fit(x)
    torch.testing.assert_close(ours.weights_, pca.weights_, rtol=1e-9, atol=1e-12)
    y = sample(20, 16, seed=2).double()
    torch.testing.assert_close(ours.at(5).reconstruct(y), pca.at(5).reconstruct(y), rtol=1e-8, atol=1e-8)


def test_dropping_exact_nulls_leaves_the_output() -> None:
    """T12: a projection on all features changes nothing where only what never varies, or is never read, was dropped."""
    read = torch.cat([W2[:, :3], torch.zeros(9, 1).double()], dim=1)
    network = chain(linear(torch.cat([W1, W1[:, :2]], dim=1)), linear(torch.cat([read, W2[:2, :4]])))
    data = fit(draw(50, 6, seed=21))
    bases = local_bases(Sections(network, ["0", "1"]), data)
    assert bases["0"].width == 11
    assert bases["0"].features == 4
    x = network[0](data.items.inputs)
    torch.testing.assert_close(network[1](bases["0"].reconstruct(x)), network[1](x), rtol=0, atol=1e-8)
    assert float((bases["0"].reconstruct(x) - x).detach().abs().max()) > 0.1


def test_edits_of_a_basis_and_of_a_family() -> None:
    """A family named in a list of proxies is the basis of that site to the output, fitted by hand."""
    bases = global_bases(Sections(RELU, ["1", "."]), DATA)
    edits = fit_edits(RELU, DATA, ["1"], [Family("ib", (2, 9)), Family("pca", (2,))])
    assert [e.origin.label for e in edits] == ["ib-2", "ib-9", "pca-2"]
    rows = rows_of(1)
    for edit, count in zip(edits, (2, 9), strict=False):
        (ours,), (by_hand,) = edit.functions.values(), bases.edit("1", count).functions.values()
        torch.testing.assert_close(ours(rows, None), by_hand(rows, None), rtol=1e-12, atol=1e-12)
    assert torch.equal(edits[1].functions["1"](rows, None), rows)
    origin = bases.edit("1", 2).origin
    assert (origin.name, origin.site, origin.fit_split, origin.parameter) == ("ib", "1", "fit", 2)
    assert origin.settings["probes"] == "exact"
    assert origin.settings["relative"] == 1e-12


def test_a_plain_module_in_four_lines() -> None:
    """As a user writes it: float32, a name in a list of sites, and the basis' edit judged like any other."""
    network = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    splits = [heldout.split(n, r, x[i::3] * s, [0] * 100) for i, (n, r, s) in enumerate(PARTS)]
    sections = Sections(network, ["1", "2"])
    bases = local_bases(sections, splits[0])
    result = heldout.check(network, bases.edit("1", 3), splits[1:], null_draws=2)
    assert 0.5 < result["same_prediction", "id"].value <= 1
    assert str(result).startswith("lib-3 at 1")
    assert str(bases["1"].activation_).startswith("rank 9 of 9 above")
    for parameter in network.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad


PARTS: list[tuple[str, Any, float]] = [("train", "fit", 1.0), ("id", "test", 1.0), ("louder", "test", 3.0)]


def test_bases_of_other_kinds() -> None:
    sections = Sections(RELU, LAYERS)
    rows = rows_of(1)
    neurons, components = neuron_bases(sections, DATA)["1"], principal_bases(sections, DATA)["1"]
    kept = rows.var(dim=0).argsort(descending=True)[:4]
    expected = rows.mean(dim=0).expand_as(rows).clone()
    expected[:, kept] = rows[:, kept]
    torch.testing.assert_close(neurons.at(4).reconstruct(rows), expected, **CLOSE)
    torch.testing.assert_close(components.weights_, torch.linalg.eigvalsh(rows.T.cov(correction=0)).flip(0), **CLOSE)
    torch.testing.assert_close(components.decode(components.encode(rows)), rows, **CLOSE)


# --- spectra ----------------------------------------------------------------------------------------------------------


def test_a_rank_carries_its_tolerance() -> None:
    axes = torch.linalg.qr(draw(8, 8, seed=30)).Q
    values = torch.tensor([1.0, 0.1, 1e-4, 1e-7, 1e-10, 0, 0, 0]).double()
    spectrum = Spectrum.of(axes * values @ axes.T)
    assert spectrum.rank == 5
    assert spectrum.cut == 1e-12 * float(spectrum.values[0])
    assert spectrum.ranks((1e-12, 1e-6, 1e-3)) == {1e-12: 5, 1e-6: 3, 1e-3: 2}
    assert 0 < spectrum.noise < 1e-14
    assert "rank 5 of 8 above 1.0e-12 of the largest eigenvalue" in str(spectrum)


def test_negative_eigenvalues_are_noise_and_not_rank() -> None:
    """What is computed below zero says how large a zero may look: nothing as small is counted, none is made positive."""
    axes = torch.linalg.qr(draw(4, 4, seed=31)).Q
    spectrum = Spectrum.of(axes * torch.tensor([1.0, 0.5, 2e-6, -3e-6]).double() @ axes.T)
    assert spectrum.noise == pytest.approx(3e-6, rel=1e-6)
    assert spectrum.rank == 2
    assert spectrum.ranks((1e-12,)) == {1e-12: 2}
    assert float(spectrum.values[-1]) < 0
    with pytest.raises(ProxyError, match="not positive semidefinite"):
        Spectrum.of(torch.diag(torch.tensor([1.0, -0.1])))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_layers_of_which_there_is_no_basis() -> None:
    x = sample(400, 16)
    with pytest.raises(ProxyError, match="rank zero"):
        InteractionBasis(torch.zeros(16, 16)).fit(x)
    with pytest.raises(ProxyError, match="16 rows for 16 directions; at least 17"):
        InteractionBasis(METRIC).fit(x[:16])
    for constant in (torch.full((400, 16), 0.1), torch.zeros(400, 16), x[:1].expand(400, 16)):
        with pytest.raises(ProxyError, match="the layer is constant"):
            InteractionBasis(METRIC).fit(constant)
    with pytest.raises(ProxyError, match=r"\(16, 16\) was expected"):
        InteractionBasis(torch.eye(5)).fit(x)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        InteractionBasis(METRIC * torch.nan).fit(x)
    with pytest.raises(ProxyError, match="not fitted"):
        InteractionBasis(METRIC).reconstruct(x)
    with pytest.raises(ProxyError, match="choose from 0 to 16"):
        InteractionBasis(METRIC).fit(x).at(17)
    with pytest.raises(ConfigError, match="relative tolerance"):
        InteractionBasis(METRIC, relative=2).fit(x)


def test_networks_of_which_there_is_no_basis() -> None:
    dead = chain(linear(W1, B1), lambda x: torch.relu(-x.abs()), linear(W2))
    with pytest.raises(ProxyError, match=r"node layer 0: the Jacobian Gram .* has rank zero"):
        local_bases(Sections(dead, ["0", "2"]), DATA)
    still = chain(lambda x: x * 0 + 1, linear(W1))
    with pytest.raises(ProxyError, match="node layer 0: interaction: the layer is constant"):
        local_bases(Sections(still, ["0", "1"]), DATA)
    test = Split("test", "test", DATA.items)
    with pytest.raises(SplitError, match="may not be fitted on split 'test'"):
        local_bases(Sections(RELU, LAYERS), test)
    with pytest.raises(SplitError, match="may not be fitted on split 'test'"):
        global_bases(Sections(RELU, LAYERS), DATA, jacobian_split=test)
    assert local_bases(Sections(RELU, LAYERS), test, oracle=True).edit("1", 2).origin.oracle
    with pytest.raises(ConfigError, match="unknown node layer '7'"):
        relu_bases()["7"]
    with pytest.raises(ConfigError, match="unknown final basis"):
        local_bases(Sections(RELU, LAYERS), DATA, final="lib")  # type: ignore[arg-type]
    scored = Sections(RELU, [("1", "scored"), "."])
    with pytest.raises(ConfigError, match="does not see what is scored"):
        neuron_bases(scored, fit(DATA.items.inputs, scored=torch.ones(300, 1).bool())).edit("1", 2)
