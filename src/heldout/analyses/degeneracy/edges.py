"""Interaction edges: how much each feature of a layer moves each feature of the next one.

    edges = edge_matrix(sections, bases, split, 0)
    edges.squares                 # (K', K): feature k of layer 0 -> feature k' of layer 1

The attribution of feature j to feature i of the next layer at position t, for one item, is (row vectors, s over positions)::

    A_(t i) j = sum_s f_sj d f'_ti / d f_sj                        rule "gradient": at the activations themselves
    A_(t i) j = sum_s f_sj int_0^1 d f'_ti / d f_sj (a f) da       rule "integrated": on the way from the mean, a = 0

and E_ij is the sum over items and t of its square over the number of input positions. Integrated attributions are complete:
they add up over j to f'_ti minus its value at the mean, as far as the quadrature goes. An edge is not a cause: features
that always move together share it as the basis happens to cut them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from heldout.activations.jacobians import MEMORY, Backward, check_items_apart
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.activations.sites import finite
from heldout.errors import ConfigError, NonFiniteError, unknown
from heldout.proxies.bases import Bases
from heldout.proxies.interaction import Basis
from heldout.tasks.base import Batch, Split

Rule = Literal["gradient", "integrated"]
RULES: tuple[Rule, ...] = ("gradient", "integrated")
NODES = 20  # of the Gauss-Legendre quadrature


@dataclass(frozen=True, eq=False)
class Edges:
    """`squares` (K', K) float64: the mean square attribution of feature k to feature k' of the next layer.

    `section` is its number; `source` and `target` are the layers' sites; `probes` and `rule` say how it was found.
    """

    section: int
    source: str
    target: str
    squares: Tensor
    rule: Rule
    probes: Probes
    positions: int

    @property
    def rms(self) -> Tensor:
        """(K', K): the root of the mean square, in units of the next layer's features."""
        return self.squares.sqrt()

    def gain(self, weights: Tensor) -> Tensor:
        """(K,): how much all edges out of a feature move, over its variance `weights` (K,). In the Local Interaction
        Basis it is 1 where the section is linear; elsewhere it says how far sensitivity and activity go together."""
        return self.squares.sum(dim=0) / weights

    def largest(self, k: int) -> Tensor:
        """(K', K) bool with exactly `k` edges kept, the largest; among equal ones the first. Raises `ConfigError`."""
        total = self.squares.numel()
        if not 0 <= k <= total:
            raise ConfigError(f"{k} edges of {self.source} -> {self.target}; choose from 0 to {total}")
        order = self.squares.flatten().sort(descending=True, stable=True).indices
        mask = torch.zeros(total, dtype=torch.bool)
        mask[order[:k]] = True
        return mask.view(self.squares.shape)


def edge_matrix(
    sections: Sections,
    bases: Bases,
    split: Split,
    section: int,
    *,
    rule: Rule = "gradient",
    nodes: int = NODES,
    probes: Probes | None = None,
    batch_size: int = 256,
    memory: int = MEMORY,
) -> Edges:
    """The edges of one section between two layers' features, over `split`.

    - `nodes`: points of the integrated rule.
    - `probes`: ``exact`` or ``position``; under the latter signs over the next layer's positions, which is unbiased.

    Raises `ConfigError` for a rule or probes that do not serve, and what `jacobian_grams` raises.
    """
    given = probes or Probes()
    source, target = sections.layers[section].site, sections.layers[section + 1].site
    total: Tensor | None = None
    positions, batched = 0, True
    for number, batch in enumerate(split.batches(batch_size)):
        sweep = _Sweep(sections, bases, sections.prepared(batch), section, rule, nodes, memory, batched)
        if number == 0:
            given = given.settled(sweep.counted_end.shape[1])
            check_items_apart(sweep.backward[0].crossing, sweep.backward[0])
            total = torch.zeros(
                bases[target].features, bases[source].features, dtype=torch.float64, device=sections.device
            )
        assert total is not None
        for feature, attributions in sweep.attributions(given):
            total.index_add_(0, feature, (attributions**2).sum(dim=1))
        batched = sweep.backward[0].batched
        positions += int(sweep.counted.sum())
        if not finite(total):
            raise NonFiniteError(f"edges {source} -> {target} are NaN or infinite on items {batch.index[:5].tolist()}")
    assert total is not None
    return Edges(section, source, target, total.cpu() / positions, rule, given, positions)


def attributions(
    sections: Sections,
    bases: Bases,
    batch: Batch,
    section: int,
    *,
    rule: Rule = "gradient",
    nodes: int = NODES,
    memory: int = MEMORY,
) -> Tensor:
    """(B, T', K', K): the attributions of single items, all of them; for a look at a few. T' are the positions that count
    in any item; where one does not count in an item, its attributions are zero."""
    sweep = _Sweep(sections, bases, sections.prepared(batch), section, rule, nodes, memory)
    found = torch.cat([a for _, a in sweep.attributions(Probes("exact"))])  # (T' K', B, K), positions first
    following = bases[sections.layers[section + 1].site].features
    return found.reshape(-1, following, *found.shape[1:]).permute(2, 0, 1, 3)


class _Sweep:
    """One batch between two layers in their features, with the points at which derivatives are taken."""

    def __init__(
        self,
        sections: Sections,
        bases: Bases,
        batch: Batch,
        section: int,
        rule: Rule,
        nodes: int,
        memory: int,
        batched: bool = True,
    ) -> None:
        if rule not in RULES:
            raise ConfigError(unknown("rule of attribution", str(rule), RULES))
        if nodes < 1:
            raise ConfigError(f"the integrated rule needs at least one node, got {nodes}")
        basis, following = (bases[sections.layers[i].site] for i in (section, section + 1))
        plain = sections.cross(batch, section, section + 1, graph=rule == "gradient")
        rows = plain.rows[0].detach()
        self.items, (self.counted, self.counted_end) = batch.index, plain.counted
        self.features = basis.encode(rows) * self.counted[..., None]  # (B, T, K); what does not count is no feature
        if rule == "gradient":
            crossings, self.weights = [plain], [1.0]
        else:
            points, weights = np.polynomial.legendre.leggauss(nodes)
            crossings = [
                sections.cross(batch, section, section + 1, enter=self._towards(basis, float(point)))
                for point in (points + 1) / 2
            ]
            self.weights = [float(w) / 2 for w in weights]
        self.backward = [Backward(c, memory=memory // 2, batched=batched) for c in crossings]
        assert basis.decoder_ is not None
        assert following.encoder_ is not None
        self.decoder, self.read = basis.decoder_.to(rows), following.encoder_.to(rows)

    def _towards(self, basis: Basis, point: float) -> Callable[[Tensor], Tensor]:
        """Rows at `point` (0 to 1) of the way from the mean, where they count."""
        return lambda rows: torch.where(self.counted[..., None], basis.decode(point * self.features), rows)

    def attributions(self, probes: Probes) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of (k,) features of the next layer, and what each feature contributes, (k, B, K)."""
        end, chunk = self.backward[0].crossing.rows[-1], self.backward[0].chunk
        for cotangents, feature in probes.cotangents(end, self.counted_end, self.items, self.read, chunk):
            if feature is None:
                raise ConfigError("edges need probes that keep features apart: choose 'exact' or 'position'")
            total = torch.zeros(len(cotangents), *self.features[:, 0].shape, dtype=self.features.dtype)
            total = total.to(self.features.device)
            for backward, weight in zip(self.backward, self.weights, strict=True):
                (gradients,) = backward(cotangents)
                total += weight * torch.einsum("kbtj,btj->kbj", gradients @ self.decoder.T, self.features)
            yield feature, total
