"""The cost model against what PyTorch counts on a real network: passes, matrix products and bytes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from heldout.activations import jacobians
from heldout.activations.accumulators import Moments
from heldout.activations.capture import capture
from heldout.analyses import cost
from heldout.analyses.cost import Cost, Decoder
from heldout.analyses.damage import matched_damage
from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.curvature import curvature
from heldout.analyses.degeneracy.llc import learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.features.moments import moments_of
from heldout.analyses.geometry.interventions import Components, intervene
from heldout.analyses.similarity.streaming import CKAStream
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError
from heldout.networks.transformer import Transformer
from heldout.proxies.fit import Family, derived, fit_edits
from heldout.tasks.base import Rectangular, Split

ROOT = Path(__file__).resolve().parents[2]
SIZES = (
    Decoder(layers=3, width=32, heads=4, vocabulary=300, length=16, bytes=4),
    Decoder(layers=2, width=48, heads=2, vocabulary=270, length=9, hidden=100, bytes=4),
)
ITEMS, BATCH, PROBES, STEPS = 34, 16, 2, 2


def build(d: Decoder) -> Transformer:
    torch.manual_seed(0)
    ratio = d.inner / d.width
    return Transformer(
        d.vocabulary, width=d.width, layers=d.layers, heads=d.heads, max_length=d.length, mlp_ratio=ratio
    ).eval()


def split_of(d: Decoder, items: int = ITEMS) -> Split:
    tokens = torch.randint(d.vocabulary, (items, d.length), generator=torch.Generator().manual_seed(1))
    return Split("fit", "fit", Rectangular(tokens))


def counted(network: nn.Module, function: Callable[[], object]) -> tuple[int, int]:
    """Positions that pass the network, and FLOPs of matrix products, attention written out."""
    passed = [0]

    def hook(module: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        passed[0] += given[0].numel()

    handle = network.register_forward_hook(hook)  # a copy of the network has it too
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            function()
    finally:
        handle.remove()
    return passed[0], counter.get_total_flops()


def products(found: Cost) -> float:
    return found.flops + found.flops64 + found.host


@pytest.fixture(params=SIZES, ids=lambda d: f"width {d.width}")
def size(request: pytest.FixtureRequest) -> Decoder:
    decoder: Decoder = request.param
    return decoder


def test_a_pass_and_the_weights(size: Decoder) -> None:
    network, split = build(size), split_of(size)
    inputs = split.items.take(np.arange(ITEMS)).inputs
    with torch.no_grad():
        found = counted(network, lambda: network(inputs))
    said = cost.plain(size, inputs.numel())
    assert found == (said.positions, said.flops) == (inputs.numel(), inputs.numel() * size.forward)
    matrices = {n: p for n, p in network.named_parameters() if p.ndim == 2 and not n.startswith("positions")}
    assert size.parameters == sum(p.numel() for p in matrices.values())
    assert size.after(size.layers - 1) == 2 * size.width * size.vocabulary


def test_a_plain_decoder_of_this_shape_has_seven_billion_weights() -> None:
    large = Decoder(layers=32, width=4096, heads=32, vocabulary=32_000, length=2048)
    gated = Decoder(layers=32, width=4096, heads=32, vocabulary=32_000, length=2048, hidden=11_008 * 3 // 2)
    assert large.parameters == 6_704_594_944
    assert gated.parameters == 6_738_149_376  # without norms, as the 7B decoders with gates have them
    assert large.forward == 2 * (large.parameters - 32_000 * 4096) + 4 * 32 * 2048 * 4096


def test_moments(size: Decoder) -> None:
    network, split = build(size), split_of(size)
    sites = {f"blocks.{i}": [Moments()] for i in range(2)}
    found = counted(network, lambda: capture(network, split, sites, batch_size=BATCH))
    said = cost.moments(size, ITEMS * size.length, sites=2, batch=BATCH)
    assert found == (said.positions, products(said))


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_faithfulness_replays_what_follows_the_edited_block(size: Decoder, layers: tuple[int, ...]) -> None:
    network, split, ranks = build(size), split_of(size), (2, 5)
    edits = fit_edits(network, split, [f"blocks.{i}" for i in layers], [Family("svd", ranks)])
    sink = Memory()
    found = counted(network, lambda: faithfulness(Subject(network), [split], edits, sink, batch_size=BATCH))
    said = cost.faithfulness(size, ITEMS * size.length, [(i, rank) for i in layers for rank in ranks], batch=BATCH)
    assert found == (said.positions, products(said))


def test_a_matched_null(size: Decoder) -> None:
    network, split = build(size), split_of(size, 5)
    (edit,) = fit_edits(network, split, ["blocks.0"], [Family("svd", (4,))])
    found = counted(network, lambda: matched_damage(Subject(network), split, edit, seed=0, batch_size=4))
    said = cost.null(size, 5 * size.length, 0, 4, batch=4)
    assert found == (said.positions, products(said))


class Regression(nn.Module):
    """One number an item, the first logit at the last position."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.decoder = network

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.decoder(tokens)[:, -1, :1]
        return out


def test_interventions_make_whole_passes(size: Decoder) -> None:
    network = Regression(build(size))
    tokens = split_of(size).items.take(np.arange(ITEMS)).inputs
    split, moments = Split("fit", "fit", Rectangular(tokens, torch.zeros(ITEMS, 1))), Moments()
    capture(network, split, {"decoder.blocks.0": [moments]})
    parts = {"decoder.blocks.0": Components(moments, (0, 1))}
    passed, _ = counted(network, lambda: intervene(network, split, parts, seed=0, draws=4, batch_size=BATCH))
    assert passed == cost.interventions(size, tokens.numel(), draws=4).positions


def test_features_and_cka_gather_joint_moments() -> None:
    rows, width, columns = 500, 24, 3
    draw = np.random.default_rng(0)
    x, y, design = draw.normal(size=(rows, width)), draw.normal(size=(rows, width)), draw.normal(size=(rows, columns))
    d = Decoder(layers=1, width=width, heads=1, vocabulary=2, length=1)
    _, found = counted(nn.Identity(), lambda: moments_of(x, design))
    assert found == cost.features(d, rows, [1] * columns, draws=0).host
    _, found = counted(nn.Identity(), lambda: CKAStream().update(x, y))
    said = cost.cka(d, rows)
    assert (said.positions, said.host) == (2 * rows, found)


@pytest.mark.parametrize("sample", [20_000, 25])
def test_the_interaction_basis_sweeps_back_to_its_block(
    size: Decoder, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, split, swept = build(size), split_of(size), [0]
    real = jacobians.Backward.__call__

    def counting(backward: jacobians.Backward, cotangents: Tensor) -> tuple[Tensor, ...]:
        swept[0] += cotangents[..., 0].numel()
        return real(backward, cotangents)

    monkeypatch.setattr(jacobians.Backward, "__call__", counting)
    family = Family("ib", (3,))
    passed, found = counted(
        network,
        lambda: derived(network, split, "blocks.0", family, sample=sample, batch_size=BATCH, device="cpu"),
    )
    said = cost.interaction(size, ITEMS * size.length, 0, sample=sample, batch=BATCH)
    assert (passed, swept[0]) == (said.positions, said.derivatives)
    assert 0 <= found - said.flops64 < 10 * size.width**3  # the basis itself, made of (D, D) matrices


def orthogonalisation(network: nn.Module) -> int:
    """FLOPs of Lanczos' vectors against each other, as far as PyTorch counts them; the closed form leaves them out."""
    weights = sum(p.numel() for p in network.parameters())
    return PROBES * 4 * weights * STEPS * (STEPS + 1) // 2


def test_the_curvature(size: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = build(size), split_of(size)

    def run() -> None:
        curvature(BehaviouralLoss(network, split, dtype=torch.float64), small=1, probes=PROBES, steps=STEPS)

    passed, found = counted(network, run)
    said = cost.curvature(size, ITEMS * size.length, probes=PROBES, steps=STEPS)
    assert passed == said.positions
    assert found - orthogonalisation(network) == said.flops64


@pytest.mark.parametrize("batch", [None, 10])
def test_the_learning_coefficient(size: Decoder, batch: int | None) -> None:
    network, split = build(size), split_of(size)
    sampling = Sampling(chains=2, burn_in=2, draws=8, batch=batch)
    _, found = counted(  # chains side by side call the network once for all of them
        network,
        lambda: learning_coefficient(network, split, sampling=sampling, small=1, probes=PROBES, steps=STEPS),
    )
    tokens = ITEMS * size.length
    said = cost.learning_coefficient(size, tokens, sampling=sampling, probes=PROBES, steps=STEPS)
    assert found - orthogonalisation(network) == products(said)
    seen = tokens if batch is None else batch * size.length
    curved = cost.curvature(size, tokens, probes=PROBES, steps=STEPS)
    assert said.positions == curved.positions + 2 * tokens + 2 * 10 * seen


def peak(function: Callable[[], object]) -> int:
    """Bytes of PyTorch's tensors that are alive at once, at most."""
    function()  # what is made once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


@pytest.mark.parametrize("width", [32, 64])
def test_memory_is_as_said(width: int) -> None:
    """Of passes within a tenth, of derivatives, whose graphs are counted more coarsely, within a half."""
    d = Decoder(layers=2, width=width, heads=4, vocabulary=8 * width, length=16, bytes=4)
    network, split, tokens = build(d), split_of(d, 8), 8 * d.length
    edits = fit_edits(network, split, ["blocks.0"], [Family("svd", (2, 4))])
    cases: list[tuple[Cost, float, Callable[[], object]]] = [
        (
            cost.moments(d, tokens, batch=4),
            1.1,
            lambda: capture(network, split, {"blocks.0": [Moments()]}, batch_size=4),
        ),
        (
            cost.faithfulness(d, tokens, [(0, 2), (0, 4)], batch=4),
            1.1,
            lambda: faithfulness(Subject(network), [split], edits, Memory(), batch_size=4),
        ),
        (
            cost.interaction(d, tokens, 0, batch=4),
            1.5,
            lambda: derived(network, split, "blocks.0", Family("ib", (3,)), sample=20_000, batch_size=4, device="cpu"),
        ),
        (
            cost.curvature(d, tokens, probes=PROBES, steps=STEPS),
            1.5,
            lambda: curvature(BehaviouralLoss(network, split, dtype=torch.float64), probes=PROBES, steps=STEPS),
        ),
    ]
    for said, factor, run in cases:
        assert 1 / factor < said.memory / peak(run) < factor, said.analysis


def test_cost_grows_with_the_tokens_and_time_with_the_rates() -> None:
    d, edits = SIZES[0], [(0, 4), (1, 8)]
    once, twice = (cost.faithfulness(d, n, edits, batch=1) for n in (100 * d.length, 200 * d.length))
    checked = cost.faithfulness(d, 0, edits, batch=1)
    assert checked.flops == 0
    check = 2 * once.flops - twice.flops
    assert 0 < check < once.flops / 10
    found = Cost("all", 0, 0, 3600e9, 7200e6, 3600e3, 0)
    assert found.hours(1e9, 1e6, 1e3) == pytest.approx(1 + 2 + 1)
    assert found.passes(d, 10) == pytest.approx((3600e9 + 7200e6 + 3600e3) / (10 * d.forward))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Decoder(0, 8, 2, 10, 4), "a decoder of 0 layers"),
        (lambda: Decoder(2, 8, 3, 10, 4), "the width a multiple of the heads"),
        (lambda: SIZES[0].after(3), "no block 3; choose from 0 to 2"),
        (lambda: cost.plain(SIZES[0], 10).hours(0, 1, 1), "rates must be positive"),
    ],
)
def test_sizes_that_are_not_accepted(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wrong()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost_benchmark", ROOT / "benchmarks" / "cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_closed_forms_say(script: ModuleType) -> None:
    text = (ROOT / "docs" / "cost.md").read_text()
    found = re.search(r"<!-- extrapolated: begin -->\n\n(.*?)\n\n<!-- extrapolated: end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == script.extrapolated(10_000, 16, 5e11), "run python benchmarks/cost.py --closed"


def test_the_page_prints_what_it_says() -> None:
    blocks = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", (ROOT / "docs" / "cost.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for code, told in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "cost.md", "exec"), names)
        assert out.getvalue() == told
    assert blocks
