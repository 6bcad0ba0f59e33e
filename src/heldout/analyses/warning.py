"""Early warning: can one tell, where a proxy is used, that it will not answer as its network does?

Scores are of single predictions, and know neither labels nor the network's own answers there: how much of the replaced
activations the proxy loses, how far they lie from those it was fitted on, how sure it is. Baselines are the length of the
item, the position in it, and the proxy's entropy. Shapes: B batch, T position, D width, M scored predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.activations.accumulators import Moments
from heldout.activations.capture import capture
from heldout.activations.edits import Edit
from heldout.activations.tap import EditFunction, Tap
from heldout.analyses.faithfulness import Subject
from heldout.analyses.scoring import Predictions
from heldout.errors import EvidenceError, SplitError
from heldout.evidence import Estimate
from heldout.statistics.rule import mean_test
from heldout.statistics.thinning import place_hash
from heldout.tasks.base import Batch, Split, require_fit

RECONSTRUCTION, MARGIN, DISTANCE = "reconstruction error", "small margin", "distance"
LENGTH, POSITION, ENTROPY = "length", "position", "entropy"
SCORES, BASELINES = (RECONSTRUCTION, MARGIN, DISTANCE), (LENGTH, POSITION, ENTROPY)
SHRINKAGE = 1e-3  # of a covariance towards the same trace in every direction, so that it can be inverted
DRAWS = 400
LIMIT = 200_000  # predictions that are kept of a split; of more, a random draw of about half of them or more
WARNINGS = "warnings.parquet"  # what a file of these estimates is called


class Distance:
    """Squared Mahalanobis distance of rows (..., D) from the activations of a fit split, over D: 1 on average there."""

    def __init__(self, moments: Moments) -> None:
        scatter = moments.scatter() / moments.count
        width = scatter.shape[0]
        level = scatter.trace() / width
        even = torch.eye(width, dtype=scatter.dtype, device=scatter.device) * level
        covariance = (1 - SHRINKAGE) * scatter + SHRINKAGE * even
        assert moments.mean is not None
        self.mean = moments.mean
        self.precision = torch.linalg.pinv(covariance, hermitian=True)

    def __call__(self, rows: Tensor) -> Tensor:
        centred = rows.double() - self.mean.to(rows.device)
        squared: Tensor = (centred @ self.precision.to(rows.device) * centred).sum(-1) / rows.shape[-1]
        return squared


def fit_distances(
    subject: Subject, split: Split, sites: Iterable[str], *, batch_size: int = 256
) -> dict[str, Distance]:
    """The distance at each site from its activations on a ``fit`` split; patterns of attention, which have no fixed width,
    are left out."""
    require_fit(split, "a distance")
    moments = {site: Moments() for site in sites if "@attn.pattern" not in site and "@attn.scores" not in site}
    wanted: dict[str, Sequence[Any]] = {site: [m] for site, m in moments.items()}
    if wanted:
        capture(subject.network, split, wanted, batch_size=batch_size, device=subject.device)
    return {site: Distance(m) for site, m in moments.items()}


@dataclass(frozen=True, eq=False)
class Warned:
    """M predictions of one split: `unit` (M,) their clusters, `disagrees` (M,) bool, `scores` name -> (M,), each higher
    where the proxy should be trusted less."""

    unit: np.ndarray
    disagrees: np.ndarray
    scores: Mapping[str, np.ndarray]


def warn(
    subject: Subject,
    split: Split,
    edit: Edit,
    distances: Mapping[str, Distance],
    *,
    batch_size: int = 256,
    limit: int = LIMIT,
) -> Warned:
    """Every prediction of `split` with its scores, from passes of the proxied network, and whether the network itself, in
    a pass of its own that no score sees, predicts something else. Of more than `limit` predictions a random draw is kept,
    the same whatever the batches are.

    Where several sites are replaced, an error or distance is the mean over them; a site without positions counts for every
    position of its item, and where an edit's rows are not those that are scored, their mean over the item does.
    """
    units = split.unit_ids()
    watch = _Watch(edit.functions, distances)
    kept = _Kept(limit)
    for batch in split.batches(batch_size):
        batch = batch.to(subject.device)
        with Tap(subject.network) as tap:
            network = subject.scoring.predictions(tap(batch).output, batch)
        watch.clear()
        with Tap(subject.network, edit=watch.functions) as tap:
            proxy = subject.scoring.predictions(tap(batch).output, batch)
        places = _places(batch)
        inside, row_of = batch.index.sort()
        item = row_of[torch.searchsorted(inside, proxy.item)]  # the row of the batch that each prediction is in
        values = {LENGTH: _lengths(batch, places).to(item.device)[item], POSITION: proxy.place}
        values |= _unsure(proxy, subject.scoring.kind)
        values |= {name: _at(rows, item, proxy.place, places, batch) for name, rows in watch.taken().items()}
        row: dict[str, np.ndarray] = {name: v.double().cpu().numpy() for name, v in values.items()}
        row |= {"unit": units[proxy.item.cpu().numpy()], "disagrees": (~network.same(proxy)).cpu().numpy()}
        kept.add(place_hash(proxy.item.cpu().numpy(), proxy.place.cpu().numpy()), row)
    joined = kept.joined()
    if not len(joined.get("unit", ())):
        raise SplitError(f"no prediction of split {split.name!r} is scored; score other positions")
    unit, disagrees = joined.pop("unit"), joined.pop("disagrees")
    return Warned(unit, disagrees, joined)


class _Kept:
    """Rows whose hash is below a bound that is halved whenever more than `limit` are kept: memory stays within that."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bound, self.count = limit, 2**64, 0
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, hashes: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        below = hashes <= np.uint64(self.bound - 1)
        self._parts.append({name: values[below] for name, values in {**columns, "hash": hashes}.items()})
        self.count += int(below.sum())
        while self.count > self.limit:
            self.bound //= 2
            whole = self.joined(hashes=True)
            below = whole["hash"] <= np.uint64(self.bound - 1)
            self._parts = [{name: values[below] for name, values in whole.items()}]
            self.count = int(below.sum())

    def joined(self, *, hashes: bool = False) -> dict[str, np.ndarray]:
        names = [n for n in (self._parts[0] if self._parts else ()) if hashes or n != "hash"]
        return {name: np.concatenate([p[name] for p in self._parts]) for name in names}


class _Watch:
    """The functions of an edit that also note how far each row is moved and how far it lies from the fit."""

    def __init__(self, functions: Mapping[str, EditFunction], distances: Mapping[str, Distance]) -> None:
        self.functions = {site: self._noting(f, distances.get(site)) for site, f in functions.items()}
        self.clear()

    def clear(self) -> None:
        self.errors: list[Tensor] = []
        self.distances: list[Tensor] = []

    def _noting(self, function: EditFunction, distance: Distance | None) -> EditFunction:
        def noted(rows: Tensor, mask: Tensor | None) -> Tensor:
            new = function(rows, mask)
            lost = ((new - rows) ** 2).sum(-1) / (rows**2).sum(-1).clamp(min=1e-12)
            self.errors.append(lost)
            if distance is not None:
                self.distances.append(distance(rows))
            return new

        return noted

    def taken(self) -> dict[str, Tensor]:
        """The means over sites of one pass, (B, ...)."""
        found = {RECONSTRUCTION: self.errors, DISTANCE: self.distances}
        return {name: _mean(values) for name, values in found.items() if values}


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Over sites of one shape; sites of different shapes meet as means over each item."""
    if len({v.shape for v in values}) > 1:
        values = [v.flatten(1).mean(1) if v.ndim > 1 else v for v in values]
    return torch.stack([v.double() for v in values]).mean(0)


def _places(batch: Batch) -> tuple[int, ...] | None:
    """The shape (B, T) of the positions that predictions are made at, where the batch says so."""
    for marked in (batch.scored, batch.mask):
        if marked is not None:
            return tuple(marked.shape)
    if batch.targets is not None and batch.targets.ndim == 2:
        return tuple(batch.targets.shape)
    return None


def _unsure(proxy: Predictions, kind: str) -> dict[str, Tensor]:
    """How unsure the proxied network is, (M,) each: numbers have neither margin nor entropy, embeddings only the former."""
    found = {} if kind == "regression" else {MARGIN: -proxy.margin}
    if kind == "classification":
        p = proxy.log_p
        found[ENTROPY] = -(p.exp() * p).sum(-1)
    return found


def _lengths(batch: Batch, places: tuple[int, ...] | None) -> Tensor:
    """(B,) positions of each item that hold data; 1 where items have none."""
    if batch.mask is not None:
        return batch.mask.sum(1).float()
    return torch.full((len(batch),), 1.0 if places is None else float(places[1]))


def _at(rows: Tensor, item: Tensor, place: Tensor, places: tuple[int, ...] | None, batch: Batch) -> Tensor:
    """The entries of `rows` (B, ...) that M predictions are at: their own position's, or the mean over their item."""
    if rows.ndim == 2 and places == tuple(rows.shape):
        return rows[item, place]
    if rows.ndim == 2 and batch.mask is not None and batch.mask.shape == rows.shape:
        rows = (rows * batch.mask).sum(1) / batch.mask.sum(1).clamp(min=1)
    return (rows.flatten(1).mean(1) if rows.ndim > 1 else rows)[item]


def auroc(score: ArrayLike, event: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The chance that a prediction with the event has the higher score than one without; ties count half. NaN where
    either kind is missing. Each counts `weight` times (once where None). 0.5 is chance; it does not show how many of the
    warnings would be right, which depends on how common the event is."""
    return float(_Ranked(np.asarray(score, dtype=np.float64), np.asarray(event, dtype=bool)).auroc(weight))


class _Ranked:
    """Scores sorted once, for many weightings."""

    def __init__(self, score: np.ndarray, event: np.ndarray) -> None:
        if score.shape != event.shape or score.ndim != 1:
            raise EvidenceError(
                f"scores and events must be two vectors of one length; got {score.shape} and {event.shape}"
            )
        self.order = np.argsort(score, kind="stable")
        self.event = event[self.order]
        ranked = score[self.order]
        self.starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.empty(0, dtype=int)

    def auroc(self, weight: ArrayLike | None = None) -> float:
        if not len(self.order):
            return float("nan")
        w = np.ones(len(self.order)) if weight is None else np.asarray(weight, dtype=np.float64)[self.order]
        with_event = np.add.reduceat(w * self.event, self.starts)
        without = np.add.reduceat(w * ~self.event, self.starts)
        total = with_event.sum() * without.sum()
        if total == 0:
            return float("nan")
        below = np.cumsum(without) - without
        return float((with_event * (below + without / 2)).sum() / total)


def auroc_estimates(
    warned: Warned,
    *,
    where: Mapping[str, Any],
    rng: np.random.Generator,
    draws: int = DRAWS,
    names: Sequence[str] = (*SCORES, *BASELINES),
) -> list[Estimate]:
    """One row a score, quantity ``auroc: NAME``: percentile interval of a bootstrap over units, one draw for all scores.

    `where` holds the fields of `Estimate` that say what it is of. An AUROC that is undefined, or in more than 1% of the
    resamples, gives the reason.
    """
    units, inverse = np.unique(warned.unit, return_inverse=True)
    counts = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=draws)
    rows = []
    for name in names:
        shared: dict[str, Any] = {"quantity": f"auroc: {name}", "n": len(units), "null": 0.5, **where}
        shared["method"] = "bootstrap over units, one network"
        if name not in warned.scores:
            rows.append(Estimate(value=float("nan"), reason="this edit or output has no such score", **shared))
            continue
        ranked = _Ranked(warned.scores[name], warned.disagrees)
        value = ranked.auroc()
        drawn = np.array([ranked.auroc(c[inverse]) for c in counts]) if value == value else np.empty(0)
        drawn = drawn[np.isfinite(drawn)]
        if value != value or len(drawn) < 0.99 * draws:
            why = f"disagreement on {int(warned.disagrees.sum())} of {len(warned.unit)} predictions: too few of a kind"
            rows.append(Estimate(value=float("nan"), reason=why, **shared))
            continue
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append(Estimate(value=value, low=float(low), high=float(high), **shared))
    return rows


def over_runs(runs: Sequence[Estimate]) -> Estimate:
    """The mean of one AUROC over training runs, by the interval of the verdict rule; of one run, that one itself.

    Units are shared by runs, so the mean's variance over units is taken to be a single run's: at most too wide.
    """
    first = runs[0]
    n = min(e.n for e in runs)
    shared: dict[str, Any] = {
        "seed": None,
        "seeds": len(runs),
        "n": n,
        "parameter": _shared([e.parameter for e in runs]),
    }
    if undefined := next((e for e in runs if e.value != e.value), None):
        why = undefined.reason if len(runs) == 1 else f"run {undefined.seed}: {undefined.reason}"
        return replace(first, **shared, value=float("nan"), low=float("nan"), high=float("nan"), reason=why)
    if len(runs) == 1:
        return replace(first, **shared)
    variance = float(np.mean([((e.high - e.low) / 3.92) ** 2 for e in runs]))
    test = mean_test([e.value for e in runs], unit_variance=variance, n_clusters=n, delta=0.0)
    how = "t over seeds and units"
    return replace(first, **shared, value=test.value, low=test.low, high=test.high, method=how)


def _shared(sizes: Sequence[float | None]) -> float | None:
    """The size that all runs have, None where they differ."""
    return sizes[0] if len({*sizes}) == 1 else None
