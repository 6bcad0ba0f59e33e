"""Direct standardisation: a split's ratio, had its items been spread over bins as another split's are.

Used with bins of the network's margin: agreement with *any* perturbation falls where margins shrink, so a gap that
vanishes after reweighting to the reference's margins says nothing about the proxy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.errors import StatisticsError
from heldout.statistics.ratios import ratio

Floats = NDArray[np.float64]


class Standardised(NamedTuple):
    """`ratio`: the standardised ratio; `support`: the share of the reference's weight in bins that the split fills.

    Both have the leading shape of the input. A ratio with little support describes a small part of the reference.
    """

    ratio: Floats
    support: Floats


def standardised_ratio(numerator: ArrayLike, weight: ArrayLike, reference: ArrayLike) -> Standardised:
    """sum_b w_b numerator_b / weight_b over bins with weight, w being `reference` normalised over those bins.

    All three have shape (..., B), B bins, leading axes broadcast: totals of the split per bin, and the weights of the
    reference split in the same bins. NaN with support 0 where no bin has both. It corrects for the binned quantity
    alone, and only as finely as the bins are cut.
    """
    num, den, ref = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (numerator, weight, reference)))
    if num.ndim == 0 or (den < 0).any() or (ref < 0).any():
        raise StatisticsError("standardised_ratio needs arrays of shape (..., bins) with weights >= 0")
    filled = den > 0
    supported = np.where(filled, ref, 0.0)
    terms = np.where(filled, supported * ratio(num, den), 0.0)
    total = supported.sum(axis=-1)
    return Standardised(ratio(terms.sum(axis=-1), total), np.nan_to_num(ratio(total, ref.sum(axis=-1))))
