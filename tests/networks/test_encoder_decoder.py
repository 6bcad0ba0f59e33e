"""The encoder-decoder against its own weights read by hand, what each place may see, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.errors import ConfigError, NetworkError
from heldout.networks.encoder_decoder import EncoderDecoder
from heldout.training.seeds import initialised


def make(**given: Any) -> EncoderDecoder:
    settings = {"given": 3, "width": 8, "layers": 2, "heads": 2, "max_source": 10, "max_target": 5, **given}
    return initialised(lambda: EncoderDecoder(7, 4, **settings), 0).eval()


def batch(n: int = 6, t: int = 9, f: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(7, (n, t), generator=draw), torch.randint(3, (n, f), generator=draw)


def attend(module: nn.Module, x: Tensor, seen: Tensor, *, causal: bool) -> Tensor:
    """PyTorch's own multi-head attention with the module's weights."""
    w = dict(module.named_parameters())
    mask = torch.ones(x.shape[1], seen.shape[1], dtype=torch.bool).triu(1) if causal else None
    out, _ = F.multi_head_attention_forward(
        x.transpose(0, 1),
        seen.transpose(0, 1),
        seen.transpose(0, 1),
        embed_dim_to_check=x.shape[2],
        num_heads=2,
        in_proj_weight=torch.cat([w[f"{p}.weight"] for p in ("query", "key", "value")]),
        in_proj_bias=torch.cat([w[f"{p}.bias"] for p in ("query", "key", "value")]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=w["out.weight"],
        out_proj_bias=w["out.bias"],
        training=False,
        attn_mask=mask,
        need_weights=False,
    )
    return out.transpose(0, 1)


def test_it_computes_what_its_weights_say() -> None:
    network = make().double()
    source, given = batch()
    with torch.no_grad():
        x = network.embed.weight[source] + network.positions.weight[: source.shape[1]]
        for block in network.encoder:
            x = x + attend(block.attn, block.norm1(x), block.norm1(x), causal=False)
            x = x + block.mlp.down(F.gelu(block.mlp.up(block.norm2(x))))
        memory = network.encoder_norm(x)
        y = network.embed_given.weight[given] + network.positions_given.weight[: given.shape[1]]
        for block in network.decoder:
            y = y + attend(block.attn, block.norm1(y), block.norm1(y), causal=True)
            y = y + attend(block.cross, block.norm2(y), memory, causal=False)
            y = y + block.mlp.down(F.gelu(block.mlp.up(block.norm3(y))))
        by_hand = network.readout(network.decoder_norm(y))
        torch.testing.assert_close(network(source, given), by_hand, rtol=0, atol=1e-12)
        torch.testing.assert_close(network.encode(source), memory, rtol=0, atol=1e-12)


def test_a_place_sees_the_whole_source_and_no_later_answer() -> None:
    network = make()
    source, given = batch()
    changed = given.clone()
    changed[:, 3:] = (changed[:, 3:] + 1) % 3
    other = source.clone()
    other[:, -1] = (other[:, -1] + 1) % 7
    with torch.no_grad():
        before, after, moved = network(source, given), network(source, changed), network(other, given)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=1e-6)
    assert (before[:, 3:] - after[:, 3:]).abs().amax((0, 2)).min() > 1e-3
    assert (before - moved).abs().amax((0, 2)).min() > 1e-4


def test_greedy_answers_are_the_likeliest_given_those_before() -> None:
    network = make(given=4)
    source, _ = batch()
    answers = network.greedy(source, 3, 5)
    given = torch.cat((torch.full((len(source), 1), 3), answers[:, :-1]), dim=1)
    with torch.no_grad():
        assert torch.equal(network(source, given).argmax(-1), answers)


def test_dropout_acts_while_training_alone() -> None:
    network = make(dropout=0.5)
    source, given = batch()
    with torch.no_grad():
        assert torch.equal(network(source, given), network(source, given))
        network.train()
        assert not torch.equal(network(source, given), network(source, given))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"width": 9}, "multiple of heads"), ({"layers": 0}, "at least 1"), ({"dropout": 1.0}, "below 1")],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**given)


def test_more_positions_than_there_are_is_an_error() -> None:
    with pytest.raises(NetworkError, match="max_source is 10"):
        make()(*batch(t=11))
    with pytest.raises(NetworkError, match="max_target is 5"):
        make()(*batch(f=6))
