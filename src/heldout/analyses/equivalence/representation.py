"""Is x represented as its representative h(x) is? Distances, beside a control that changes as much of the prompt.

d(x, h(x)) alone means little: a change of two tokens of ten may move an activation little anyway. The control x' changes
*as many tokens as h does*, at positions that the rule uses, and keeps the next token; so d(x, h(x)) / d(x, x') near 0 says
that the tokens which h changes are ignored there, and near 1 or above that they leave as much of a trace as tokens of
which the rule needs some. A position that predicts one digit may well ignore the used tokens of all others: then the
control moves little itself, and the ratio to `same_class` says more about the scale.

N items, T positions, P positions read, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from heldout.analyses.equivalence.passes import Sequences, activations
from heldout.errors import ConfigError, StatisticsError
from heldout.statistics.permutation import sign_flip_test

REPRESENTATIVE, CONTROL = "d_representative", "d_control"


def matched_control(
    tokens: Tensor,
    partner: Tensor,
    used: Sequence[int],
    keeps: Callable[[Tensor], Tensor],
    *,
    digits: Tensor,
    rng: np.random.Generator,
    tries: int = 1000,
) -> Tensor:
    """(N, T) tokens x' that differ from x in as many tokens as `partner` does, all at `used` positions.

    - `keeps`: tokens (M, T) -> (M,) or (M, K) what must stay as in x, for example the rule's next token.
    - `digits`: (V,) the tokens that may be written at a used position.

    Positions, and then other digits, are drawn uniformly and rejected until `keeps` holds: uniform over all that is
    allowed. Items in which the partner changes nothing keep all their tokens. Raises `StatisticsError` where some item
    finds none in `tries` draws, `ConfigError` where more tokens change than are used.
    """
    changes = (tokens != partner).sum(dim=1)
    if int(changes.max()) > len(used):
        raise ConfigError(f"a partner changes {int(changes.max())} tokens, but only {len(used)} positions are used")
    if not bool(torch.isin(tokens[:, list(used)], digits).all()):
        raise ConfigError("a used position holds a token that is none of the digits; name positions of digits only")
    control, wanted = tokens.clone(), keeps(tokens)
    at = torch.tensor(list(used))
    place = torch.searchsorted(digits.sort().values, tokens[:, list(used)].contiguous())
    ordered = digits.sort().values
    open_ = torch.arange(len(tokens))[changes > 0]
    for _ in range(tries):
        if not len(open_):
            return control
        rank = torch.from_numpy(rng.random((len(open_), len(used))).argsort(axis=1).argsort(axis=1))
        step = torch.from_numpy(rng.integers(1, len(digits), size=(len(open_), len(used))))
        moved = torch.where(rank < changes[open_, None], (place[open_] + step) % len(digits), place[open_])
        trial = tokens[open_].clone()
        trial[:, at] = ordered[moved]
        same = (keeps(trial) == wanted[open_]).reshape(len(open_), -1).all(dim=1)
        control[open_[same]] = trial[same]
        open_ = open_[~same]
    if len(open_):
        raise StatisticsError(
            f"{len(open_)} of {len(tokens)} items have no control in {tries} draws, the first is item {int(open_[0])}: "
            "changing so many used tokens does not keep what must be kept"
        )
    return control


def same_class(classes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64: for each item another one of its class, at random, each taken once: a second, coarser control.

    The distance between representatives of one class is how far apart items lie that share their next token and nothing
    else. Raises `StatisticsError` where a class has a single item.
    """
    found = np.empty(len(classes), dtype=np.int64)
    for kind in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == kind))
        if len(members) < 2:
            raise StatisticsError(f"class {kind} has a single item: there is no other of its class")
        found[members] = np.roll(members, 1)
    return found


def distances(
    network: nn.Module,
    sequences: Sequences,
    others: Mapping[str, Tensor],
    sites: Sequence[str],
    positions: Sequence[int],
    *,
    batch_size: int = 1024,
    device: str = "cpu",
) -> dict[str, dict[str, np.ndarray]]:
    """site -> name -> (N, P) float64: Euclidean distance of x's activation to that of each of `others` (N, T).

    Call it with `REPRESENTATIVE` and `CONTROL` for the two; for the untrained network beside, call it on that. Distances
    of different sites have different scales: only their ratios compare. Positions behind the prompt see the forced answer,
    which all must then share: such a control keeps the whole answer and not only the next token.
    """
    found: dict[str, dict[str, list[Tensor]]] = {site: {name: [] for name in others} for site in sites}
    settings = {"batch_size": batch_size, "device": device}
    streams = [
        activations(network, s, sites, positions, **settings)  # type: ignore[arg-type]
        for s in (sequences, *(sequences.partner(tokens) for tokens in others.values()))
    ]
    for (_, here), *there in zip(*streams, strict=True):
        for name, (_, rows) in zip(others, there, strict=True):
            for site in sites:
                found[site][name].append((here[site] - rows[site]).norm(dim=-1))
    return {site: {name: torch.cat(parts).numpy() for name, parts in of.items()} for site, of in found.items()}


@dataclass(frozen=True, eq=False)
class DistanceRatio:
    """`value`: sum of d(x, h(x)) over sum of d(x, x'), 0 or more; `by_class` (C,) the same within each class, and `n` (C,).

    `p`: of the hypothesis that within a class h(x) is no nearer than the control, one-sided, by flipping the sign of each
    class's difference: at least 2^-C. NaN where a denominator is 0, which `reason` says.
    """

    value: float
    by_class: np.ndarray
    n: np.ndarray
    p: float
    reason: str = ""


def distance_ratio(
    representative: np.ndarray, control: np.ndarray, classes: np.ndarray, *, rng: np.random.Generator | None = None
) -> DistanceRatio:
    """Distances (N,) of one site and position by class (N,); classes are what the next token is.

    The ratio is of sums (as the verdict rule's estimand is, from the columns `REPRESENTATIVE` and `CONTROL`), not a mean of
    ratios. `rng` is needed beyond 18 classes. A small ratio does not show that what h changes is *erased*: a probe of
    the ignored digit says that.
    """
    if not len(representative) == len(control) == len(classes) > 0:
        raise ConfigError(
            f"one class for each pair of distances is needed; got {len(representative)}, {len(control)}, {len(classes)}"
        )
    _, at, n = np.unique(classes, return_inverse=True, return_counts=True)
    near, far = (np.bincount(at, weights=d) for d in (representative, control))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_class = np.where(far > 0, near / far, np.nan)
    if far.sum() == 0:
        return DistanceRatio(float("nan"), by_class, n, float("nan"), "the control moves nothing here")
    p = sign_flip_test((near - far) / n, alternative="less", rng=rng)
    return DistanceRatio(float(near.sum() / far.sum()), by_class, n, p)
