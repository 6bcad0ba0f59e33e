"""What attention heads do: previous-token and induction scores, and heads by type with as many random ones beside.

Shapes: B batch, H heads, T positions (queries and keys alike).

After Olsson et al. (2022), *In-context learning and induction heads*: the induction score is attention on the position
after the earlier occurrence of the current token, in a random string that stands twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.tap import Tap
from heldout.errors import ConfigError, SiteError
from heldout.tasks.base import Batch


@dataclass(frozen=True)
class HeadScore:
    """One head's scores, each a mean share of attention, 0 to 1: high ones show where it looks, not what it is for."""

    module: str
    head: int
    previous: float
    induction: float


def previous_token_score(pattern: Tensor) -> Tensor:
    """(..., T, T) -> (...): mean attention from each position but the first to the one before it."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)


def induction_score(pattern: Tensor, length: int) -> Tensor:
    """(..., 1 + 2 L, 1 + 2 L) -> (...), L = `length`: mean attention from position t of the second copy to t - L + 1.

    The last position is left out: what follows its earlier occurrence is the second copy itself.
    """
    if pattern.shape[-1] != 1 + 2 * length or pattern.shape[-2] != 1 + 2 * length:
        raise ConfigError(
            f"the induction score of strings of {length} needs patterns over {1 + 2 * length} positions (a first mark, and "
            f"the string twice), got {tuple(pattern.shape[-2:])}"
        )
    if length < 2:
        raise ConfigError(f"a repeated string needs a length of at least 2, got {length}")
    return pattern.diagonal(offset=1 - length, dim1=-2, dim2=-1)[..., 2:-1].mean(-1)


def repeated_strings(tokens: Sequence[int], *, length: int, bos: int, count: int, seed: int) -> Tensor:
    """(`count`, 1 + 2 L) int64: `bos` and two copies of a random string of L different ones of `tokens`."""
    if length > len(tokens):
        raise ConfigError(f"strings of {length} different tokens cannot be drawn from {len(tokens)}")
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(np.asarray(tokens, dtype=np.int64))[:length] for _ in range(count)])
    first = np.full((count, 1), bos, dtype=np.int64)
    return torch.from_numpy(np.concatenate([first, drawn, drawn], axis=1))


def head_scores(
    network: nn.Module,
    modules: Sequence[str],
    tokens: Sequence[int],
    *,
    bos: int,
    length: int = 64,
    count: int = 16,
    seed: int = 0,
    device: str = "cpu",
) -> list[HeadScore]:
    """Both scores of every head of `modules` on `count` repeated random strings, module by module.

    The network is called with (B, 1 + 2 L) tokens and must allow that many positions. The previous-token score is over
    the same strings, where nothing but the position before can be told apart by content.
    """
    inputs = repeated_strings(tokens, length=length, bos=bos, count=count, seed=seed).to(device)
    sites = [f"{module}@attn.pattern" for module in modules]
    with Tap(network, read=sites) as tap:
        reading = tap(Batch(inputs, torch.arange(count, device=device)))
    found = []
    for module, site in zip(modules, sites, strict=True):
        pattern = reading[site]
        if pattern.ndim != 4:
            raise SiteError(f"site {site}: a pattern (B, H, T, T) is needed, got shape {tuple(pattern.shape)}")
        previous, induction = previous_token_score(pattern).mean(0), induction_score(pattern, length).mean(0)
        found += [
            HeadScore(module, head, float(previous[head]), float(induction[head])) for head in range(pattern.shape[1])
        ]
    return found


def induction_and_random(
    scores: Sequence[HeadScore], *, count: int, draws: int, seed: int
) -> tuple[list[HeadScore], list[list[HeadScore]]]:
    """The `count` heads of the highest induction score, and `draws` sets of as many of the other heads.

    Sets are drawn without regard to layers; each is without repeats, and different sets may share heads.
    """
    if not 1 <= count <= len(scores) // 2:
        raise ConfigError(
            f"{count} of {len(scores)} heads cannot be set beside as many others; choose 1 to {len(scores) // 2}"
        )
    ranked = sorted(scores, key=lambda s: (-s.induction, s.module, s.head))
    others = ranked[count:]
    rng = np.random.default_rng(seed)
    sets = [[others[i] for i in sorted(rng.permutation(len(others))[:count])] for _ in range(draws)]
    return ranked[:count], sets
