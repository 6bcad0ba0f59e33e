"""Stochastic gradient Langevin dynamics: several chains side by side from one point, each with a seed of its own.

They draw from exp(-n beta L(w) - gamma/2 |w - w0|^2), for a small step e, by::

    w  <-  w - e/2 [n beta grad L(w) + gamma (w - w0)] + sqrt(e) N(0, 1)

In a direction of curvature l, with k = n beta l + gamma, and all data in every step, that is an autoregression: the variance
t steps from w0 is (1 - a^2t) / (k (1 - e k/4)), a = 1 - e k/2. Hence three limits: the step must stay below 4/k; it inflates
what it draws by 1/(1 - e k/4); and a direction takes 2/(e k) steps to relax, the flattest 2/(e gamma). `Sampling.expected`
is the sum of all that.

Fewer items in a step (`batch`) add the noise of their gradient to the noise that is meant: chains then run hotter than they
should, and the loss, and with it the learning coefficient, comes out too high, the more so the longer the step. It is no
error that more draws mend. For the behavioural loss that noise is zero at w0 and grows with the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.chains import SHORTEST
from heldout.errors import ConfigError, NonFiniteError

WHOLE = 4_096  # items up to which every step sees all of them, and how many it sees where there are more
SHARE = 0.2  # of 1 / the largest k: the automatic step
LONGEST = 1e-3  # automatic step
LOOK = 50  # steps between two looks for chains that diverged

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """How chains are run. None is settled by the data, see `settled`.

    - `chains`, `burn_in`, `draws`: every step after burn-in is a draw.
    - `localisation`: gamma, 1 / weight^2: how strongly chains are held to the weights as they are.
    - `n_beta`: the inverse temperature times n; n / ln n where None.
    - `step`: e; where None 0.2 / (n beta l + gamma) for the largest eigenvalue l of the Hessian, at most 0.001.
    - `batch`: items in a step; where None all, up to 4096.
    - `seed`: chain s draws from (seed, s), however many there are.
    """

    chains: int = 4
    burn_in: int = 500
    draws: int = 1_500
    localisation: float = 1.0
    n_beta: float | None = None
    step: float | None = None
    batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.chains < 2:
            raise ConfigError(f"chains are judged by each other: at least 2 are needed, got {self.chains}")
        if self.draws < SHORTEST or self.burn_in < 0:
            raise ConfigError(f"at least {SHORTEST} draws after 0 or more of burn-in, got {self.draws}, {self.burn_in}")
        for name in ("localisation", "n_beta", "step"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be positive, got {value}")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"a batch needs at least one item, got {self.batch}")
        if self.seed < 0:
            raise ConfigError(f"a seed is not negative, got {self.seed}")

    def settled(self, loss: BehaviouralLoss, top: float) -> Settled:
        """With all that was None decided, for the largest eigenvalue `top` of the Hessian. Raises `ConfigError` where a
        step cannot be stable there, or n is too small for n / ln n."""
        if self.n_beta is None and loss.n < 3:
            raise ConfigError(f"n / ln n needs at least 3 predictions, got {loss.n}; give n_beta")
        n_beta = self.n_beta or loss.n / math.log(loss.n)
        steepest = n_beta * top + self.localisation
        step = self.step or min(LONGEST, SHARE / steepest)
        if step * steepest >= 4:
            raise ConfigError(
                f"with a step of {step:.3g} every chain diverges: the steepest direction is stable below {4 / steepest:.3g} "
                f"and well drawn at {SHARE / steepest:.3g}; leave step out, or make it smaller"
            )
        batch = min(self.batch or WHOLE, loss.items)
        return Settled(
            self.chains, self.burn_in, self.draws, self.localisation, n_beta, step, batch, self.seed, loss.items, top
        )


@dataclass(frozen=True)
class Settled:
    """A `Sampling` with nothing left open, for data of `items` and a Hessian whose largest eigenvalue is `top`."""

    chains: int
    burn_in: int
    draws: int
    localisation: float
    n_beta: float
    step: float
    batch: int
    seed: int
    items: int
    top: float

    @property
    def cut(self) -> float:
        """gamma / (n beta): the eigenvalue of the Hessian of L of a direction that counts half."""
        return self.localisation / self.n_beta

    @property
    def relaxation(self) -> float:
        """Steps in which the flattest direction forgets a share 1 - 1/e of where it was."""
        return 2 / (self.step * self.localisation)

    def expected(self, values: Tensor) -> Tensor:
        """What a direction of curvature `values` adds to 2 n beta times the mean loss of these very draws, in a quadratic
        landscape with all data in every step: values / (values + cut) but for the step's length and the burn-in's."""
        k = self.n_beta * values + self.localisation
        decay = (1 - self.step * k / 2).square()
        # The sum of decay^t over the draws; 1 - decay is e k (1 - e k/4).
        left = decay**self.burn_in * (1 - decay**self.draws) / (self.draws * self.step * k * (1 - self.step * k / 4))
        return self.n_beta * values / (k * (1 - self.step * k / 4)) * (1 - left)


def sample(loss: BehaviouralLoss, settings: Settled, *, progress: Progress | None = None) -> Tensor:
    """(chains, burn_in + draws) float64: L at each step before it is made, from 0 at w0; of the step's own items where it
    does not see all, which is as good an estimate.

    Computed in the dtype of `loss`. Raises `NonFiniteError` where a chain diverges, and says which, when, and what to do.
    """
    chains, steps = settings.chains, settings.burn_in + settings.draws
    seeds = [np.random.SeedSequence(settings.seed, spawn_key=(s,)).spawn(2) for s in range(chains)]
    device = loss.start.device
    noises = [_generator(noise, device) for noise, _ in seeds]
    orders = [_generator(order, torch.device("cpu")) for _, order in seeds]
    w = loss.start.expand(chains, -1).clone()
    noise = torch.empty_like(w)
    trace = torch.empty(steps, chains, dtype=loss.dtype, device=device)
    for t in range(steps):
        index = None
        if settings.batch < settings.items:
            drawn = [torch.randperm(settings.items, generator=order)[: settings.batch] for order in orders]
            index = torch.stack(drawn).to(device)
        at = w.detach().requires_grad_()
        values = loss.chains(at, index)
        (gradient,) = torch.autograd.grad(values.sum(), at)  # no chain looks at another
        trace[t] = values.detach()
        for row, generator in zip(noise, noises, strict=True):
            row.normal_(0, math.sqrt(settings.step), generator=generator)
        w.lerp_(loss.start.expand_as(w), settings.step * settings.localisation / 2)
        w.add_(gradient, alpha=-settings.step * settings.n_beta / 2).add_(noise)
        if (t + 1) % LOOK == 0 or t + 1 == steps:
            _require_finite(trace[: t + 1], settings)
            if progress is not None:
                progress(t + 1, steps)
    return trace.T.double().cpu()


def _generator(seed: np.random.SeedSequence, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))


def _require_finite(trace: Tensor, settings: Settled) -> None:
    if bool(torch.isfinite(trace[-1]).all()):  # what is once infinite or NaN does not come back
        return
    bad = ~torch.isfinite(trace)
    chain = int(bad.any(dim=0).nonzero()[0, 0])
    step = int(bad[:, chain].nonzero()[0, 0])
    others = int(bad.any(dim=0).sum()) - 1
    raise NonFiniteError(
        f"chain {chain} of {settings.chains} diverged{f', and {others} more' if others else ''}: its loss is NaN or "
        f"infinite at step {step} (last finite: {float(trace[step - 1, chain]):.3g}). Take a smaller step than "
        f"{settings.step:.3g} ({settings.step / 10:.1g}, say), or a stronger localisation than {settings.localisation:g}: "
        f"chains wander up to about {1 / math.sqrt(settings.localisation):.2g} from each weight"
    )
