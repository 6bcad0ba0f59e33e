"""Do components carry known terms? Correlations of each component with each term, and what is left beside the others.

    features = component_features(network, held, "readout:input", pca, 10)    # (N, K)
    terms = library({"volume": a, "surface": a ** (2 / 3), "pairing": pairing})
    found = correlations(features, terms)
    found.strongest, found.tolerance

Volume and surface of a nucleus correlate at .99, so a component that correlates with one does with both. The partial
correlation of a component with a term is that of what all *other* terms leave of each. It identifies nothing beyond the
library: a term that is missing lends its correlation to those like it. How large one is by chance: `partial_null`.
N items, K components, P terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.geometry.library import Library
from heldout.analyses.geometry.passes import BATCH, predict
from heldout.errors import ConfigError, StatisticsError
from heldout.evidence import Origin
from heldout.proxies.svd import SVD
from heldout.statistics.permutation import null_p
from heldout.tasks.base import Split

Floats = NDArray[np.float64]


def component_features(
    network: nn.Module,
    split: Split,
    site: str | Site,
    pca: SVD,
    count: int,
    *,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Floats:
    """(N, `count`) the network's outputs with nothing at `site` but the mean and one component, for each in turn.

    In the output's unit. Where what follows the site is affine (a linear readout), a feature is an affine function of the
    component's score: its correlations are the score's, up to sign.
    """
    if count < 1:
        raise ConfigError(f"features of {count} components; choose 1 or more")
    columns = []
    for i in range(count):
        edit = Edit.from_proxy(site, pca.keeping([i]), Origin("component", parameter=i))
        columns.append(predict(network, split, edit.functions, batch_size=batch_size, device=device))
    return np.column_stack(columns)


@dataclass(frozen=True, eq=False)
class Correlations:
    """Each (K, P), components by `terms`: `pearson`, `spearman` (of ranks), `partial` (Pearson, all other terms held
    linear). `tolerance` (P,): where it is small, the partial correlation rests on that small share of the term."""

    terms: tuple[str, ...]
    pearson: Floats
    spearman: Floats
    partial: Floats
    tolerance: Floats

    @property
    def strongest(self) -> Floats:
        """(P,) the largest |partial| of any component, for each term."""
        strongest: Floats = np.abs(self.partial).max(axis=0)
        return strongest


def correlations(components: ArrayLike | Tensor, terms: Library) -> Correlations:
    """Of components (N, K): scores or features, each of which must vary. Signs of scores are arbitrary.

    A partial correlation is 0 where the other terms leave nothing of a component.
    """
    from scipy.stats import rankdata

    y = terms.components(components)
    ranks = rankdata(y, axis=0), rankdata(terms.values, axis=0)
    return Correlations(
        terms=terms.names,
        pearson=_unit(y).T @ terms.standard,
        spearman=_unit(ranks[0]).T @ _unit(ranks[1]),
        partial=terms.partial(terms.left(y)),
        tolerance=terms.tolerance,
    )


@dataclass(frozen=True, eq=False)
class Beside:
    """A network's strongest partial correlation by term, `observed` (P,), beside those of `others` (U, P): untrained
    networks, say. `p` (P,) and `p_grid`: the chance of one as large among them, at least 1 / (1 + U), by term and for the
    largest of all terms."""

    observed: Floats
    others: Floats

    @property
    def p(self) -> Floats:
        return np.array([null_p(value, self.others[:, t]) for t, value in enumerate(self.observed.tolist())])

    @property
    def p_grid(self) -> float:
        return null_p(float(self.observed.max()), self.others.max(axis=1))

    @property
    def excess(self) -> Floats:
        """(P,) how much stronger than the strongest of the others; negative where it is not."""
        excess: Floats = self.observed - self.others.max(axis=0)
        return excess


def beside(observed: Correlations, others: Sequence[Correlations]) -> Beside:
    """One network beside others, with the same terms over the same items and as many components."""
    for other in others:
        if other.terms != observed.terms or other.partial.shape != observed.partial.shape:
            raise StatisticsError(
                f"networks are compared by the same terms and number of components: {observed.partial.shape} of "
                f"{', '.join(observed.terms)} and {other.partial.shape} of {', '.join(other.terms)}"
            )
    if not others:
        raise StatisticsError("no other network to compare with; give at least one")
    return Beside(observed.strongest, np.stack([other.strongest for other in others]))


def _unit(values: Floats) -> Floats:
    about = values - values.mean(axis=0)
    unit: Floats = about / np.linalg.norm(about, axis=0)
    return unit
