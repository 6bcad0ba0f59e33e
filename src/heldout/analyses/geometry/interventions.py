"""What predictions owe to a structure: remove it, keep it alone, and remove as much at random.

    intervene(network, held, {"embeddings.1": Components(moments, (0, 1, 2))}, seed=0, scale=mass_numbers)

A network with a large part of its activations removed predicts badly whatever was removed. The control takes away random
directions until the displacement, mean square over the rows that were fitted, is the same
(`equivalence.ablation.random_equal_variance`). Where the structure holds nearly all variance, so must any removal of equal
size: `Intervention.overlap` then nears 1 and the two cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.activations.edits import rowwise
from heldout.activations.tap import EditFunction
from heldout.analyses.equivalence.ablation import DRAWS, Removal, random_equal_variance
from heldout.analyses.geometry.passes import BATCH, Edits, embedded, errors
from heldout.analyses.geometry.squares import Squares, squares
from heldout.analyses.similarity.checks import table
from heldout.errors import ConfigError, ProxyError
from heldout.proxies.base import check_fitted
from heldout.proxies.svd import SVD
from heldout.statistics.permutation import null_p
from heldout.tasks.base import Batch, Split

Floats = NDArray[np.float64]

FULL, REMOVED, ALONE = "full", "removed", "alone"


class Structure(Protocol):
    """A part of the rows at one site that can be taken away or kept alone."""

    @property
    def displacement(self) -> float:
        """Mean squared length of what is removed, over the rows that were fitted."""
        ...

    def removed(self, site: str) -> Edits: ...

    def alone(self, site: str) -> Edits: ...

    def random(self, seed: int) -> Removal:
        """Random directions that hold as much variance."""
        ...

    def overlap(self, other: Removal) -> float:
        """The share of what is removed that the other removal takes away too, 0 to 1."""
        ...


@dataclass(frozen=True, eq=False)
class Components:
    """Some principal components, numbered from 0, of the rows behind `moments` (of a table, or captured on train)."""

    moments: Moments
    which: Sequence[int]

    @cached_property
    def _pca(self) -> SVD:
        if not self.which:
            raise ConfigError("name at least one component to intervene on")
        return SVD(centred=True).fit_moments(self.moments).keeping(list(self.which))

    @cached_property
    def _removal(self) -> Removal:
        components, mean = check_fitted(self._pca.components_, "PCA"), check_fitted(self._pca.mean_, "PCA")
        return Removal(components.T, torch.ones(len(components), dtype=torch.float64), mean)

    @property
    def displacement(self) -> float:
        return self._removal.displacement(self.moments)

    def removed(self, site: str) -> Edits:
        return {site: rowwise(self._removal)}

    def alone(self, site: str) -> Edits:
        return {site: rowwise(self._pca)}

    def random(self, seed: int) -> Removal:
        return random_equal_variance(self.moments, self.displacement, seed=seed)

    def overlap(self, other: Removal) -> float:
        """Of the variance removed: tr(P Q C) / tr(P C) for the two projections P and Q of the covariance C."""
        covariance = self.moments.scatter().cpu() / self.moments.count
        own = self._removal.basis
        inside = own.T @ ((other.basis * other.weights) @ other.basis.T) @ own
        return float((inside * (own.T @ covariance @ own)).sum()) / self.displacement


@dataclass(frozen=True, eq=False)
class TokenCurve:
    """A curve fitted to a token table: `structure` (V, D), the part of the `tokens` (V, D) about their mean that it holds.

    `removed` leaves tokens - structure (the residual), `alone` the mean + structure. `column`: where the tokens stand in
    the inputs; `present` (n,): those that are fitted, all by default; the mean and the controls are over these.
    """

    tokens: ArrayLike | Tensor
    structure: ArrayLike
    column: int
    present: ArrayLike | None = None

    @cached_property
    def _rows(self) -> tuple[Floats, Floats, NDArray[np.intp]]:
        rows, part = table(self.tokens, "tokens"), table(self.structure, "structure")
        if rows.shape != part.shape:
            raise ConfigError(f"the structure has shape {part.shape}, the tokens {rows.shape}; they must agree")
        present = np.arange(len(rows)) if self.present is None else np.asarray(self.present, dtype=np.intp)
        return rows, part, present

    @cached_property
    def _moments(self) -> Moments:
        rows, _, present = self._rows
        moments = Moments()
        moments.update(torch.from_numpy(rows[present]))
        return moments

    @property
    def displacement(self) -> float:
        _, part, present = self._rows
        return float((part[present] ** 2).sum(axis=1).mean())

    def removed(self, site: str) -> Edits:
        rows, part, _ = self._rows
        return embedded(site, self.column, rows - part)

    def alone(self, site: str) -> Edits:
        rows, part, present = self._rows
        return embedded(site, self.column, rows[present].mean(axis=0) + part)

    def random(self, seed: int) -> Removal:
        return random_equal_variance(self._moments, self.displacement, seed=seed)

    def overlap(self, other: Removal) -> float:
        """Of the structure: <S Q, S> / <S, S>, Q the other removal's projection."""
        _, part, present = self._rows
        inside = part[present] @ other.basis.numpy()
        return float((inside**2 * other.weights.numpy()).sum() / (part[present] ** 2).sum())


@dataclass(frozen=True, eq=False)
class Intervention:
    """Errors on one split: `squares` of the network as it is (`FULL`), with the structure `REMOVED`, with nothing but it
    (`ALONE`), and with random directions removed, ``random 0`` on. `displacement` by site, in the embedding's unit squared;
    `overlap` (R,): the mean over sites of the share of the structure that each random removal takes with it."""

    squares: Squares
    displacement: dict[str, float]
    overlap: Floats

    @property
    def effect(self) -> float:
        """RMS with the structure removed less that of the network as it is, in the caller's unit."""
        return self.squares.rms(REMOVED) - self.squares.rms(FULL)

    @property
    def random(self) -> Floats:
        """(R,) the same for each random removal."""
        full = self.squares.rms(FULL)
        return np.array([self.squares.rms(random_name(i)) - full for i in range(len(self.overlap))])

    @property
    def p(self) -> float:
        """The chance that a random removal of as much variance costs as much; at least 1 / (1 + R)."""
        return null_p(self.effect, self.random)


def random_name(draw: int) -> str:
    return f"random {draw}"


def intervene(
    network: nn.Module,
    split: Split,
    parts: Mapping[str, Structure],
    *,
    seed: int,
    draws: int = DRAWS,
    scale: ArrayLike | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Intervention:
    """Edit the sites of `parts` together on `split`; `scale` (N,) as for `passes.errors`.

    Raises `ProxyError` where a structure is larger than the rows' whole variance: nothing random can match it.
    """
    if not parts or draws < 1:
        raise ConfigError(f"an intervention needs a site and at least one random draw; got {len(parts)} and {draws}")
    empty = [site for site, part in parts.items() if not part.displacement > 0]
    if empty:
        raise ProxyError(f"the structure at {empty[0]} holds no variance: there is nothing to remove")
    seeds = np.random.SeedSequence(seed).generate_state(draws * len(parts)).reshape(draws, len(parts)).tolist()
    removals = [{s: part.random(n) for n, (s, part) in zip(row, parts.items(), strict=True)} for row in seeds]
    edits: dict[str, list[Edits]] = {
        FULL: [],
        REMOVED: [part.removed(site) for site, part in parts.items()],
        ALONE: [part.alone(site) for site, part in parts.items()],
    }
    for i, removal in enumerate(removals):
        edits[random_name(i)] = [{site: rowwise(r)} for site, r in removal.items()]
    found = {
        name: errors(network, split, _together(several), scale=scale, batch_size=batch_size, device=device)
        for name, several in edits.items()
    }
    overlap = [np.mean([parts[site].overlap(r) for site, r in removal.items()]) for removal in removals]
    return Intervention(
        squares(found, split.unit_ids()), {site: part.displacement for site, part in parts.items()}, np.array(overlap)
    )


def _together(several: Sequence[Edits]) -> Edits:
    def edits(batch: Batch) -> Mapping[str, EditFunction]:
        return {place: f for e in several for place, f in (e(batch) if callable(e) else e).items()}

    return edits
