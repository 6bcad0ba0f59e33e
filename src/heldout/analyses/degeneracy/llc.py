"""The local learning coefficient of a network's behavioural loss, and the effective number of its parameters.

    found = learning_coefficient(network, inputs)
    print(found)                            # 2 x LLC beside tr[H (H + cut)^-1], or why there is no number
    found.effective.value                   # N_eff = 2 x LLC; NaN where chains disagree

The volume of weights near w0 with a loss below e shrinks as e^lambda: lambda is the learning coefficient, and 2 lambda
counts parameters as a regular model has them (lambda = P/2 there). It is estimated as n beta times the mean loss of chains
drawn from exp(-n beta L - gamma/2 |w - w0|^2), less the loss at w0, which is 0 (Lau, Furman, Wang, Murfet & Wei 2023).

The number belongs to its cut-off, gamma/(n beta). In a quadratic landscape 2 lambda is tr[H (H + cut)^-1], the number of
directions whose curvature exceeds the cut, each counted in part. So both are given, at one cut, and what they differ by:

- 2 x LLC above it: directions that are flat to second order are not flat beyond, as both are in w1^2 w2^2 at 0.
- 2 x LLC below it: away from w0 the loss is flatter than its curvature at w0 says. Chains have come upon a more degenerate
  region, or the loss levels off; a stronger localisation tells how near.

It is not shown that chains have seen all of the region: those that start at w0 and do not get far agree with each other.
`expected` is the trace as these very chains would find it in a quadratic landscape, too short a burn-in and too long a step
included; where it is far from the trace, so is 2 x LLC from its limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heldout.analyses.degeneracy.behavioural import BehaviouralLoss, Kind, Parameters
from heldout.analyses.degeneracy.chains import Diagnostics
from heldout.analyses.degeneracy.curvature import PROBES, SMALL, STEPS, Curvature, curvature
from heldout.analyses.degeneracy.sgld import Progress, Sampling, Settled, sample
from heldout.evidence import Estimate
from heldout.tasks.base import Split

REACHED = 0.9  # of the trace; chains that would show less in a quadratic landscape have not had the time


@dataclass(frozen=True)
class EffectiveParameters:
    """N_eff with all that it depends on: `n` predictions, the `cut` (an eigenvalue of the Hessian of the loss), the `loss`
    and its normalisation in words, and the `method`. `value` is NaN where `reason` says why."""

    value: float
    low: float
    high: float
    n: int
    cut: float
    loss: str
    method: str
    reason: str = ""

    def __str__(self) -> str:
        number = "not given" if self.reason else f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
        because = f": {self.reason}" if self.reason else ""
        return f"{number}, {self.method}, n = {self.n}, cut-off {self.cut:.3g}, loss: {self.loss}{because}"

    def estimate(self, quantity: str) -> Estimate:
        """As a row of the estimates table; n, cut-off and loss stand in `method`."""
        method = f"{self.method}; n = {self.n}, cut-off {self.cut:.6g}, loss: {self.loss}"
        return Estimate(quantity, self.value, self.low, self.high, method, n=self.n, reason=self.reason)


@dataclass(frozen=True, eq=False)
class LearningCoefficient:
    """What `learning_coefficient` found.

    `value` is the LLC with its 95% interval `low` to `high` (Student's t over chains: other chains of this length), all NaN
    where `reason` says why. `trace` (chains, draws) are the losses it is made of, burn-in left out; `settings`, `parameters`
    (how many were free), `split`, `dtype` and `stacked` (chains side by side, or the reason why not) say how.
    """

    value: float
    low: float
    high: float
    reason: str
    trace: Tensor
    diagnostics: Diagnostics
    settings: Settled
    curvature: Curvature
    n: int
    loss: str
    parameters: int
    split: str
    dtype: str
    stacked: str

    @property
    def cut(self) -> float:
        return self.settings.cut

    @property
    def effective(self) -> EffectiveParameters:
        """N_eff = 2 x LLC."""
        return self._parameters(2 * self.value, 2 * self.low, 2 * self.high, "2 x LLC by SGLD", self.reason)

    @property
    def quadratic(self) -> EffectiveParameters:
        """tr[H (H + cut)^-1]: what 2 x LLC would be were the landscape quadratic and the chains ideal."""
        return self._trace(self.curvature.effective(self.cut), "tr[H (H + cut)^-1]")

    @property
    def expected(self) -> EffectiveParameters:
        """The same as chains of this length and step would find it in a quadratic landscape."""
        return self._trace(self.curvature.trace(self.settings.expected), "tr[H (H + cut)^-1] as these chains find it")

    @property
    def meaning(self) -> str:
        """What the two numbers say together, in one sentence."""
        if self.reason:
            return "nothing can be said of higher orders without the learning coefficient"
        ours, theirs = self.effective, self.expected
        if ours.low > theirs.high:
            return "above the quadratic count: directions that are flat to second order are not flat beyond"
        if ours.high < theirs.low:
            return (
                "below the quadratic count: away from these weights the loss is flatter than its curvature at them says"
            )
        return "as the quadratic count: no sign of degeneracy beyond second order"

    def __str__(self) -> str:
        lines = [
            f"N_eff: {self.effective}",
            f"beside it: {self.quadratic}",
            f"{self.expected.method}: {self.expected.value:.4g}",
        ]
        quadratic, expected = self.quadratic.value, self.expected.value
        if expected < REACHED * quadratic:
            lines.append(
                f"these chains are too short to see it all: the flattest direction takes {self.settings.relaxation:.3g} "
                f"steps to relax, they have {self.settings.burn_in} of burn-in and {self.settings.draws} draws"
            )
        if self.settings.batch < self.settings.items:
            lines.append(
                f"steps saw {self.settings.batch} of {self.settings.items} items: the noise of that makes 2 x LLC too high, "
                "by less where the step is shorter"
            )
        lines.append(self.meaning)
        d = self.diagnostics
        lines.append(
            f"{self.settings.chains} chains: split R-hat {d.r_hat:.3f}, {d.effective_draws:.0f} effective draws, "
            f"drift p = {d.drift_p:.2g}"
        )
        return "\n".join(lines)

    def _trace(self, found: tuple[float, float], what: str) -> EffectiveParameters:
        value, error = found
        half = _t_half(len(self.curvature.nodes)) * error if error else 0.0
        return self._parameters(value, value - half, value + half, f"{what}, {self.curvature.method}", "")

    def _parameters(self, value: float, low: float, high: float, method: str, reason: str) -> EffectiveParameters:
        return EffectiveParameters(value, low, high, self.n, self.cut, self.loss, method, reason)


def learning_coefficient(
    network: nn.Module,
    data: Split | Any,
    *,
    loss: Kind = "mse",
    parameters: Parameters | None = None,
    output: str = "",
    sampling: Sampling | None = None,
    dtype: torch.dtype | None = None,
    small: int = SMALL,
    probes: int = PROBES,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> LearningCoefficient:
    """The local learning coefficient of the `loss` of `network` around its weights, with its diagnostics.

    - `data`: a `Split` or the network's inputs; `parameters`, `output`, `dtype`: see `BehaviouralLoss`. Curvature is
      computed in float64 whatever the chains' `dtype`.
    - `sampling`: how chains are run, see `Sampling`; the step follows from the curvature.
    - `small`, `probes`, `steps`: of the curvature, see `curvature`.

    Where chains disagree (split R-hat of 1.05 or more) or drift (p below 0.05) there is no value, and `reason` says what
    to do; chains that are as they should be are refused one time in twenty. Raises `NonFiniteError` where a chain diverges.
    """
    asked = sampling or Sampling()
    chosen = BehaviouralLoss(network, data, kind=loss, parameters=parameters, output=output, dtype=dtype)
    double = chosen
    if chosen.dtype != torch.float64:
        double = BehaviouralLoss(network, data, kind=loss, parameters=parameters, output=output, dtype=torch.float64)
    curved = curvature(double, small=small, probes=probes, steps=steps, seed=asked.seed)
    settings = asked.settled(chosen, curved.top)
    trace = sample(chosen, settings, progress=progress)[:, settings.burn_in :]
    diagnostics = Diagnostics.of(trace)
    value, low, high = _mean(settings.n_beta * trace)
    reason = _refusal(diagnostics, settings)
    if reason:
        value = low = high = math.nan
    return LearningCoefficient(
        value=value,
        low=low,
        high=high,
        reason=reason,
        trace=trace,
        diagnostics=diagnostics,
        settings=settings,
        curvature=curved,
        n=chosen.n,
        loss=chosen.normalisation,
        parameters=chosen.size,
        split=chosen.split,
        dtype=str(chosen.dtype).removeprefix("torch."),
        stacked="chains side by side" if chosen.stacked else f"chains one by one: {chosen.reason}",
    )


def _mean(draws: Tensor) -> tuple[float, float, float]:
    """The mean of (S, D) and its 95% interval over chains."""
    means = draws.mean(1)
    value, error = float(means.mean()), float(means.std()) / math.sqrt(len(means))
    half = _t_half(len(means)) * error
    return value, value - half, value + half


def _t_half(n: int) -> float:
    """Standard errors to either side of a mean of `n` that hold it 95 times in 100."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))


def _refusal(diagnostics: Diagnostics, settings: Settled) -> str:
    if not diagnostics.complaint:
        return ""
    return (
        f"{diagnostics.complaint}. Draw longer: the flattest direction takes {settings.relaxation:.3g} steps to relax, here "
        f"are {settings.burn_in} of burn-in and {settings.draws} draws; or hold chains closer, with a localisation above "
        f"{settings.localisation:g}, which counts fewer directions (the cut-off rises with it)"
    )
