"""Error against the number of components kept: with how few directions of a site does a network predict as well?

    pca = fit_rows(network, train, "readout:input")              # or fit_table(table) for an embedding
    curve = kept(network, held, {"readout:input": pca}, (1, 2, 4, 8), scale=mass_numbers)
    curve.rms, curve.squares.rms(FULL)

Components are ordered by variance, which is a poor guide to importance: a small one may carry most of the error. The curve
says what the *network* does with rows cut to a subspace fitted on train, not what could be read from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.activations.capture import capture
from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.equivalence.ablation import Removal
from heldout.analyses.geometry.passes import BATCH, errors
from heldout.analyses.geometry.squares import Squares, squares
from heldout.analyses.similarity.checks import centred, table
from heldout.errors import ConfigError, ProxyError
from heldout.evidence import Origin
from heldout.proxies.base import check_fitted, check_rank
from heldout.proxies.svd import SVD
from heldout.tasks.base import Split, require_fit

Floats = NDArray[np.float64]

FULL = "full"  # the network as it is, among the predictors of a curve


def fit_rows(
    network: nn.Module, split: Split, site: str | Site, *, batch_size: int = BATCH, device: str = "cpu"
) -> SVD:
    """PCA of the rows at a site over a split whose role is ``fit``; raises `SplitError` for another."""
    moments, place = Moments(), str(Site.parse(site))
    capture(network, require_fit(split, f"PCA at {place}"), {place: [moments]}, batch_size=batch_size, device=device)
    return SVD(centred=True).fit_moments(moments)


def fit_table(tokens: ArrayLike | Tensor) -> SVD:
    """PCA of a table (V, D) of tokens, each once: give those that occur in train. Raises as `spectrum.principal` does."""
    rows = table(tokens, "the table of tokens")
    centred(rows, "the table of tokens")
    return SVD(centred=True).fit(torch.from_numpy(rows))


def keeping(site: str | Site, pca: SVD, rank: int) -> Edit:
    """Keeps the `rank` largest components at `site` and the mean, by taking the *others* away.

    With every component kept nothing is taken away, and the rows are the network's own, bit for bit.
    """
    components, mean = check_fitted(pca.components_, "PCA"), check_fitted(pca.mean_, "PCA")
    if not pca.centred:
        raise ProxyError("components are kept about the mean; fit with SVD(centred=True)")
    dropped = components[check_rank(rank, len(components), "PCA") :].T
    removal = Removal(dropped, torch.ones(dropped.shape[1], dtype=torch.float64), mean)
    return Edit.from_proxy(site, removal, Origin("pca", parameter=rank))


@dataclass(frozen=True, eq=False)
class Curve:
    """Errors on one split with the `ranks` (K,) largest components kept: `squares` has a predictor for each, named by
    `str(rank)`, and `FULL`, the network as it is."""

    split: str
    ranks: tuple[int, ...]
    squares: Squares

    @property
    def rms(self) -> Floats:
        """(K,) root mean square error at each rank, in the caller's unit."""
        return np.array([self.squares.rms(str(rank)) for rank in self.ranks])

    def best(self, most: int) -> int:
        """The rank of least error on this split among those of at most `most` components, the smallest of equals.

        A choice: make it on a split that you do not go on to test on.
        """
        open_to = [(rms, rank) for rms, rank in zip(self.rms.tolist(), self.ranks, strict=True) if rank <= most]
        if not open_to:
            raise ConfigError(f"no rank of at most {most} was run; there are {', '.join(map(str, self.ranks))}")
        return min(open_to)[1]


def kept(
    network: nn.Module,
    split: Split,
    bases: Mapping[str, SVD],
    ranks: Sequence[int],
    *,
    scale: ArrayLike | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Curve:
    """Run `split` with each site of `bases` cut to the same number of components, for each of `ranks`.

    `scale` (N,) as for `passes.errors`. Sums are by the split's units, for a bootstrap over clusters.
    """
    if not bases or not ranks or list(ranks) != sorted(set(ranks)):
        raise ConfigError(f"a curve needs a site, and ranks that increase; got {len(bases)} sites, ranks {list(ranks)}")
    found: dict[str, Floats] = {}
    for rank in ranks:
        functions = {place: f for site, pca in bases.items() for place, f in keeping(site, pca, rank).functions.items()}
        found[str(rank)] = errors(network, split, functions, scale=scale, batch_size=batch_size, device=device)
    found[FULL] = errors(network, split, scale=scale, batch_size=batch_size, device=device)
    return Curve(split.name, tuple(ranks), squares(found, split.unit_ids()))
