"""Topography of a token's latent space: what a network answers over a plane of embeddings, other tokens held fixed.

    answer = respond(network, "embeddings.0", tokens=(0, 100), column=0)
    chart = topography(answer, principal(table))             # PCs 1 and 2, every other PC at its mean
    walk = ring(answer, pca.mean, pca.components[:2], radius=2.0)
    walk.slices

Real tokens lie at few places of the plane: what it shows between and beyond them is extrapolation by the network.
D width, M points, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from heldout.activations.sites import Site
from heldout.activations.tap import Tap
from heldout.analyses.geometry.spectrum import Principal
from heldout.errors import ConfigError, NetworkError, NonFiniteError
from heldout.tasks.base import Batch

Floats = NDArray[np.float64]
Respond = Callable[[Floats], Floats]  # embeddings (M, D) -> (M,) numbers, or (M, C) scores of classes

SIDE = 120  # points along each side of the chart
MARGIN = 0.5  # beyond the outermost tokens, in the embedding's own unit
POINTS = 3600  # on a ring: every tenth of a degree
CHUNK = 4096


def respond(
    network: nn.Module, site: str | Site, tokens: Sequence[int], *, column: int, device: str = "cpu"
) -> Respond:
    """The network's answer to embeddings put in the place of token `column`, the other `tokens` (C,) as given.

    `site` is the embedding's output: rows (B, D) of this column alone, or (B, C, D) where one table embeds all columns.
    What stands in `tokens` at `column` itself only has to be a token. Outputs (B, 1) come back as (M,).
    """
    if not 0 <= column < len(tokens):
        raise ConfigError(f"column {column} of {len(tokens)} tokens; columns are counted from 0")
    place, row = str(Site.parse(site)), torch.tensor(list(tokens), dtype=torch.int64, device=device)

    def answer(embeddings: Floats) -> Floats:
        parts = [_answer(network, place, row, column, chunk) for chunk in _chunks(embeddings)]
        return np.concatenate(parts)

    return answer


@dataclass(frozen=True, eq=False)
class Topography:
    """Answers over a plane: `values` (Y, X) at the scores `x` (X,) and `y` (Y,) on the components `axes`; classes (int64)
    where the answers are classes. `tokens` (N, 2): the real tokens' scores."""

    axes: tuple[int, int]
    x: Floats
    y: Floats
    values: Floats | NDArray[np.int64]
    tokens: Floats


def topography(
    answer: Respond,
    pca: Principal,
    *,
    axes: tuple[int, int] = (0, 1),
    fixed: Mapping[int, float] | None = None,
    side: int = SIDE,
    margin: float = MARGIN,
    classes: bool = False,
) -> Topography:
    """The answer on a grid over two components, from `margin` below the least to above the largest of the tokens' scores.

    `fixed`: component -> score, for a plane elsewhere than through the mean; all other components are at the mean.
    `classes`: answers are (M, C), and the largest is shown.
    """
    held = dict(fixed or {})
    if axes[0] == axes[1] or set(axes) & set(held):
        raise ConfigError(f"axes {axes} and fixed components {list(held)} must all be different")
    if side < 2 or not margin >= 0:
        raise ConfigError(f"a grid needs a side of at least 2 and a margin of at least 0; got {side} and {margin}")
    pca.rows(np.zeros((1, 2 + len(held))), [*axes, *held])  # raises for a component that is not there
    shown = pca.scores[:, list(axes)]
    x, y = (np.linspace(s.min() - margin, s.max() + margin, side) for s in shown.T)
    across, up = np.meshgrid(x, y)
    scores = np.column_stack([across.ravel(), up.ravel(), *(np.full(side * side, value) for value in held.values())])
    values = _shown(answer(pca.rows(scores, [*axes, *held])), classes)
    return Topography(axes, x, y, values.reshape(side, side), shown)


@dataclass(frozen=True, eq=False)
class Ring:
    """Classes `labels` (M,) along a ring, at evenly spaced `angles` (M,) from 0 up to 2 pi."""

    angles: Floats
    labels: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.intp]:
        """Points at which another class begins than that of the point before, around the ring; none where all are one."""
        return np.flatnonzero(self.labels != np.roll(self.labels, 1))

    @property
    def slices(self) -> int:
        """How many runs of one class the ring is cut into."""
        return max(1, len(self.starts))

    @property
    def by_class(self) -> dict[int, int]:
        """class -> how many slices it has."""
        found, count = np.unique(self.labels[self.starts] if len(self.starts) else self.labels[:1], return_counts=True)
        return dict(zip(found.tolist(), count.tolist(), strict=True))

    @property
    def narrowest(self) -> int:
        """Points in the narrowest slice. Slices narrower than one point are not seen: where this is small, take more."""
        if len(self.starts) < 2:
            return len(self.labels)
        return int(np.diff(np.append(self.starts, self.starts[0] + len(self.labels))).min())


def ring(answer: Respond, centre: ArrayLike, plane: ArrayLike, radius: float, *, points: int = POINTS) -> Ring:
    """Classes along centre + radius (cos t u + sin t v), (u, v) the orthonormal rows of `plane` (2, D)."""
    middle, axes = np.asarray(centre, dtype=np.float64), np.asarray(plane, dtype=np.float64)
    if middle.ndim != 1 or axes.shape != (2, len(middle)) or not np.allclose(axes @ axes.T, np.eye(2), atol=1e-8):
        raise ConfigError(
            f"a ring needs a centre (D,) and a plane (2, D), orthonormal; got {middle.shape}, {axes.shape}"
        )
    if not (radius > 0 and np.isfinite(radius)) or points < 3:
        raise ConfigError(f"a ring needs a positive radius and at least 3 points; got {radius} and {points}")
    angles = 2 * np.pi * np.arange(points) / points
    rows = middle + radius * np.column_stack([np.cos(angles), np.sin(angles)]) @ axes
    labels = _shown(answer(rows), classes=True).astype(np.int64)
    return Ring(angles, labels)


def _shown(answers: Floats, classes: bool) -> Floats | NDArray[np.int64]:
    if answers.ndim != (2 if classes else 1):
        raise ConfigError(
            f"answers have shape {answers.shape}; {'(M, C), scores of classes' if classes else '(M,)'} is due"
        )
    return answers.argmax(axis=1) if classes else answers


def _chunks(rows: Floats) -> list[Floats]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def _answer(network: nn.Module, place: str, tokens: Tensor, column: int, rows: Floats) -> Floats:
    batch = Batch(tokens.expand(len(rows), -1), torch.arange(len(rows)))

    def put(old: Tensor, mask: Tensor | None) -> Tensor:
        new = torch.from_numpy(rows).to(old)
        if old.ndim == 2 and old.shape == new.shape:
            return new
        if old.ndim == 3 and (old.shape[0], old.shape[2]) == tuple(new.shape) and column < old.shape[1]:
            whole = old.clone()
            whole[:, column] = new
            return whole
        raise ConfigError(f"embeddings {tuple(new.shape)} do not fit site {place}, which is {tuple(old.shape)}")

    with Tap(network, edit={place: put}) as tap:
        output = tap(batch).output
    if not isinstance(output, Tensor) or output.ndim > 2 or len(output) != len(rows):
        raise NetworkError(f"{type(network).__name__} did not give (B,), (B, 1) or (B, C) for {len(rows)} items")
    if not bool(torch.isfinite(output).all()):
        raise NonFiniteError(f"{type(network).__name__} gave NaN or infinity for an embedding put in at {place}")
    values: Floats = output.double().cpu().numpy()
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
