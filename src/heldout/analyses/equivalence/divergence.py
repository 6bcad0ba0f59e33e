"""How differently a network *thinks* about x and its representative h(x), where its greedy answers hide it.

Both prompts are followed by one and the same answer (shared teacher forcing), so that each step is asked the same thing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.tap import Tap
from heldout.analyses.equivalence.passes import Sequences, batch_of, forced
from heldout.errors import ConfigError


def divergence(
    network: nn.Module, sequences: Sequences, partner: Tensor, *, batch_size: int = 1024, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Measures of each item x and its partner h(x), (N,) float64, additive.

    - ``kl_i``: KL(p(.|x) || p(.|h(x))) at answer step i, nats, full vocabulary; 0 or more. ``kl``: their mean. Along one
      forced answer their sum is *not* the divergence of the two distributions over answers, which would average over
      answers drawn from the first.
    - ``same``: whether all steps choose the same token.
    - ``margin``: the least over the steps of (logit of the forced token - the largest other logit), nats: above 0 if and
      only if greedy decoding of x gives the forced answer. ``probability``: the least probability of a forced token.
      ``partner_*``: of h(x). Where the forced answer is the network's own greedy one, these are the minimum-token
      margin and probability.

    Raises `ConfigError` where partners differ after the first step: then the two are not asked the same thing.
    """
    other = sequences.partner(partner)
    first = sequences.steps[0] + 1
    if not torch.equal(sequences.tokens[:, first : sequences.fed], partner[:, first : sequences.fed]):
        raise ConfigError(
            f"x and its partner must share the answer that they are given, from position {first} on; "
            "write one answer behind both prompts"
        )
    parts: list[dict[str, Tensor]] = []
    with Tap(network) as tap:
        for cut in sequences.slices(batch_size):
            mine, theirs = (
                forced(tap(batch_of(s.tokens[cut, : s.fed], cut.start, device)).output, s.tokens[cut], s.steps)
                for s in (sequences, other)
            )
            kl = mine.kl(theirs)
            parts.append(
                {
                    "kl": kl.mean(dim=1),
                    **{f"kl_{i}": kl[:, i] for i in range(kl.shape[1])},
                    "same": (mine.chosen == theirs.chosen).all(dim=1),
                    "margin": mine.margin.amin(dim=1),
                    "probability": mine.given_log_p.amin(dim=1).exp(),
                    "partner_margin": theirs.margin.amin(dim=1),
                    "partner_probability": theirs.given_log_p.amin(dim=1).exp(),
                }
            )
    return {name: torch.cat([p[name].double().cpu() for p in parts]).numpy() for name in parts[0]}
