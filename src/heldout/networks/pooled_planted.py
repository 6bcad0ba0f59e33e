"""Networks that add modulo p in a known way, in closed form: what a diagnosis must name right.

A token t lies on circles, at angle w t with w = 2 pi k / p. One ReLU of each sign gives the absolute value of

    cos(w a + f) + cos(w b + g) = 2 cos((w (a + b) + f + g) / 2) cos((w (a - b) + f - g) / 2),

and summed over phases f + g = w j, j = 0 ... p - 1, weighted by cos(w (c + j)), exactly the first harmonic of w (a + b
- c) is left. The difference f - g decides the algorithm (names: Zhong et al., "The Clock and the Pizza", 2023):

- always 0 (*pizza*): logits are |cos(w (a - b) / 2)| cos(w (a + b - c)), a function of the average of both points;
- all of w i, i = 0 ... p - 1 (*clock*): the factor of a - b adds up to a constant, and logits are cos(w (a + b - c)).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from heldout.errors import ConfigError
from heldout.networks.pooled import PooledMLP, Pooling

Floats = NDArray[np.float64]


def planted(modulus: int, clocks: Mapping[int, float], *, pooling: Pooling = "concat") -> PooledMLP:
    """A float64 network of which the logits are, over frequencies k of `clocks` with shares s_k from 0 to 1,

        sum_k [s_k + (1 - s_k) |cos(w_k (a - b) / 2)|] cos(w_k (a + b - c)):

    0 is a pizza, 1 a clock, anything between a mixture on one circle. Embeddings have two dimensions for each
    frequency; units are 2 p for a pizza and 2 p^2 for a clock. Raises `ConfigError` where `modulus` is even or below 3,
    a frequency lies outside 1 to (p - 1) / 2, or a clock is asked of the ``mean``, to which it is impossible.
    """
    p = modulus
    if p < 3 or p % 2 == 0:
        raise ConfigError(f"planted: modulus must be odd and at least 3, got {p}")
    if not clocks or any(not 1 <= k <= p // 2 or not 0 <= s <= 1 for k, s in clocks.items()):
        raise ConfigError(
            f"planted: frequencies from 1 to {p // 2} with shares from 0 to 1 are needed, got {dict(clocks)}"
        )
    if pooling == "mean" and any(clocks.values()):
        raise ConfigError("planted: the mean of two embeddings leaves no clock; give shares of 0, or pooling 'concat'")
    tokens = np.arange(p)
    table, inputs, outputs = np.zeros((p, 2 * len(clocks))), [], []
    for i, (k, share) in enumerate(clocks.items()):
        w, plane = 2 * np.pi * k / p, slice(2 * i, 2 * i + 2)
        table[:, plane] = circle(w * tokens)
        for differences, weight in ((np.zeros(1), 1 - share), (w * tokens, share)):
            if weight == 0:
                continue
            total, difference = (x.ravel() for x in np.meshgrid(w * tokens, differences, indexing="ij"))
            phases = ((total + difference) / 2, (total - difference) / 2)
            units = np.zeros((len(total), 2, table.shape[1]))
            for token, phase in enumerate(phases):
                units[:, token, plane] = circle(-phase)
            gain = 2 * first_harmonic(p) * (1 if len(differences) == 1 else absolute_sum(p))
            answers = weight / gain * np.cos(total[:, None] + w * tokens)  # (units, p)
            inputs += [units, -units]
            outputs += [answers, answers]
    units = np.concatenate(inputs)
    weights = 2 * units[:, 0] if pooling == "mean" else units.reshape(len(units), -1)
    return _network(table, weights, np.zeros(len(units)), np.concatenate(outputs).T, np.zeros(p), pooling)


def planted_lookup(answers: ArrayLike, *, seed: int = 0) -> PooledMLP:
    """A float64 network that has `answers` (p, p), symmetric, by heart: no circle, no rule.

    Tokens lie on a line, in an order drawn by `seed`, so that all sums of two differ (Mian and Chowla's sequence,
    1944), and a piecewise linear function of the mean passes through the right answers.
    """
    given = np.asarray(answers)
    p = len(given)
    if given.shape != (p, p) or not (given == given.T).all():
        raise ConfigError("planted_lookup: answers must be a symmetric table (p, p), since the mean knows no order")
    places = np.random.default_rng(seed).permutation(_distinct_sums(p)).astype(np.float64)
    a, b = np.triu_indices(p)
    means = (places[a] + places[b]) / 2
    order = np.argsort(means)
    knots, values = means[order], np.eye(p)[given[a, b][order]]  # (n,), (n, p)
    slopes = np.diff(values, axis=0) / np.diff(knots)[:, None]
    turns = np.diff(slopes, axis=0, prepend=np.zeros((1, p)))
    return _network(places[:, None], np.ones((len(turns), 1)), -knots[:-1], turns.T, values[0], "mean")


def circle(angle: NDArray[np.floating[Any]]) -> Floats:
    """(..., 2): the points at `angle` (...) on the unit circle."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float64)


def first_harmonic(p: int) -> float:
    """sum over n of |cos(pi n / p)| cos(2 pi n / p), which is positive."""
    n = np.arange(p)
    return float(np.abs(np.cos(np.pi * n / p)) @ np.cos(2 * np.pi * n / p))


def absolute_sum(p: int) -> float:
    """sum over n of |cos(pi n / p)|."""
    return float(np.abs(np.cos(np.pi * np.arange(p) / p)).sum())


def _network(
    table: Floats, weights: Floats, biases: Floats, readout: Floats, offsets: Floats, pooling: Pooling
) -> PooledMLP:
    vocabulary, width = table.shape
    with torch.random.fork_rng(devices=[]):  # the weights that the constructor draws are all replaced
        network = PooledMLP(vocabulary, width=width, hidden=len(biases), pooling=pooling, classes=len(offsets)).double()
    parts = (table, weights, biases, readout, offsets)
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), parts, strict=True):
            parameter.copy_(torch.from_numpy(values))
    return network.eval()


def _distinct_sums(count: int) -> NDArray[np.int64]:
    """The least numbers, greedily from 1, of which no two pairs (a number with itself among them) have one sum."""
    found: list[int] = []
    sums: set[int] = set()
    candidate = 0
    while len(found) < count:
        candidate += 1
        new = {candidate + other for other in [*found, candidate]}
        if not new & sums:
            found.append(candidate)
            sums |= new
    return np.array(found)
