"""Greedy decoding in batches: the likeliest next token, again and again.

`Transformer` keeps keys and values, so that every token is computed once; any other network (tokens (B, T) -> logits
(B, T, V)) sees the whole prefix for each new token. Both give the same tokens: where rounding could make the difference,
the choice is left to the whole prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from heldout.errors import ConfigError, NetworkError
from heldout.networks.transformer import Transformer

CLOSE = 1e-3  # logits this near to each other, relative to the largest, are compared again without the cache

Next = Callable[[Tensor], Tensor]  # the tokens so far (B, T) -> logits of the next (B, V)


@torch.no_grad()
def greedy(
    network: nn.Module,
    prompts: Tensor,
    steps: int,
    *,
    lengths: Tensor | None = None,
    stop: int | None = None,
    batch_size: int = 1024,
    cached: bool = True,
) -> Tensor:
    """The `steps` likeliest tokens after each prompt, (N, steps) int64 on the CPU, by argmax; of equal logits the first.

    - `prompts`: (N, T) int64, of which row i counts up to `lengths[i]` (N,), all of it by default. Prompts of one
      length are decoded together, so nothing is padded.
    - `stop`: the token that ends an answer; what follows it in a row is `stop` too, and a batch ends when all have.
    - `cached`: whether a causal `Transformer` keeps keys and values. Other networks never do.

    The network runs in evaluation mode where its parameters are, and is put back in the mode it was in. Greedy decoding
    shows the likeliest token at each step, neither how sure the network is nor the likeliest answer as a whole.
    """
    if prompts.ndim != 2 or prompts.shape[1] < 1 or steps < 1:
        raise ConfigError(
            f"decoding needs prompts (N, T) of at least one token and at least one step, got {tuple(prompts.shape)} and "
            f"{steps} steps"
        )
    whole = torch.full((len(prompts),), prompts.shape[1]) if lengths is None else lengths.cpu()
    if len(whole) != len(prompts) or (len(whole) and not 1 <= whole.min() <= whole.max() <= prompts.shape[1]):
        raise ConfigError(f"decoding: lengths must be {len(prompts)} numbers from 1 to {prompts.shape[1]}")
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    found = torch.full((len(prompts), steps), 0 if stop is None else stop, dtype=torch.int64)
    training = network.training
    network.eval()
    try:
        for index in _batches(whole, batch_size):
            batch = prompts[index.to(prompts.device), : int(whole[index[0]])].to(device)
            if cached and isinstance(network, Transformer) and network.causal:
                following: Next = Cached(network, batch.shape[1] + steps)
            else:
                following = Prefix(network)
            answer = _continue(following, batch, steps, stop)
            found[index, : answer.shape[1]] = answer.cpu()
    finally:
        network.train(training)
    return found


class Prefix:
    """The next token's logits from the whole prefix."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, V)
        logits = self.network(tokens)
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise NetworkError(f"decoding needs logits (B, T, V) for tokens {tuple(tokens.shape)}, got {given}")
        return logits[:, -1]


class Cached:
    """The next token's logits from the tokens that are new since the last call."""

    def __init__(self, network: Transformer, capacity: int) -> None:
        self.network, self.cache = network, network.cache(capacity)

    def __call__(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, V)
        logits: Tensor = self.network(tokens[:, self.cache.length :], cache=self.cache)[:, -1]
        best = logits.topk(min(2, logits.shape[1]), dim=-1).values
        close = best[:, 0] - best[:, -1] <= CLOSE * logits.abs().amax(-1)
        if bool(close.any()):
            logits[close] = self.network(tokens[close])[:, -1]
        return logits


def _continue(following: Next, tokens: Tensor, steps: int, stop: int | None) -> Tensor:
    """(B, T) -> (B, at most steps): the tokens that follow, `stop` repeated once it has come."""
    start = tokens.shape[1]
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in range(steps):
        new = following(tokens).argmax(-1)
        if stop is not None:
            new = torch.where(ended, stop, new)
            ended |= new == stop
        tokens = torch.cat((tokens, new[:, None]), 1)
        if stop is not None and bool(ended.all()):
            break
    return tokens[:, start:]


def _batches(lengths: Tensor, size: int) -> Iterator[Tensor]:
    """The numbers of at most `size` prompts of one length, batch by batch."""
    for length in torch.unique(lengths):
        yield from (lengths == length).nonzero().squeeze(1).split(size)
