"""Replayed passes equal full passes, compute nothing that they need not, and give way where they cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from networks_zoo import ZOO, batch, build, draw, module_sites, plain, tensors, tokens
from torch import Tensor, nn

from heldout.activations.replay import Replay, _difference
from heldout.activations.tap import Tap
from heldout.errors import NetworkError, NonFiniteError, SiteError
from heldout.networks.cnn import CNN
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer


def shrink(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows * 0.5 if rows.is_floating_point() else rows.clone()


@contextmanager
def computed(network: nn.Module) -> Iterator[Counter[str]]:
    """Counts the calls of each module without children that do work: its own forward, and not what stands in for it."""
    calls: Counter[str] = Counter()
    originals = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            originals[module] = type(module)

            def forward(*args: object, name: str = name, own: object = module.forward) -> object:
                calls[name] += 1
                return own(*args)  # type: ignore[operator]

            module.__dict__["forward"] = forward
    try:
        yield calls
    finally:
        for module in originals:
            del module.__dict__["forward"]


def equal(a: object, b: object) -> bool:
    left, right = tensors(a), tensors(b)
    return len(left) == len(right) and all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


@pytest.mark.parametrize("name", ZOO)
def test_every_edit_at_every_site_equals_a_full_pass(name: str) -> None:
    case = build(name)
    sites = [s for s in module_sites(case) if not s.startswith(".:input")]
    sites += [f"{owner}@attn.{part}" for owner in case.attention for part in ("query", "value", "scores")]
    if "eager" in name:  # there the two kernels differ, and a replay takes one for all of its passes
        sites = [s for s in sites if "@attn" not in s]
    replay = Replay(case.network, sites)
    recorded = replay.record(case.batch)
    assert equal(recorded.output, plain(case))
    changed = 0
    for site in sites:
        with Tap(case.network, edit={site: shrink}) as tap:
            full = tap(case.batch).output
        again = replay.run(case.batch, {site: shrink}).output
        assert equal(again, full), site
        changed += not equal(full, recorded.output)
    assert changed > len(sites) // 3
    assert replay.check(case.batch) == 0.0
    assert replay.active


def test_reading_goes_on_inside_what_would_be_skipped() -> None:
    for name in ("transformer", "mlp", "twice", "tied", "lstm", "mha", "gpt2 sdpa", "encoder"):
        case = build(name)
        sites = [s for s in module_sites(case) if not s.endswith(":input")]
        sites += [f"{owner}@attn.{part}" for owner in case.attention for part in ("query", "key", "value")]
        last = next(
            s
            for s in reversed(module_sites(case))
            if "readout" in s or "last" in s or s.startswith(("lm_head", "layers.1"))
        )
        edit = {last: shrink}
        replay = Replay(case.network, [last])
        replay.record(case.batch)
        for site in sites:
            with Tap(case.network, read=[site], edit=edit) as tap:
                full = tap(case.batch)
            again = replay.run(case.batch, edit, read=[site])
            assert equal(again.output, full.output), (name, site)
            assert torch.equal(again[site], full[site]), (name, site)


def test_several_sites_at_once_skip_up_to_the_first() -> None:
    case = build("transformer")
    sites = ["blocks.0.mlp.up", "blocks.1.attn@attn.key"]
    replay = Replay(case.network, sites)
    replay.record(case.batch)
    for chosen in (sites, sites[::-1], sites[:1], sites[1:]):
        edit = dict.fromkeys(chosen, shrink)
        with Tap(case.network, edit=edit) as tap:
            full = tap(case.batch).output
        assert equal(replay.run(case.batch, edit).output, full)


def test_what_is_computed_is_what_depends_on_the_edit() -> None:
    network = Transformer(9, width=8, layers=3, heads=2, max_length=12).eval()
    data = batch(tokens(3, 6))
    sites = ["blocks.1.mlp.up", "blocks.1.attn@attn.query", "readout"]
    replay = Replay(network, sites)
    replay.record(data)
    expected = {
        "blocks.1.mlp.up": {"blocks.1.mlp.act", "blocks.1.mlp.down"},
        "blocks.1.attn@attn.query": {
            *("blocks.1.attn.out", "blocks.1.norm2"),
            *("blocks.1.mlp.up", "blocks.1.mlp.act", "blocks.1.mlp.down"),
        },
        "readout": set(),
    }
    after = {f"blocks.2.{m}" for m in ("norm1", "attn.query", "attn.key", "attn.value", "attn.out", "norm2")}
    after |= {"blocks.2.mlp.up", "blocks.2.mlp.act", "blocks.2.mlp.down", "norm", "readout"}
    for site in sites:
        # The counters stand inside what a replay puts in place, so that they see only what is really computed.
        with computed(network) as calls:
            replay.run(data, {site: shrink})
        assert set(calls) == expected[site] | (after if site != "readout" else set())
        assert set(calls.values()) <= {1}


def test_maximal_calls_are_skipped_whole() -> None:
    """A block that is finished is one remembered output; nothing inside it is even called."""
    network = Transformer(9, width=8, layers=3, heads=2, max_length=12).eval()
    seen: Counter[str] = Counter()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, a, o, name=name: seen.update([name]))
    data = batch(tokens(3, 6))
    replay = Replay(network, ["blocks.2.mlp.down"])
    replay.record(data)
    seen.clear()
    replay.run(data, {"blocks.2.mlp.down": shrink})
    assert {n for n in seen if n.startswith(("blocks.0", "blocks.1"))} == {"blocks.0", "blocks.1"}
    assert "blocks.2.attn.query" not in seen
    assert seen["blocks.2.attn"] == 1


class Shared(nn.Module):
    """One activation used by two containers and by the network itself, so that calls are skipped unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Tanh()
        self.one = nn.Sequential(nn.Linear(5, 5), self.act, nn.Linear(5, 5), self.act)
        self.two = nn.Sequential(nn.Linear(5, 5), self.act)
        self.last = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(2 * self.two(self.one(x)))
        return self.act(3 * self.last(self.act(self.last(x))))


@pytest.mark.parametrize(
    "site", [*(f"act#{i}" for i in range(6)), "act#*", "last#0", "last#1", "two", "two.0", "one.2"]
)
def test_calls_keep_their_numbers_when_others_are_skipped(site: str) -> None:
    torch.manual_seed(0)
    network, data = Shared().eval(), batch(draw(3, 5))
    with Tap(network, read=["act#*"], edit={site: shrink}) as tap:
        full = tap(data)
    sites = [*(f"act#{i}" for i in range(6)), "act#*", "last#0", "last#1", "two", "two.0", "one.2"]
    replay = Replay(network, sites)
    replay.record(data)
    assert equal(replay.run(data, {site: shrink}).output, full.output)
    again = replay.run(data, {site: shrink}, read=["act#*"])
    assert equal(again.output, full.output)
    assert len(again.values["act#*"]) == 6
    assert equal(again.values["act#*"], full.values["act#*"])


def test_a_users_hooks_are_applied_once() -> None:
    network, data = MLP((6, 5, 5, 3)).eval(), batch(draw(3, 6))
    network.hidden[0].register_forward_hook(lambda module, args, output: output * 2)
    replay = Replay(network, ["hidden.1"])
    replay.record(data)
    with Tap(network, edit={"hidden.1": shrink}) as tap:
        full = tap(data).output
    assert torch.equal(replay.run(data, {"hidden.1": shrink}).output, full)


class Noisy(nn.Module):
    def __init__(self, *, where: str) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Linear(5, 5),
            Noise() if where == "module" else nn.Identity(),
            nn.Linear(5, 2),
        )
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        if self.where == "after":
            x = x + torch.rand(5)
        return self.third(x)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(5)


@pytest.mark.parametrize("where", ["module", "after"])
def test_a_network_that_is_not_deterministic_is_not_replayed(where: str) -> None:
    network, data = Noisy(where=where).eval(), batch(draw(3, 5))
    site = "third:input"
    replay = Replay(network, ["first", site])
    assert replay.check(data) > 0
    assert not replay.active
    assert "full passes" in replay.reason
    torch.manual_seed(3)
    again = replay.run(data, {site: shrink}).output
    torch.manual_seed(3)
    with Tap(network, edit={site: shrink}) as tap:
        assert torch.equal(again, tap(data).output)
    torch.manual_seed(3)
    first = replay.record(data).output
    torch.manual_seed(3)
    assert torch.equal(first, plain_output(network, data.inputs))


def plain_output(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x)


def test_nan_is_not_taken_for_agreement() -> None:
    a, nan, inf = torch.tensor([1.0]), torch.tensor([float("nan")]), torch.tensor([float("inf")])
    assert _difference(a, a) == _difference(nan, nan) == _difference(inf, inf) == _difference((), ()) == 0.0
    assert _difference(a, nan) == _difference(nan, a) == _difference(inf, -inf) == _difference(a, inf) == float("inf")
    assert _difference((a, a), a) == _difference(a, torch.ones(2)) == float("inf")
    assert _difference({"x": a}, {"x": a + 3}) == 3.0
    assert _difference(torch.tensor([True]), torch.tensor([False])) == 1.0


def test_memory_is_safe_from_the_user() -> None:
    """Neither an output nor a reading that is changed in place by its owner reaches later passes."""
    case = build("cnn")
    replay = Replay(case.network, ["gather"])
    original = replay.record(case.batch)
    expected = replay.run(case.batch, {"gather": shrink}).output.clone()
    reading = replay.run(case.batch, {"gather": shrink}, read=["blocks", "gather"])
    reading["blocks"].zero_()
    reading["gather"].zero_()
    original.output.zero_()
    assert torch.equal(replay.run(case.batch, {"gather": shrink}).output, expected)


def test_batches_must_be_recorded() -> None:
    case = build("mlp")
    replay = Replay(case.network, ["hidden.0"])
    with pytest.raises(SiteError, match=r"call Replay\.record"):
        replay.run(case.batch, {"hidden.0": shrink})
    replay.record(case.batch)
    other = batch(draw(3, 6, seed=9))
    with pytest.raises(SiteError, match="not recorded"):
        replay.run(other, {"hidden.0": shrink})
    with pytest.raises(SiteError, match=r"hidden\.1 was not among"):
        replay.run(case.batch, {"hidden.1": shrink})
    first = replay.run(case.batch, {"hidden.0": shrink}).output
    with pytest.raises(NetworkError):
        replay.record(batch(draw(3, 7)))
    with pytest.raises(SiteError, match="not recorded"):  # what was remembered of the batch before is spoilt
        replay.run(case.batch, {"hidden.0": shrink})
    replay.record(case.batch)
    assert torch.equal(replay.run(case.batch, {"hidden.0": shrink}).output, first)


def test_no_edit_is_a_full_pass() -> None:
    case = build("mlp")
    replay = Replay(case.network, ["hidden.0"])
    assert torch.equal(replay.run(case.batch, {}).output, plain(case)[0])


def test_everything_is_restored_after_a_failure() -> None:
    network, data = CNN((1, 8, 8), 4, channels=(3, 5)).eval(), batch(draw(3, 1, 8, 8))
    own = network.blocks[0].forward
    network.blocks[0].__dict__["forward"] = own  # a forward of the user's own on the instance
    replay = Replay(network, ["gather"])
    replay.record(data)

    def fails(rows: Tensor, mask: Tensor | None) -> Tensor:
        raise KeyboardInterrupt

    for edit, error in (
        (fails, KeyboardInterrupt),
        (lambda r, m: r / 0, NonFiniteError),
        (lambda r, m: r[:1], SiteError),
    ):
        with pytest.raises(error):
            replay.run(data, {"gather": edit})
        assert network.blocks[0].__dict__["forward"] is own
        assert "forward" not in network.blocks.__dict__
    with Tap(network, edit={"gather": shrink}) as tap:
        full = tap(data).output
    assert torch.equal(replay.run(data, {"gather": shrink}).output, full)


@pytest.mark.parametrize("kind", ["gpt2 sdpa", "llama sdpa"])
def test_caches_of_keys_and_values_are_whole_or_absent(kind: str) -> None:
    """A layer that is left out fills no cache: none is made where the batch does not ask for one, and where it does, every
    layer runs."""
    case = build(kind)
    site = next(s for s in reversed(module_sites(case)) if s.startswith("lm_head"))
    inputs = dict(case.batch.inputs) if isinstance(case.batch.inputs, dict) else {"input_ids": case.batch.inputs}
    for asked in (False, True):
        data = batch({**inputs, "use_cache": True} if asked else inputs, n=len(case.batch), mask=case.batch.mask)
        replay = Replay(case.network, [site])
        recorded = replay.record(data).output
        again = replay.run(data, {site: shrink}).output
        assert not torch.equal(again["logits"], recorded["logits"])
        for output in (recorded, again):
            cache = output.get("past_key_values")
            if not asked:
                assert cache is None
                continue
            assert cache.get_seq_length() == data.inputs["input_ids"].shape[1]
            assert [layer.keys.shape[2] for layer in cache.layers] == [cache.get_seq_length()] * len(cache.layers)
    assert case.network.config.use_cache is True  # as it was
