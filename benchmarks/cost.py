"""What analyses cost, measured at two sizes beside the closed forms of `heldout.analyses.cost`, and at 7 billion weights.

    python benchmarks/cost.py [--repeats 5] [--throughput 10000] [--double 16] [--host 5e11] [--closed]

Writes the tables of docs/cost.md, between their markers: the measured one, and what the closed forms say of a decoder of 7
billion weights that passes so many tokens a second, takes so many times as long for float64, and stands beside a processor
of so many float64 FLOPs a second. `--closed` measures nothing and writes the second table alone.

Each analysis and a plain pass over the same tokens run in turns on one compute thread, in processor time; the ratio is
taken within each turn. Memory is the largest sum of tensors (PyTorch's profiler) plus that of arrays (tracemalloc) alive
at once, without the network. That the closed forms count passes and products rightly is a matter of the tests.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import capture
from heldout.activations.tap import Tap
from heldout.analyses import cost
from heldout.analyses.cost import Cost, Decoder
from heldout.analyses.damage import matched_damage
from heldout.analyses.degeneracy.behavioural import BehaviouralLoss
from heldout.analyses.degeneracy.curvature import curvature
from heldout.analyses.degeneracy.llc import learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.analyses.equivalence.discovery import discover_rule
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.nulls import permutation_null
from heldout.analyses.features.variance import parts
from heldout.analyses.geometry.interventions import Components, intervene
from heldout.analyses.similarity.streaming import CKAStream
from heldout.analyses.tables import Memory
from heldout.networks.transformer import Transformer
from heldout.proxies.clusters import KMeans
from heldout.proxies.fit import Family, derived, fit_edits
from heldout.proxies.svd import SVD
from heldout.tasks.base import Rectangular, Split

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cost.md"
SIZES = (
    Decoder(layers=2, width=64, heads=4, vocabulary=512, length=64, bytes=4),
    Decoder(layers=4, width=256, heads=8, vocabulary=2048, length=64, bytes=4),
)
LARGE = Decoder(layers=32, width=4096, heads=32, vocabulary=32_000, length=2048, bytes=2)
MANY, FEW = 16, 5  # items that cheap and dear analyses see here
BATCH = 8
RANKS = (4, 8, 16, 32)
DRAWS, PERMUTATIONS = 10, 200
PROBES, STEPS = 2, 2
MIXTURES = 16
SAMPLING = Sampling(chains=2, burn_in=2, draws=8)


@dataclass(frozen=True)
class Case:
    """An analysis at one size: what runs it, on how many tokens, and what is said of it."""

    run: Callable[[], object]
    tokens: int
    closed: Cost


class Regression(nn.Module):
    """A decoder with one number an item: the first logit at the last position."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.decoder = network

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.decoder(tokens)[:, -1, :1].clone()  # a view would keep all logits
        return out


def build(decoder: Decoder) -> Transformer:
    torch.manual_seed(0)
    d = decoder
    return Transformer(d.vocabulary, width=d.width, layers=d.layers, heads=d.heads, max_length=d.length).eval()


def split_of(decoder: Decoder, items: int) -> Split:
    draw = torch.Generator().manual_seed(items)
    tokens = torch.randint(decoder.vocabulary, (items, decoder.length), generator=draw)
    return Split("fit", "fit", Rectangular(tokens))


def rows_of(network: nn.Module, split: Split, site: str, tokens: int) -> Tensor:
    kept = Reservoir(tokens, seed=0)
    capture(network, split, {site: [kept]}, batch_size=BATCH)
    return kept.rows


def middle(decoder: Decoder) -> int:
    """The block whose output is examined: half of the network follows."""
    return decoder.layers // 2 - 1


def cases(decoder: Decoder, network: Transformer) -> dict[str, Case]:
    """Every analysis at this size. What an analysis is given and does not make itself is made here."""
    layer, width = middle(decoder), decoder.width
    site = f"blocks.{layer}"
    split, small = split_of(decoder, MANY), split_of(decoder, FEW)
    many, few = MANY * decoder.length, FEW * decoder.length
    subject, families = Subject(network), [Family(name, RANKS) for name in ("svd", "pca")]
    edits = fit_edits(network, split, [site], families, batch_size=BATCH)
    seen = Moments()
    capture(network, split, {site: [seen]}, batch_size=BATCH)
    rows = rows_of(network, split, site, many)
    numbers = Regression(network)
    targeted = Split("fit", "fit", Rectangular(split.items.take(np.arange(MANY)).inputs, torch.zeros(MANY, 1)))
    labels = {name: np.random.default_rng(i).integers(0, 2, many) for i, name in enumerate(("a", "b"))}

    def streamed() -> None:
        stream = CKAStream()
        for batch in split.batches(BATCH):
            with Tap(network, read=[site]) as tap:
                sides = [tap(batch)[site].flatten(0, 1) for _ in range(2)]
            stream.update(*sides)
        stream.cka()

    def audited() -> None:
        held, half = rows_of(network, split, site, many), many // 2
        coding = Coding.fit(labels)
        design = coding.encode(labels, many)
        fit, test = (moments_of(held[cut], design[cut]) for cut in (slice(half), slice(half, None)))
        parts(fit, test, coding)
        for name in coding.names:
            columns = design[:, coding.columns(name)]
            sides = ((held[cut], columns[cut]) for cut in (slice(half), slice(half, None)))
            permutation_null(*sides, seed=0, draws=PERMUTATIONS)

    mixed = Family("ib", (4,), options={"probes": "full", "draws": MIXTURES})
    chosen = [(layer, rank) for _ in families for rank in RANKS]
    taken = {f"decoder.{site}": Components(seen, tuple(range(4)))}
    return {
        "second moments": Case(
            lambda: capture(network, split, {site: [Moments()]}, batch_size=BATCH),
            many,
            cost.moments(decoder, many, batch=BATCH),
        ),
        "singular directions": Case(lambda: SVD().fit_moments(seen), many, cost.components(width)),
        "k-means": Case(
            lambda: KMeans(16, restarts=1).fit(rows), many, cost.kmeans(width, many, 16, restarts=1, iterations=300)
        ),
        "faithfulness": Case(
            lambda: faithfulness(subject, [split], edits, Memory(), batch_size=BATCH),
            many,
            cost.faithfulness(decoder, many, chosen, batch=BATCH),
        ),
        "matched null": Case(
            lambda: matched_damage(subject, small, edits[1], seed=0, batch_size=BATCH),
            few,
            cost.null(decoder, few, *chosen[1], batch=BATCH),
        ),
        "interventions": Case(
            lambda: intervene(numbers, targeted, taken, seed=0, draws=DRAWS, batch_size=BATCH),
            many,
            cost.interventions(decoder, many, draws=DRAWS, batch=BATCH),
        ),
        "feature audit": Case(audited, many, cost.features(decoder, many, [1, 1], draws=PERMUTATIONS, batch=BATCH)),
        "linear CKA": Case(streamed, many, cost.cka(decoder, many, batch=BATCH)),
        "interaction basis": Case(
            lambda: derived(network, small, site, mixed, sample=20_000, batch_size=BATCH, device="cpu"),
            few,
            cost.interaction(decoder, few, layer, draws=MIXTURES, batch=BATCH),
        ),
        "curvature": Case(
            lambda: curvature(BehaviouralLoss(network, small, dtype=torch.float64), probes=PROBES, steps=STEPS),
            few,
            cost.curvature(decoder, few, probes=PROBES, steps=STEPS),
        ),
        "learning coefficient": Case(
            lambda: learning_coefficient(network, small, sampling=SAMPLING, probes=PROBES, steps=STEPS),
            few,
            cost.learning_coefficient(decoder, few, sampling=SAMPLING, probes=PROBES, steps=STEPS),
        ),
    }


def peak(function: Callable[[], object]) -> int:
    """Bytes: the largest sum of PyTorch's live tensors, and that of numpy's live arrays, which `function` makes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    tracemalloc.start()  # apart: it would see what the profiler keeps
    function()
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return int(np.cumsum([0, *sizes]).max()) + arrays


def plain(network: nn.Module, split: Split) -> None:
    """What everything is measured against: a pass over the split, its output thrown away."""
    with torch.no_grad():
        for batch in split.batches(BATCH):
            network(batch.inputs)


def seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def speed(dtype: torch.dtype) -> float:
    """FLOPs a second of a product of square matrices, the best of five."""
    n = 512
    x = torch.randn(n, n, dtype=dtype)
    return 2 * n**3 / min(seconds(lambda: x @ x) for _ in range(5))


@dataclass(frozen=True)
class Measured:
    """Ratios of time to that of a plain pass over the same tokens, and bytes at the peak."""

    ratios: list[float]
    memory: int
    case: Case


def measure(decoder: Decoder, repeats: int) -> dict[str, Measured]:
    network = build(decoder)
    found = cases(decoder, network)
    passes = {n * decoder.length: split_of(decoder, n) for n in (MANY, FEW)}
    ratios: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(repeats + 1):  # the first warms up
        for name, case in found.items():
            around = [seconds(lambda c=case: plain(network, passes[c.tokens]))]  # type: ignore[misc]
            took = seconds(case.run)
            around.append(seconds(lambda c=case: plain(network, passes[c.tokens])))  # type: ignore[misc]
            if turn:
                ratios[name].append(2 * took / sum(around))
        print(f"width {decoder.width}, turn {turn} of {repeats}, load {os.getloadavg()[0]:.1f}", flush=True)
    return {name: Measured(ratios[name], peak(c.run), c) for name, c in found.items()}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compared(sizes: dict[Decoder, dict[str, Measured]], slower: float) -> str:
    """Time at each size beside the arithmetic's, and memory beside the closed form's."""
    head = ["analysis"]
    for d in sizes:
        head += [f"D = {d.width}: time", "arithmetic", "memory, MiB", "closed"]
    rows = []
    for name in next(iter(sizes.values())):
        row = [name]
        for decoder, found in sizes.items():
            m = found[name]
            c, base = m.case.closed, decoder.forward * m.case.tokens
            middle, low, high = statistics.median(m.ratios), min(m.ratios), max(m.ratios)
            row += [
                f"{three(middle)} ({three(low)}–{three(high)})",
                three((c.flops + slower * (c.flops64 + c.host)) / base),
                f"{m.memory / 2**20:.1f}",
                f"{c.memory / 2**20:.1f}",
            ]
        rows.append(row)
    return table(head, rows)


def extrapolated(throughput: float, double: float, host: float) -> str:
    """What the closed forms say of `LARGE` on a million tokens."""
    d, tokens, layer = LARGE, 512 * LARGE.length, middle(LARGE)
    rate = throughput * d.forward
    edits = [(layer, rank) for _ in range(2) for rank in (16, 64, 256, 1024)]
    matrix, short = d.width**2, replace(d, length=128)
    lines = [
        ("second moments, one site", cost.moments(d, tokens, batch=1)),
        ("second moments, all 32 blocks", cost.moments(d, tokens, sites=d.layers, batch=1)),
        ("SVD or principal components, one site", cost.components(d.width)),
        ("k-means, 64 clusters, 20 000 rows", cost.kmeans(d.width, 20_000, 64, size=d.bytes)),
        ("faithfulness, 8 edits at one block", cost.faithfulness(d, tokens, edits, batch=1)),
        ("matched null of one edit", cost.null(d, tokens, *edits[1], batch=1)),
        ("its 20 draws, scored", cost.faithfulness(d, tokens, [edits[1]] * 20, batch=1)),
        ("interventions, 20 random removals", cost.interventions(d, tokens, batch=1)),
        ("feature audit, 5 labels", cost.features(d, tokens, [1] * 5, batch=1)),
        ("linear CKA of two such networks", cost.cka(d, tokens, batch=1)),
        ("interaction basis, every item", cost.interaction(d, tokens, layer, batch=1)),
        ("interaction basis, 32 items", cost.interaction(d, tokens, layer, sample=32, batch=1)),
        ("curvature, all weights", cost.curvature(d, tokens)),
        ("learning coefficient, all weights", cost.learning_coefficient(d, tokens)),
        (
            "learning coefficient, one matrix of D², 16 items of 128",
            cost.learning_coefficient(short, 16 * short.length, free=matrix),
        ),
    ]
    rows = []
    for name, c in lines:
        rows.append(
            [
                name,
                three(c.positions / tokens),
                three(c.derivatives / tokens),
                three(c.passes(d, tokens)),
                size(c.memory),
                duration(c.hours(rate, rate / double, host)),
            ]
        )
    head = ["analysis", "passes", "sweeps", "arithmetic, in passes", "memory", "time"]
    return table(head, rows)


def three(value: float) -> str:
    """Three digits, no exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 0.001 else "< 0.001"


def size(count: float) -> str:
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if count >= u)
    return f"{count / unit:.3g} {name}"


def duration(hours: float) -> str:
    if hours >= 48:
        return f"{three(hours / 24)} days"
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{60 * hours:.2g} min" if hours >= 1 / 60 else f"{3600 * hours:.2g} s"


def write(name: str, text: str) -> None:
    """Replace what stands on the page between the markers of this name."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, rest = page.split(begin)
    PAGE.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end)[1])


def rules(pairs: int = 10_000) -> float:
    """Seconds of processor time that the rule behind so many answers takes to find; no network is in it."""
    a, b = np.random.default_rng(0).integers(1000, 10_000, (2, pairs))
    return min(seconds(lambda: discover_rule(a, b, (a + b) % 1000)) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--throughput", type=float, default=10_000, help="tokens a second of a plain pass")
    parser.add_argument("--double", type=float, default=16, help="how much longer float64 products take")
    parser.add_argument("--host", type=float, default=5e11, help="float64 FLOPs a second of the processor")
    parser.add_argument("--closed", action="store_true", help="measure nothing")
    args = parser.parse_args()
    write("extrapolated", extrapolated(args.throughput, args.double, args.host))
    if args.closed:
        return
    torch.set_num_threads(1)
    slower = statistics.median(speed(torch.float32) / speed(torch.float64) for _ in range(5))
    sizes = {d: measure(d, args.repeats) for d in SIZES}
    write("measured", compared(sizes, slower))
    note = (
        f"{platform.machine()}, PyTorch {torch.__version__.split('+')[0]}, one thread, {args.repeats} turns, load "
        f"{os.getloadavg()[0]:.1f} at the end; float64 products took\n{slower:.2g} times as long as float32 ones. "
        f"Finding the rule behind 10 000 answers took {rules():.2g} s."
    )
    write("machine", note)


if __name__ == "__main__":
    main()
