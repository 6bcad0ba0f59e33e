"""Synthetic brains: responses of neurons that mix the units of a network whose computation is known.

    responses = Z M + noise

Z (N, D) are a network's activations. Each neuron is a random linear mixture of `mixing` of the units (of all, where None),
with independent normal weights; `neurons` of them are recorded, drawn independently from a population without end, which
is what subsampling a large one comes to. Noise is normal and independent over neurons and stimuli: what is left of trial
noise after averaging over a stimulus's trials, its standard deviation being `noise` times the root mean square over
neurons of the signal's.

What such brains leave out: noise correlated between neurons or growing with the response, nonlinear readout, adaptation,
time, and all that real brains compute beside. They come from the very family of networks that they are compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from heldout.analyses.similarity.checks import Floats
from heldout.errors import ConfigError, StatisticsError


@dataclass(frozen=True)
class Recording:
    """`neurons` recorded; `noise`, not negative, infinite for responses without signal; `mixing`: units that feed a neuron,
    1 for neurons that are units, None for all."""

    neurons: int = 100
    noise: float = 1.0
    mixing: int | None = None

    def __post_init__(self) -> None:
        if self.neurons < 2:
            raise ConfigError(f"a recording needs 2 or more neurons; got {self.neurons}")
        if not self.noise >= 0:
            raise ConfigError(f"noise is 0 or more, in standard deviations of the signal; got {self.noise}")
        if self.mixing is not None and self.mixing < 1:
            raise ConfigError(
                f"mixing is the number of units that feed a neuron, 1 or more, or None; got {self.mixing}"
            )

    def of(self, units: Floats, rng: np.random.Generator) -> Floats:
        """Responses (N, neurons) to the stimuli behind activations `units` (N, D).

        With one state of `rng`, recordings that differ in noise alone share mixture and noise up to its size.
        """
        weights = self._weights(units.shape[1], rng)
        noise = rng.standard_normal((len(units), self.neurons))
        if math.isinf(self.noise):
            return noise
        signal: Floats = units @ weights
        spread = math.sqrt(float(signal.var(axis=0).mean()))
        if not spread > 0:
            raise StatisticsError(
                "no recorded neuron responds to the stimuli: the units that feed them are dead; record more neurons or mix "
                "more units"
            )
        signal += self.noise * spread * noise
        return signal

    def _weights(self, units: int, rng: np.random.Generator) -> Floats:
        """(D, neurons) mixture weights."""
        if self.mixing is not None and self.mixing > units:
            raise ConfigError(f"{self.mixing} units cannot feed a neuron of a network that has {units}")
        weights = rng.standard_normal((units, self.neurons))
        if self.mixing is None or self.mixing == units:
            return weights
        order = rng.random((units, self.neurons)).argsort(axis=0)
        return np.where(order < self.mixing, weights, 0.0)
