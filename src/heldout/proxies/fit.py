"""From a network and a split to edits: capture once, fit every proxy that is asked for.

One pass over the fit split feeds the moments (for SVD, PCA, mean and random subspaces) and a reservoir (for k-means and
everything else that needs rows) of every site. What needs derivatives (the interaction basis) makes passes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import Accumulator, capture
from heldout.activations.edits import Edit, Reconstructs
from heldout.activations.probes import Probes
from heldout.activations.sections import Sections
from heldout.activations.sites import Site
from heldout.errors import ConfigError, HeldoutError, unknown
from heldout.evidence import Origin
from heldout.proxies.bases import output_basis
from heldout.proxies.clusters import KMeans
from heldout.proxies.controls import Mean, RandomSubspace
from heldout.proxies.interaction import InteractionBasis
from heldout.proxies.svd import SVD
from heldout.tasks.base import Split, require_fit

Fitted = list[tuple[float | None, Reconstructs]]


@dataclass(frozen=True)
class Family:
    """One kind of proxy over a grid of its parameter: ranks, numbers of clusters. `draw` numbers a random draw; the draws
    of a family are edits of one origin."""

    name: str
    parameters: tuple[int, ...] = ()
    draw: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def _svd(family: Family, moments: Any) -> Fitted:
    fitted = SVD(centred=family.name == "pca").fit_moments(moments)
    return [(rank, fitted.at(rank)) for rank in family.parameters]


def _kmeans(family: Family, sample: Any) -> Fitted:
    return [(k, KMeans(k, seed=family.draw, **family.options).fit(sample.rows)) for k in family.parameters]


def _haar(family: Family, moments: Any) -> Fitted:
    make = {rank: RandomSubspace(rank, seed=family.draw, **family.options) for rank in family.parameters}
    return [(rank, proxy.fit_moments(moments)) for rank, proxy in make.items()]


def _mean(family: Family, moments: Any) -> Fitted:
    return [(None, Mean().fit_moments(moments))]


def _interaction(family: Family, basis: Any) -> Fitted:
    return [(rank, basis.at(rank)) for rank in family.parameters]


# A new kind of proxy is one function, of the moments, of a sample of rows (named in SAMPLED) or of an interaction basis
# (named in DERIVED), and one line here.
FAMILIES: dict[str, Callable[[Family, Any], Fitted]] = {
    "svd": _svd,
    "pca": _svd,
    "kmeans": _kmeans,
    "haar": _haar,
    "mean": _mean,
    "ib": _interaction,
}
SAMPLED = {"kmeans"}
# Options: `output`, the site whose derivative counts (the network's output); the kind of `probes` and their `draws`.
DERIVED = {"ib"}


def derived(
    network: nn.Module, split: Split, site: str, family: Family, *, sample: int, batch_size: int, device: str
) -> InteractionBasis:
    """What the families in `DERIVED` are made from: the interaction basis of `site`, from derivatives on at most about
    `sample` positions of `split`. Raises `SiteError` where nothing differentiable joins the site to the output."""
    kind = family.options.get("probes")
    probes = None if kind is None else Probes(kind, draws=family.options.get("draws", 1), seed=family.draw)
    try:
        sections = Sections(network, [site, family.options.get("output", ".")], device=device)
        return output_basis(sections, split, probes=probes, sample=sample, seed=family.draw, batch_size=batch_size)
    except HeldoutError as error:
        raise type(error)(f"{family.name} at {site}: {error}") from error


def fit_edits(
    network: nn.Module,
    split: Split,
    sites: Iterable[str],
    families: Sequence[Family],
    *,
    oracle: bool = False,
    sample: int = 20_000,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
) -> list[Edit]:
    """One edit for each site, family and parameter, fitted on `split`.

    - `oracle`: permits a split that is tested on, and is written into every number that comes of it.
    - `sample`: the most rows that k-means sees, drawn uniformly with `seed`, and about the most positions on which the
      interaction basis (`ib`) takes derivatives.

    Raises `SplitError` where the split may not be fitted on, `ProxyError` where a rank or cluster count does not fit.
    """
    for family in families:
        if family.name not in FAMILIES:
            raise ConfigError(unknown("proxy", family.name, FAMILIES))
    if not oracle:
        require_fit(split, ", ".join(dict.fromkeys(f.name for f in families)))
    places = [str(Site.parse(s)) for s in sites]
    moments = {place: Moments() for place in places}
    # Each draw of a family has a sample of its own, so that draws differ in what they have seen.
    draws = sorted({family.draw for family in families if family.name in SAMPLED})
    rows = {(p, d): Reservoir(sample, seed=seed, shard=d) for p in places for d in draws}
    wanted: dict[str, list[Accumulator]] = {p: [moments[p], *(rows[p, d] for d in draws)] for p in places}
    capture(network, split, wanted, batch_size=batch_size, device=device)
    edits = []
    for place in places:
        for family in families:
            seen: Any = rows[place, family.draw] if family.name in SAMPLED else moments[place]
            if family.name in DERIVED:
                seen = derived(network, split, place, family, sample=sample, batch_size=batch_size, device=device)
            for parameter, proxy in FAMILIES[family.name](family, seen):
                origin = Origin(family.name, place, split.name, parameter, oracle, dict(family.options))
                edits.append(Edit.from_proxy(place, proxy, origin))
    return edits
