from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heldout.errors import ConfigError, NetworkError
from heldout.networks.decoding import Cached, greedy
from heldout.networks.positions import POSITIONS
from heldout.networks.transformer import NORMS, Transformer
from heldout.training.seeds import initialised

V, LENGTH = 11, 24


def make(**given: Any) -> Transformer:
    settings: dict[str, Any] = {"width": 12, "layers": 3, "heads": 3, "max_length": LENGTH, **given}
    if settings.get("positions") == "abacus":
        settings |= {"digits": range(8), "offsets": 5}
    return initialised(lambda: Transformer(V, **settings), 0)


def prompts(n: int = 40, t: int = 7) -> Tensor:
    return torch.randint(V, (n, t), generator=torch.Generator().manual_seed(3))


def one_by_one(network: nn.Module, prompt: Tensor, steps: int) -> list[int]:
    """The textbook loop: one prompt, the whole prefix, argmax."""
    tokens = prompt[None]
    for _ in range(steps):
        tokens = torch.cat((tokens, network(tokens)[:, -1].argmax(-1, keepdim=True)), 1)
    return tokens[0, len(prompt) :].tolist()


class Arithmetic(nn.Module):
    """The likeliest token after t is (t + 1) mod V."""

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot((tokens + 1) % V, V).float()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_the_cache_gives_the_logits_of_a_full_forward(positions: str, norm: str) -> None:
    network = make(positions=positions, norm=norm, tied=True, bias=norm != "post").double().eval()
    tokens = prompts(t=LENGTH)
    full = network(tokens)
    cache = network.cache()
    pieces = [network(part, cache=cache) for part in tokens.split((7, 1, 1, 4, 1, 10), 1)]  # also several at a time
    torch.testing.assert_close(torch.cat(pieces, 1), full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_batches_are_the_textbook_loop_token_for_token(positions: str) -> None:
    network = make(positions=positions).eval()
    found = greedy(network, prompts(), 9, batch_size=16)
    assert found.tolist() == [one_by_one(network, p, 9) for p in prompts()]
    assert len(found.unique()) > 2
    torch.testing.assert_close(greedy(network, prompts(), 9, cached=False), found)


def test_prompts_of_many_lengths_are_decoded_as_if_alone() -> None:
    network = make().eval()
    lengths = torch.arange(40) % 7 + 1
    found = greedy(network, prompts(), 5, lengths=lengths, batch_size=3)
    assert found.tolist() == [one_by_one(network, p[:n], 5) for p, n in zip(prompts(), lengths, strict=True)]


def test_an_answer_ends_at_its_stop_token() -> None:
    found = greedy(Arithmetic(), torch.tensor([[4], [7], [9]]), 4, stop=9)
    assert found.tolist() == [[5, 6, 7, 8], [8, 9, 9, 9], [10, 0, 1, 2]]
    assert greedy(Arithmetic(), torch.tensor([[7], [8]]), 6, stop=9).tolist() == [[8, *[9] * 5], [9] * 6]


def test_a_batch_ends_when_all_its_answers_have() -> None:
    calls = []

    class Counting(Arithmetic):
        def forward(self, tokens: Tensor) -> Tensor:
            calls.append(tokens.shape[1])
            return super().forward(tokens)

    greedy(Counting(), torch.tensor([[7], [6]]), 10, stop=9)
    assert calls == [1, 2, 3]


def test_equal_logits_give_the_first_token_with_and_without_the_cache() -> None:
    network = make()
    with torch.no_grad():
        network.readout.weight[3:] = 0.0  # tokens 3 to 10 always tie
        network.readout.bias[:3], network.readout.bias[3:] = -100.0, 0.0
    assert (greedy(network, prompts(), 5) == 3).all()
    assert (greedy(network, prompts(), 5, cached=False) == 3).all()


def test_close_logits_are_decided_by_the_whole_prefix() -> None:
    network = make().eval()
    with torch.no_grad():
        network.readout.weight[1:] = network.readout.weight[0] * (1 + 1e-5 * torch.arange(1, V)[:, None])
    tokens = prompts()
    torch.testing.assert_close(Cached(network, LENGTH)(tokens), network(tokens)[:, -1], rtol=0, atol=0)


def test_the_mode_of_the_network_is_kept_and_dropout_is_off() -> None:
    network = make(dropout=0.5).train()
    a, b = greedy(network, prompts(), 5), greedy(network, prompts(), 5)
    assert network.training
    assert a.tolist() == b.tolist()
    assert a.grad_fn is None


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least one token and at least one step, got \(2, 0\)"):
        greedy(make(), torch.zeros(2, 0, dtype=torch.int64), 3)
    with pytest.raises(ConfigError, match="lengths must be 40 numbers from 1 to 7"):
        greedy(make(), prompts(), 3, lengths=torch.full((40,), 8))
    with pytest.raises(NetworkError, match=r"logits \(B, T, V\) for tokens \(40, 7\), got \(40, 7\)"):
        greedy(nn.Identity(), prompts(), 3)
    with pytest.raises(NetworkError, match="25 positions in a batch, but max_length is 24"):
        greedy(make(), prompts(), 21)
    with pytest.raises(NetworkError, match="causal=False"):
        make(causal=False).cache()
    with pytest.raises(NetworkError, match="do not go together"):
        make()(prompts(), torch.zeros(40, 1, dtype=torch.int64), cache=make().cache())


def test_a_network_that_is_not_causal_is_decoded_without_a_cache() -> None:
    network = make(causal=False).eval()
    assert greedy(network, prompts(5), 4).tolist() == [one_by_one(network, p, 4) for p in prompts(5)]
