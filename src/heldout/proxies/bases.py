"""From a network and a split to a basis of each node layer.

    sections = Sections(network, [".:input", "hidden.0", "hidden.1", "."])
    bases = local_bases(sections, split)         # the Local Interaction Basis of every layer
    edit = bases.edit("hidden.0", 8)             # keep its first eight features: an edit like any other

The local basis weighs a layer by its Jacobian to the next layer's features, from the output backwards; the global one by
its Jacobian to the output itself, all layers in one sweep. They agree for linear networks and for the last section, and
differ where consecutive Jacobians are correlated over the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.activations.edits import Edit, rowwise
from heldout.activations.jacobians import MEMORY, JacobianGram, jacobian_grams
from heldout.activations.layers import NodeLayer
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.activations.tap import EditFunction
from heldout.errors import ConfigError, ProxyError, unknown
from heldout.evidence import Origin
from heldout.proxies.interaction import Basis, InteractionBasis, NeuronBasis, PrincipalBasis
from heldout.proxies.spectrum import ESTIMATED, EXACT
from heldout.tasks.base import Split, require_fit

Final = Literal["neuron", "pca"]
FINALS: tuple[Final, ...] = ("neuron", "pca")
OUTPUTS, DRAWS = (
    256,
    64,
)  # of a network: so many are differentiated one by one; of more, so many random mixtures an item


@dataclass(frozen=True, eq=False)
class Bases:
    """A basis of each node layer, by site, and how it was found: `grams`, of each layer that has one, and `settings`."""

    kind: str
    layers: tuple[NodeLayer, ...]
    bases: tuple[Basis, ...]
    fit_split: str
    oracle: bool = False
    grams: tuple[JacobianGram, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, site: str) -> Basis:
        return self.bases[self._number(site)]

    def gram(self, site: str) -> JacobianGram:
        """The Jacobian Gram behind a layer's basis. Raises `ConfigError` where there is none."""
        at = self._number(site)
        if at >= len(self.grams):
            raise ConfigError(f"the {self.kind} basis of node layer {site} has no Jacobian Gram")
        return self.grams[at]

    def edit(self, site: str, features: int) -> Edit:
        """Keeps the first `features` at a site, at the positions that the basis was found on; all D change nothing."""
        at = self._number(site)
        layer, basis = self.layers[at], self.bases[at].at(features)
        settings = {**self.settings, "positions": layer.positions, "features": basis.features}
        origin = Origin(self.kind, layer.site, self.fit_split, features, self.oracle, settings)
        return Edit({layer.site: at_positions(layer, rowwise(basis))}, origin)

    def _number(self, site: str) -> int:
        names = [layer.site for layer in self.layers]
        if NodeLayer.parse(site).site not in names:
            raise ConfigError(unknown("node layer", site, names))
        return names.index(NodeLayer.parse(site).site)


def at_positions(layer: NodeLayer, function: EditFunction) -> EditFunction:
    """`function` at the layer's positions alone; the other rows stay. Positions by what a batch scores cannot be edited."""
    if layer.positions == "all":
        return function
    if layer.positions == "scored":
        raise ConfigError(
            f"node layer {layer.site}: an edit does not see what is scored; name positions, such as 'last'"
        )

    def edit(rows: Tensor, mask: Tensor | None) -> Tensor:
        flat = rows.reshape(len(rows), -1, rows.shape[-1])
        data = torch.ones(flat.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask.flatten(1)
        counted = layer.counted(data, None).reshape(rows.shape[:-1])
        return torch.where(counted[..., None], function(rows, mask), rows)

    return edit


def neuron_bases(sections: Sections, split: Split, *, oracle: bool = False, batch_size: int = 256) -> Bases:
    """The neurons of each layer, about their mean on `split`."""
    moments = _moments(sections, split, oracle, batch_size)
    return Bases("neuron", sections.layers, tuple(NeuronBasis().fit_moments(m) for m in moments), split.name, oracle)


def principal_bases(
    sections: Sections, split: Split, *, relative: float = EXACT, oracle: bool = False, batch_size: int = 256
) -> Bases:
    """The principal components of each layer."""
    moments = _moments(sections, split, oracle, batch_size)
    found = tuple(PrincipalBasis(relative=relative).fit_moments(m) for m in moments)
    return Bases("pca", sections.layers, found, split.name, oracle, settings={"relative": relative})


def local_bases(
    sections: Sections,
    split: Split,
    *,
    final: Final = "neuron",
    probes: Probes | None = None,
    relative: float = EXACT,
    metric_relative: float | None = None,
    jacobian_split: Split | None = None,
    oracle: bool = False,
    batch_size: int = 256,
    memory: int = MEMORY,
) -> Bases:
    """The Local Interaction Basis of each layer, from the last one backwards, each to its next layer's features.

    - `final`: the basis of the last layer, its neurons (logits) or their principal components; before it, nothing changes.
    - `relative`, `metric_relative`: the cuts (see `InteractionBasis`); None is 1e-12 for exact probes, 1e-6 for random ones.
    - `jacobian_split`: data for the Jacobians, where fewer do than for the covariances; identities hold on one data set.

    Raises `SplitError` where a split may not be fitted on, and what `jacobian_grams` and `Basis.fit_moments` raise.
    """
    moments = _moments(sections, split, oracle, batch_size)
    data = split if jacobian_split is None else jacobian_split
    if not oracle:
        require_fit(data, "an interaction basis")
    bases: list[Basis] = [_final(final, relative).fit_moments(moments[-1])]
    grams: list[JacobianGram] = []
    for layer in reversed(range(len(sections))):
        (gram,) = jacobian_grams(
            sections,
            data,
            layer,
            layer + 1,
            factor=bases[0].encoder_,
            probes=probes,
            batch_size=batch_size,
            memory=memory,
        )
        grams.insert(0, gram)
        bases.insert(0, _fitted(gram, moments[layer], relative, metric_relative, sections.layers[layer]))
    settings = _settings(grams, bases, data, final)
    return Bases("lib", sections.layers, tuple(bases), split.name, oracle, tuple(grams), settings)


def global_bases(
    sections: Sections,
    split: Split,
    *,
    final: Final = "neuron",
    probes: Probes | None = None,
    relative: float = EXACT,
    metric_relative: float | None = None,
    jacobian_split: Split | None = None,
    oracle: bool = False,
    batch_size: int = 256,
    memory: int = MEMORY,
) -> Bases:
    """The (global) Interaction Basis of each layer: Jacobians to the last layer, in one reverse sweep. See `local_bases`."""
    moments = _moments(sections, split, oracle, batch_size)
    data = split if jacobian_split is None else jacobian_split
    if not oracle:
        require_fit(data, "an interaction basis")
    last = _final(final, relative).fit_moments(moments[-1])
    grams = jacobian_grams(
        sections, data, 0, len(sections), factor=last.encoder_, probes=probes, batch_size=batch_size, memory=memory
    )
    found = zip(grams, moments, sections.layers, strict=False)
    bases: list[Basis] = [*(_fitted(g, m, relative, metric_relative, layer) for g, m, layer in found), last]
    settings = _settings(grams, bases, data, final)
    return Bases("ib", sections.layers, tuple(bases), split.name, oracle, tuple(grams), settings)


def output_basis(
    sections: Sections,
    split: Split,
    *,
    probes: Probes | None = None,
    sample: int = 20_000,
    seed: int = 0,
    batch_size: int = 256,
    memory: int = 4 * MEMORY,
) -> InteractionBasis:
    """The interaction basis of the first layer to the second one's neurons.

    - `sample`: of `split`, which the covariance is of, derivatives are taken on so many positions (items, where items have
      one size), evenly over it; with all of them the identities hold.
    - `probes`: None differentiates up to 256 outputs one by one (`Probes` of kind ``auto``); for more, 64 random sign
      vectors an item stand for them.

    Raises `ProxyError` where rows are too few, and what `jacobian_grams` raises. Whether `split` may be fitted on is not
    asked here.
    """
    moments = sections.moments(split, layers=1, batch_size=batch_size)
    one = sections.cross(sections.prepared(split.items.take(split.batch_indices(1)[0])), 0, 1, graph=False)
    if probes is None:
        many = one.rows[1].shape[-1] > OUTPUTS
        probes = Probes("full", draws=DRAWS, seed=seed) if many else Probes(seed=seed)
    number = max(1, int(len(split) * sample / split.items.lengths.sum()))
    if number < len(split):
        split = split.subset(np.linspace(0, len(split) - 1, number).astype(np.int64))
    (gram,) = jacobian_grams(sections, split, 0, 1, probes=probes, batch_size=batch_size, memory=memory)
    return _fitted(gram, moments[0], EXACT, None, sections.layers[0])


def _moments(sections: Sections, split: Split, oracle: bool, batch_size: int) -> list[Moments]:
    if not oracle:
        require_fit(split, "a basis")
    return sections.moments(split, batch_size=batch_size)


def _final(final: Final, relative: float) -> Basis:
    if final not in FINALS:
        raise ConfigError(unknown("final basis", str(final), FINALS))
    return NeuronBasis() if final == "neuron" else PrincipalBasis(relative=relative)


def _fitted(
    gram: JacobianGram, moments: Moments, relative: float, metric_relative: float | None, layer: NodeLayer
) -> InteractionBasis:
    cut = (EXACT if gram.probes.kind == "exact" else ESTIMATED) if metric_relative is None else metric_relative
    try:
        return InteractionBasis(gram.matrix(), relative=relative, metric_relative=cut).fit_moments(moments)
    except ProxyError as error:
        raise ProxyError(f"node layer {layer.site}: {error}") from error


def _settings(grams: Sequence[JacobianGram], bases: Sequence[Basis], data: Split, final: Final) -> dict[str, Any]:
    """How an interaction basis was found, for the record of its edits."""
    probes, first = grams[0].probes, bases[0]
    assert isinstance(first, InteractionBasis)
    cuts = {"relative": first.relative, "metric_relative": first.metric_relative}
    seen = {"probes": probes.kind, "draws": probes.draws, "seed": probes.seed, "jacobians": data.name}
    return {"final": final, **seen, **cuts}
