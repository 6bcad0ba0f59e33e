"""A tap leaves nothing behind, and leaves alone what is not its own. The fixture `no_leaks` checks every test here."""

from __future__ import annotations

import pytest
import torch
from conftest import snapshot, surroundings
from networks_zoo import ZOO, batch, build, draw, padding, plain, tokens
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.errors import NetworkError, SiteError
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer


def twofold(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows * 2


class Fragile(nn.Module):
    """Raises what it is told to, in the middle of a pass and inside an attention module."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Fragile.Attention()
        self.readout = nn.Linear(4, 2)

    class Attention(nn.Module):
        error: BaseException | None = None

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.scaled_dot_product_attention(x, x, x)
            if self.error is not None:
                raise self.error
            return y

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.attn(x))


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit()])
@pytest.mark.parametrize(
    "site", ["attn@last", "attn:input@last", "attn@attn.query", "attn@attn.scores", "readout@last"]
)
def test_nothing_is_left_after_an_error_in_the_network(error: BaseException, site: str) -> None:
    network = Fragile().train()
    network.readout.eval()
    before, around = snapshot(network), surroundings()
    network.attn.error = error
    expected = NetworkError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected), Tap(network, read=[site], edit={site: twofold}) as tap:
        tap(batch(draw(3, 1, 5, 4)))
    assert (snapshot(network), surroundings()) == (before, around)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("site", ["blocks.0.mlp", "blocks.0.attn@attn.key", "blocks.1.attn@attn.pattern"])
def test_nothing_is_left_after_an_error_in_an_edit_of_nested_taps(error: type[BaseException], site: str) -> None:
    case = build("transformer")
    case.network.train()
    before, around = snapshot(case.network), surroundings()

    def fails(rows: Tensor, mask: Tensor | None) -> Tensor:
        raise error

    with (
        pytest.raises(SiteError if error is ValueError else error),
        Tap(case.network, edit={"norm": twofold}),
        Tap(case.network, read=["readout"]),
        Tap(case.network, edit={site: fails}) as inner,
    ):
        inner(case.batch)
    assert (snapshot(case.network), surroundings()) == (before, around)


def test_a_tap_works_again_after_an_error() -> None:
    network = Fragile()
    data = batch(draw(3, 1, 5, 4))
    with Tap(network, read=["attn@attn.query"]) as tap:
        first = tap(data)
        network.attn.error = ValueError()
        with pytest.raises(NetworkError):
            tap(data)
        network.attn.error = None
        again = tap(data)
    assert torch.equal(first.output, again.output)
    assert torch.equal(first["attn@attn.query"], again["attn@attn.query"])


def test_a_pass_that_goes_round_an_open_tap_is_refused() -> None:
    """Its mask would be unknown, and calls would be counted over two passes."""
    case = build("transformer")
    args, _ = case.batch.arguments()
    for site in ("blocks.0", "blocks.0:input", "blocks.0.attn@attn.query"):
        with Tap(case.network, edit={site: twofold}) as outer:
            expected = outer(case.batch).output
            with pytest.raises(SiteError, match="not through that tap"):
                case.network(*args)
            with pytest.raises(SiteError, match="not through that tap"), Tap(case.network, read=["norm"]) as inner:
                inner(case.batch)
            assert torch.equal(outer(case.batch).output, expected)


def test_open_and_closed() -> None:
    case = build("mlp")
    tap = Tap(case.network)
    with pytest.raises(SiteError, match="this tap is closed"):
        tap(case.batch)
    with tap:
        with pytest.raises(SiteError, match="open already"):
            tap.__enter__()
        tap(case.batch)
    with tap:  # and again
        assert torch.equal(tap(case.batch).output, plain(case)[0])


def test_flags_are_put_back_as_they_were() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    network.train()
    network[2].eval()
    flags = [m.training for m in network.modules()]
    data = batch(draw(3, 3))
    with Tap(network) as tap:
        assert not any(m.training for m in network.modules())
        assert torch.equal(tap(data).output, tap(data).output)
    assert [m.training for m in network.modules()] == flags


def test_a_users_hooks_stay_and_fire() -> None:
    network, data = MLP((4, 4, 4, 2)).eval(), batch(draw(3, 4))
    fired = []
    network.hidden[0].register_forward_hook(lambda m, a, o: fired.append("after") or o + 1)
    network.hidden[0].register_forward_pre_hook(lambda m, a: fired.append("before"))
    with torch.no_grad():
        expected = network(data.inputs)
    fired.clear()
    with Tap(network, read=["hidden.0", "hidden.0:input"], edit=Edit.identity(["hidden.0"]).functions) as tap:
        assert torch.equal(tap(data).output, expected)
        late = network.hidden[0].register_forward_hook(lambda m, a, o: fired.append("late"))
        tap(data)
    assert fired == ["before", "after", "before", "after", "late"]
    assert late.id in network.hidden[0]._forward_hooks
    late.remove()
    with torch.no_grad():
        assert torch.equal(network(data.inputs), expected)


def test_gradients_only_where_asked() -> None:
    network, data = MLP((4, 4, 4, 2)).eval(), batch(draw(3, 4))
    with Tap(network, read=["hidden.0"]) as tap:
        assert not tap(data).output.requires_grad
    with Tap(network, read=["hidden.0"], grad=True) as tap:
        reading = tap(data)
    (gradient,) = torch.autograd.grad(reading.output.sum(), reading["hidden.0"])
    hidden = reading["hidden.0"].detach().requires_grad_()
    (expected,) = torch.autograd.grad(network.readout(network.hidden[1](hidden)).sum(), hidden)
    assert torch.allclose(gradient, expected)


def test_hugging_face_kernels_are_switched_and_put_back() -> None:
    case = build("gpt2 eager")
    config = case.network.config
    with Tap(case.network, read=["transformer.h.0.attn@attn.query"]):
        assert config._attn_implementation == "sdpa"
    assert config._attn_implementation == "eager"
    with Tap(case.network, read=["transformer.h.0"]):
        assert config._attn_implementation == "eager"


PADDED = [n for n in ZOO if build(n).batch.mask is not None]


@pytest.mark.parametrize("name", PADDED)
def test_padding_keeps_its_values(name: str) -> None:
    case = build(name)
    mask = case.batch.mask
    sites = [*(f"{o}@attn.{p}" for o in case.attention for p in ("query", "key", "value", "pattern"))]
    sites += {"tied": ["a#0", "embed"], "transformer": ["blocks.0.mlp.up", "embed", "blocks.1"]}.get(name, [])
    for site in sites:
        with Tap(case.network, read=[site]) as tap:
            before = tap(case.batch)[site]
        with Tap(case.network, read=[site], edit={site: lambda rows, mask: rows + 1}) as tap:
            after = tap(case.batch)[site]
        changed = (after - before).abs().sum(-1) > 0.5
        expected = mask if changed.ndim == 2 else mask[:, None].expand(changed.shape)
        assert torch.equal(changed, expected), site


def test_a_batch_equals_its_rows_run_singly_in_any_order() -> None:
    """Outputs on data do not depend on padding, on the other items, or on their order."""
    network = Transformer(9, width=8, layers=2, heads=2, max_length=12).eval()
    ids, mask, lengths = tokens(3, 6), padding(), (6, 4, 3)
    sites = ["blocks.0.mlp.act", "blocks.0.attn@attn.key"]
    edit = {
        "blocks.0.mlp.act": lambda rows, mask: rows.relu(),
        "blocks.0.attn@attn.key[1]": lambda rows, mask: rows * 0.3 + 0.1,
    }
    with Tap(network, read=sites, edit=edit) as tap:
        whole = tap(batch(ids, mask=mask))
        other = tap(batch(torch.where(mask, ids, 8), mask=mask))  # other tokens in the padding
        turned = tap(batch(ids.flip(0), mask=mask.flip(0)))
        wider = tap(batch(torch.nn.functional.pad(ids, (0, 3)), mask=torch.nn.functional.pad(mask, (0, 3))))
        for i, length in enumerate(lengths):
            single = tap(batch(ids[i : i + 1, :length], n=1))
            for got in (whole.output[i], other.output[i], turned.output[2 - i], wider.output[i]):
                assert torch.allclose(got[:length], single.output[0], atol=1e-6)
            assert torch.allclose(whole[sites[0]][i, :length], single[sites[0]][0], atol=1e-6)
            assert torch.allclose(whole[sites[1]][i, :, :length], single[sites[1]][0], atol=1e-6)


def test_positions_first_is_said_and_not_guessed() -> None:
    case = build("lstm time first")
    data = batch(case.batch.inputs, mask=padding((4, 2, 1)))
    with pytest.raises(SiteError, match=r"lstm\[0\]@time_first"), Tap(case.network, edit={"lstm[0]": twofold}) as tap:
        tap(data)
    site = "lstm[0]@time_first"
    with Tap(case.network, read=["lstm[0]"]) as tap:
        before = tap(data)["lstm[0]"]
    with Tap(case.network, read=["lstm[0]"], edit={site: twofold}) as tap:
        after = tap(data)["lstm[0]"]
    assert torch.equal(after, torch.where(data.mask.T[..., None], 2 * before, before))
