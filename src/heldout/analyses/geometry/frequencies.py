"""Frequencies of a cyclic table, and what logits of pairs say at one of them.

Angles are w t with w = 2 pi k / p for token t and frequency k = 1 ... (p - 1) / 2, p odd. Tables are (p, D).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TURNS = 120  # steps of 3 degrees
Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]


def coefficients(table: Floats) -> Complex:
    """(p, D) -> (1 + p // 2, D): the table is row 0 + 2 Re sum_k row_k exp(i w_k t)."""
    return np.asarray(np.fft.rfft(table, axis=0) / len(table))


def powers(table: Floats) -> Floats:
    """(p // 2,): the share of the table's variance at each frequency; zeros where it has none."""
    found = (np.abs(coefficients(table)) ** 2).sum(axis=1)
    power, total = found[1:], found[1:].sum()
    constant = total <= 1e-24 * found[0]  # but for rounding
    return np.zeros_like(power) if constant or total == 0 else np.asarray(power / total)


def keep(table: Floats, frequencies: Iterable[int]) -> Floats:
    """The table's mean and its parts at `frequencies`, without all others."""
    found = coefficients(table)
    chosen = np.zeros(len(found), dtype=bool)
    chosen[[0, *frequencies]] = True
    return np.asarray(np.fft.irfft(np.where(chosen[:, None], found, 0) * len(table), n=len(table), axis=0))


def points(table: Floats, frequency: int, places: Complex) -> Floats:
    """(..., D): what lies at `places` (...) of the complex plane whose unit circle is `keep(table, [frequency])`, token
    t at exp(i w t). It is the plane of an ellipse in general, so that a turn of `places` is no rotation of the
    embedding."""
    found = coefficients(table)
    return np.asarray(found[0].real + 2 * (places[..., None] * found[frequency]).real)


def coherence(table: Floats) -> Floats:
    """(p // 2,): how well the angles of the tokens in the plane of the two first principal components follow w t, for
    each frequency: |mean exp(i (angle -+ w t))| of the better sense of turning, from 0 to 1 (all tokens in order,
    evenly).

    A high value does not say that the network uses the plane; zeros where the table has less than two dimensions.
    """
    p = len(table)
    scores, _ = principal_plane(table)
    if scores.shape[1] < 2:
        return np.zeros(p // 2)
    points = np.exp(1j * np.arctan2(scores[:, 1], scores[:, 0]))
    turns = np.abs(np.fft.fft(points)) / p
    return np.asarray(np.maximum(turns[1 : p // 2 + 1], turns[: p // 2 : -1]))


def principal_plane(table: Floats) -> tuple[Floats, Floats]:
    """Scores (p, 2) on the two first principal components, and the table (p, D) with all others left out."""
    mean = table.mean(axis=0)
    u, s, v = np.linalg.svd(table - mean, full_matrices=False)
    scores = u[:, :2] * s[:2]
    return scores, mean + scores @ v[:2]


class Profile(NamedTuple):
    """What logits say of the sum at one frequency, by the difference of the operands.

    - `strength` (p,): m(d), the mean over pairs with a - b = d of the logits' amplitude in phase with w (a + b).
    - `follows`: the share, from 0 to 1, of what the logits say at this frequency at all that m(d) accounts for.
    - `clock` s and `turn` u: m(d) is in proportion to s + (1 - s) |cos((w d - u) / 2)|, by least squares with s from 0
      to 1 and u (radians, -pi to pi) on a grid of `TURNS`: s = 1 where m is constant (a clock), 0 where it vanishes for
      operands that are opposite after the second has been turned by u (a pizza). NaN and 0 where mean m is not
      positive.
    - `fit`: the share of the variance of m(d) that this accounts for; NaN where m is constant.
    """

    strength: Floats
    follows: float
    clock: float
    turn: float
    fit: float


def amplitude(logits: Floats, frequency: int) -> Complex:
    """Z (p, p): 2 / p sum_c logits exp(i w c), which is exp(i w s) of logits cos(w (c - s))."""
    p = len(logits)
    return np.asarray(logits[:, :, :p] @ np.exp(2j * np.pi * frequency / p * np.arange(p)) * 2 / p)


def profile(logits: Floats, frequency: int) -> Profile:
    """Logits (p, p, C) read at one frequency; what is the same for all pairs counts for nothing."""
    p = len(logits)
    found = amplitude(logits, frequency)
    found = found - found.mean()
    a, b = np.meshgrid(np.arange(p), np.arange(p), indexing="ij")
    in_phase = (found * np.exp(-2j * np.pi * frequency / p * (a + b))).real
    strength = np.bincount(((a - b) % p).ravel(), in_phase.ravel(), minlength=p) / p
    energy = float((np.abs(found) ** 2).sum())
    follows = p * float(strength @ strength) / energy if energy > 0 else 0.0
    return Profile(strength, follows, *_fitted(strength, frequency))


def _fitted(strength: Floats, frequency: int) -> tuple[float, float, float]:
    """`clock`, `turn` and `fit` of a `Profile`."""
    p, mean = len(strength), float(strength.mean())
    varied = float(((strength - mean) ** 2).sum())
    if mean <= 0:
        return np.nan, 0.0, np.nan
    if varied <= (1e-9 * mean) ** 2 * p:  # constant but for rounding
        return 1.0, 0.0, np.nan
    turns = 2 * np.pi * (np.arange(TURNS) - TURNS // 2) / TURNS
    g = np.stack([nearness(p, frequency, turn) for turn in turns])  # (turns, p)
    centred, rest = g - g.mean(axis=1, keepdims=True), strength - mean
    spread = (centred**2).sum(axis=1)
    slopes = np.clip(centred @ rest / spread, 0, mean / g.mean(axis=1))  # s from 1 to 0
    explained = 2 * slopes * (centred @ rest) - slopes**2 * spread
    best = int(np.argmax(explained))
    constant = mean - slopes[best] * g[best].mean()
    return float(constant / (constant + slopes[best])), float(turns[best]), float(explained[best]) / varied


def nearness(p: int, frequency: int, turn: float = 0.0) -> Floats:
    """(p,): |cos((w d - turn) / 2)| of d = 0 ... p - 1, how far from the centre the average of two points of the circle
    lies that are d apart, the second turned by `turn`."""
    return np.asarray(np.abs(np.cos(np.pi * frequency * np.arange(p) / p - turn / 2)))


def agreement(logits: Floats, other: Floats, frequency: int) -> float:
    """1 - |Z - Z'|^2 / |Z - mean Z|^2 over all pairs, at one frequency: 1 where both say the same; NaN where `logits`
    say nothing."""
    first, second = amplitude(logits, frequency), amplitude(other, frequency)
    spread = float((np.abs(first - first.mean()) ** 2).sum())
    return 1 - float((np.abs(first - second) ** 2).sum()) / spread if spread > 0 else np.nan


def agreement_of(clock: float, p: int, frequency: int) -> float:
    """`agreement` of a circle read as [s + (1 - s) |cos(w d / 2)|] cos(w (a + b - c)), s = `clock`, with what the same
    reading gives for the average of both points alone, which is |cos(w d / 2)| cos(w (a + b - c)): from 1 for a pizza
    (s = 0) to 1 - mean (1 - |cos|)^2, about .77, for a clock."""
    g = nearness(p, frequency)
    return float(1 - clock**2 * ((1 - g) ** 2).sum() / ((clock + (1 - clock) * g) ** 2).sum())
