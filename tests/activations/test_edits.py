"""Edits against closed forms: what stays is the network with other weights or other inputs."""

from __future__ import annotations

import pytest
import torch
from networks_zoo import batch, build, draw, padding, plain
from torch import Tensor

from heldout.activations.edits import Edit, rowwise
from heldout.activations.tap import Tap
from heldout.errors import ConfigError, ProxyError
from heldout.evidence import Origin
from heldout.networks.mlp import MLP


class Line:
    """x -> x P, a proxy that needs no fit."""

    def __init__(self, p: Tensor) -> None:
        self.p = p

    def reconstruct(self, x: Tensor) -> Tensor:
        assert x.ndim == 2
        return x @ self.p


def network() -> MLP:
    torch.manual_seed(0)
    return MLP((4, 5, 5, 3), "tanh").eval()


def output(net: torch.nn.Module, edit: Edit, x: Tensor, mask: Tensor | None = None) -> Tensor:
    with Tap(net, edit=edit.functions) as tap:
        return tap(batch(x, n=len(x), mask=mask)).output


def test_keeping_equals_readout_weights_set_to_zero() -> None:
    net, x = network(), draw(6, 4)
    with torch.no_grad():
        hidden = net.hidden(x)
        weight, bias = net.readout.weight, net.readout.bias
        for kept in ([0, 3], [], [0, 1, 2, 3, 4], [4, 4, 1]):
            of = torch.zeros(5).index_fill(0, torch.tensor(kept, dtype=torch.int64), 1)
            expected = hidden @ (weight * of).T + bias
            assert torch.allclose(output(net, Edit.keep("hidden.1", kept), x), expected, atol=1e-6)
            mean = hidden.mean(0)
            expected = expected + weight @ (mean * (1 - of))
            assert torch.allclose(output(net, Edit.keep("hidden.1", kept, baseline=mean), x), expected, atol=1e-6)
            removed = set(range(5)) - set(kept)
            ablated = Edit.ablate("hidden.1", removed, width=5, baseline=mean.double())
            assert torch.allclose(output(net, ablated, x), expected, atol=1e-6)
    assert Edit.keep("hidden.1", [3, 0]).origin == Origin(
        "keep", "hidden.1", parameter=2, settings={"components": [0, 3]}
    )
    assert Edit.ablate("hidden.1", [3], width=5).origin.settings == {"components": [3]}


def test_channels_are_components_too() -> None:
    case = build("cnn")
    edit = Edit.keep("blocks.0.conv", [0, 2])
    with torch.no_grad():
        conv = case.network.blocks[0].conv(case.batch.inputs)
        conv[:, 1] = 0
        block = case.network.blocks[0]
        expected = case.network.readout(case.network.gather(case.network.blocks[1](block.pool(block.act(conv)))))
    assert torch.allclose(output(case.network, edit, case.batch.inputs), expected, atol=1e-6)


def test_components_that_do_not_exist() -> None:
    net, x = network(), draw(6, 4)
    with pytest.raises(ConfigError, match=r"edit at hidden\.0: components \[5\] for a width of 5"):
        output(net, Edit.keep("hidden.0", [5]), x)
    with pytest.raises(ConfigError, match=r"components \[-1\]"):
        output(net, Edit.keep("hidden.0", [-1]), x)
    with pytest.raises(ConfigError, match=r"components \[9\] for a width of 5"):
        Edit.ablate("hidden.0", [9], width=5)
    with pytest.raises(ConfigError, match="made for a width of 4, the site's is 5"):
        output(net, Edit.ablate("hidden.0", [1], width=4), x)
    with pytest.raises(ConfigError, match=r"a baseline of shape \(4,\); \(5,\) was expected"):
        output(net, Edit.keep("hidden.0", [1], baseline=torch.zeros(4)), x)


def test_a_proxy_at_a_site_equals_weights_times_its_projection() -> None:
    net, x = network(), draw(6, 4)
    q, _ = torch.linalg.qr(draw(5, 5))
    p = q[:, :2] @ q[:, :2].T
    edit = Edit.from_proxy("hidden.1", Line(p), Origin("svd", "elsewhere", fit_split="train", parameter=2))
    with torch.no_grad():
        expected = net.hidden(x) @ (net.readout.weight @ p).T + net.readout.bias
    assert torch.allclose(output(net, edit, x), expected, atol=1e-6)
    assert edit.origin == Origin("svd", "hidden.1", fit_split="train", parameter=2)
    rows = draw(2, 3, 4, 5)
    assert torch.allclose(rowwise(Line(p))(rows, None), rows @ p, atol=1e-6)


def test_a_function_and_its_origin() -> None:
    net, x = network(), draw(6, 4)
    edit = Edit.function("hidden.0", lambda rows, mask: -rows, name="mirror", fit_split="train", oracle=True)
    with torch.no_grad():
        expected = net.readout(net.hidden[1](-net.hidden[0](x)))
    assert torch.allclose(output(net, edit, x), expected, atol=1e-6)
    assert edit.origin == Origin("mirror", "hidden.0", fit_split="train", oracle=True)


def test_joining_edits() -> None:
    net, x = network(), draw(6, 4)
    first = Edit.function("hidden.0", lambda rows, mask: 2 * rows, name="double", fit_split="train")
    second = Edit.function("hidden.1", lambda rows, mask: 3 * rows, oracle=True, fit_split="ood")
    with torch.no_grad():
        expected = net.readout(3 * net.hidden[1](2 * net.hidden[0](x)))
    for joined in (first.then(second), second.then(first)):
        assert torch.allclose(output(net, joined, x), expected, atol=1e-6)
        assert joined.origin.oracle
        assert joined.origin.fit_split == "ood + train"
    assert first.then(second).origin.site == "hidden.0 + hidden.1"
    assert first.then(second, name="both").origin.name == "both"
    with pytest.raises(ProxyError, match=r"two edits at one site: hidden\.0"):
        first.then(Edit.identity(["hidden.0"]))


def test_identity_of_many_sites() -> None:
    case = build("transformer")
    edit = Edit.identity(["embed", "blocks.0.mlp", "blocks.1.attn@attn.key"])
    assert edit.origin.name == "identity"
    assert torch.equal(output(case.network, edit, case.batch.inputs, case.batch.mask), plain(case)[0])


def test_resampling_gives_every_item_anothers_activations() -> None:
    net, x = network(), draw(6, 4)
    edit = Edit.resample("hidden.0", seed=3)
    rows = torch.arange(6.0)[:, None].expand(6, 5)
    (function,) = edit.functions.values()
    new = function(rows, None)
    assert sorted(new[:, 0].tolist()) == rows[:, 0].tolist()
    assert not bool((new[:, 0] == rows[:, 0]).any())
    with torch.no_grad():
        order = new[:, 0].long()
        expected = net.readout(net.hidden[1](net.hidden[0](x)[order]))
    assert torch.allclose(output(net, edit, x), expected, atol=1e-6)
    assert torch.equal(function(rows, None), function(rows, None))
    other = Edit.resample("hidden.0", seed=4).functions["hidden.0"]
    assert not torch.equal(other(rows, None), new)
    with pytest.raises(ConfigError, match="at least two items"):
        output(net, edit, x[:1])


def test_resampling_takes_nothing_from_padding() -> None:
    mask = padding((6, 4, 4, 3))
    rows = torch.where(mask[..., None], torch.arange(4.0)[:, None, None] + 10 * torch.arange(6)[:, None], -99.0)
    (function,) = Edit.resample("m", seed=0).functions.values()
    new = torch.where(mask[..., None], function(rows, mask), rows)
    assert float(new[mask].min()) >= 0
    for t in range(6):
        column = mask[:, t]
        assert sorted(new[column, t, 0].tolist()) == sorted(rows[column, t, 0].tolist())  # its distribution is kept
        if int(column.sum()) > 1:
            assert not bool((new[column, t] == rows[column, t]).any())
    inside = function(rows[:, None].expand(4, 2, 6, 1), mask[:, None].expand(4, 2, 6))
    assert torch.equal(torch.where(mask[..., None], inside[:, 0], rows), new)


def test_sites_are_written_in_one_way() -> None:
    edit = Edit.function("hidden.0:input", lambda rows, mask: rows)
    assert list(edit.functions) == ["hidden.0:input[0]"]
    with pytest.raises(ProxyError):
        edit.then(Edit.identity(["hidden.0:input[0]"]))
