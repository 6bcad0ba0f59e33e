"""Which degeneracy a network's free directions come from, each number with the rank and the tolerance behind it.

    counts = degeneracy_counts(free_directions(network, inputs))
    counts.table                        # one row a linear map and cause
    counts.structure, counts.gauge      # what says something about this network; what any network of its kind has

A linear map between d inputs and d' outputs (a bias is the weight of a constant input) has, with r_f the rank of its
inputs and r_g that of the gradients at its outputs::

    activations   (d - r_f) d'                   inputs that depend on each other
    gradients     (d' - r_g) d                   gradients that do
    both          -(d - r_f) (d' - r_g)          counted twice so far
    joint         r_f r_g - rank(K_g o K_f)      pairs of input and gradient that depend, though neither does alone
    gates         r_f(S) r_g(S) - k, summed      sets S of k ReLU neurons in step, beyond their own scales

and their sum, with the `gauge` (a scale each live neuron may move from its map to its readout), is P - rank H where
nothing is left `unexplained`. Gauge directions are there at every point of weight space: they are listed apart, because
they say nothing about what was learnt. What is counted is exact at its tolerance for these data; nearly free directions
are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from heldout.analyses.degeneracy.ranks import FreeDirections, LinearCount
from heldout.errors import ConfigError, unknown
from heldout.proxies.spectrum import Spectrum

CAUSES = ("activations", "gradients", "both", "joint", "gates")
TOLERANCES = (1e-12, 1e-6, 1e-3)
NORMS = ("none", "layer", "rms")


@dataclass(frozen=True, eq=False)
class DegeneracyCounts:
    """`table`: where, cause, `directions`, and for ranks `rank` of `size`, the `cut` relative to the largest
    eigenvalue, the `gap` between what counts and what does not, and the rank at other tolerances.

    `null` = `structure` + `gauge` + `unexplained`, the numbers of free directions, of `parameters`.
    """

    parameters: int
    null: int
    gauge: int
    unexplained: int
    table: pd.DataFrame

    def total(self, cause: str) -> int:
        """Directions by one cause, over all layers."""
        if cause not in CAUSES:
            raise ConfigError(unknown("cause", cause, CAUSES))
        return int(self.table.loc[self.table["cause"] == cause, "directions"].sum())

    @property
    def structure(self) -> int:
        """Directions that not every network of this architecture has: all causes together."""
        return sum(self.total(cause) for cause in CAUSES)


def degeneracy_counts(found: FreeDirections) -> DegeneracyCounts:
    """Take free directions apart by cause. A network in general position has none by any of them, but for its gauge."""
    rows: list[dict[str, object]] = []
    for name, count in found.linear.items():
        rows += _linear_rows(name, count)
    gauge = 0
    for group in found.synchronised:
        # Neurons whose outputs or gradients depend on each other have fewer scales of their own: see the rows above.
        scales = min(len(group.neurons), group.free)
        gauge += scales
        neurons = ", ".join(map(str, group.neurons))
        where = f"{group.layer}: {neurons}" + (" (always on)" if group.always else "")
        rows.append({"where": where, "cause": "gates", "directions": group.free - scales, "size": len(group.neurons)})
    columns = ["where", "cause", "directions", "rank", "size", "cut", "gap", *(f"rank_{t:g}" for t in TOLERANCES)]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return DegeneracyCounts(found.parameters, found.null, gauge, found.unexplained, table)


def _linear_rows(name: str, count: LinearCount) -> list[dict[str, object]]:
    f, g = count.input_rank, count.gradient_rank
    idle, silent = len(f.values) - f.rank, len(g.values) - g.rank
    rows: list[dict[str, object]] = [
        {"cause": "activations", "directions": count.inputs} | _rank(f, len(f.values)),
        {"cause": "gradients", "directions": count.gradients} | _rank(g, len(g.values)),
        {"cause": "both", "directions": -idle * silent, "rank": None},
        {"cause": "joint", "directions": f.rank * g.rank - count.rank.rank} | _rank(count.rank, count.size),
    ]
    return [{"where": name} | row for row in rows]


def _rank(spectrum: Spectrum, size: int) -> dict[str, object]:
    found: dict[str, object] = {"rank": spectrum.rank, "size": size, "gap": spectrum.gap}
    found["cut"] = spectrum.cut / float(spectrum.values[0])
    return found | {f"rank_{t:g}": rank for t, rank in spectrum.ranks(TOLERANCES).items()}


@dataclass(frozen=True)
class Gauge:
    """`directions` that are free in every network of an architecture, and the `group` that moves along them."""

    where: str
    group: str
    directions: int


def attention_gauge(heads: int, head_width: int, *, rotary: bool = False) -> list[Gauge]:
    """Of one attention layer: each head's values against its readout, and its queries against its keys.

    Under rotary positions a mixture of queries and keys must commute with every rotation: a scale and an angle a plane,
    d_h directions, as long as no two planes turn at one speed.
    """
    _positive(heads=heads, head_width=head_width)
    if rotary and head_width % 2:
        raise ConfigError(f"rotary positions turn planes: an even head width is needed, got {head_width}")
    keys = head_width if rotary else head_width**2
    return [
        Gauge("values and readout", "GL(d_h) a head", heads * head_width**2),
        Gauge("queries and keys", "commutant of rotations" if rotary else "GL(d_h) a head", heads * keys),
    ]


def residual_gauge(width: int, norm: str = "none") -> Gauge:
    """Of a residual stream of `width` d, written and read by linear maps alone, through `norm` without parameters.

    ``none``: any invertible map, d^2. ``layer``: rotations that keep the mean, (d - 1)(d - 2) / 2. ``rms``: rotations,
    d (d - 1) / 2. A norm without a constant under its root also leaves the stream's scale free, 1 more.
    """
    _positive(width=width)
    if norm not in NORMS:
        raise ConfigError(unknown("norm", norm, NORMS))
    if norm == "none":
        return Gauge("residual stream", "GL(d)", width**2)
    turning = width - 1 if norm == "layer" else width
    return Gauge("residual stream", f"O({'d - 1' if norm == 'layer' else 'd'})", turning * (turning - 1) // 2)


def _positive(**given: int) -> None:
    for name, value in given.items():
        if value < 1:
            raise ConfigError(f"{name.replace('_', ' ')} must be positive, got {value}")
