"""Costs of what differentiates a decoder: in float64, on a float64 copy of it.

P weights, N positions ("tokens"), V vocabulary. A sweep is one vector-Jacobian product. Attention is computed with its
patterns written out, as the fused kernels have no second derivative.
"""

from __future__ import annotations

from heldout.activations.jacobians import CACHE
from heldout.analyses.cost.decoder import DOUBLE, Cost, Decoder
from heldout.analyses.degeneracy.behavioural import CHUNK
from heldout.analyses.degeneracy.curvature import PROBES, STEPS
from heldout.analyses.degeneracy.sgld import WHOLE, Sampling
from heldout.proxies.bases import DRAWS

GRADIENT = 2  # passes' worth of a gradient by the weights: of each product two, by either side
PRODUCT = 6  # of a Hessian-vector product, the gradient differentiated: of each of its three products two
SINGLE = 4  # bytes: chains run in float32, whatever less the network is kept in


def interaction(
    decoder: Decoder, tokens: int, layer: int, *, sample: int = 20_000, draws: int = DRAWS, batch: int = 256
) -> Cost:
    """The interaction basis of the output of block `layer`: covariance on all tokens, and `draws` random mixtures of the
    logits of each item, differentiated, on `sample` items. For more than 256 logits, as any language has.

    A sweep a draw, 2 D^2 FLOPs for each gradient; twice as many draws again on the few items that say how far off that is.
    `batch` items must fit: where the library reckons more than 1 GiB for a derivative, it refuses unless it is given more.
    """
    items, length = tokens // decoder.length, decoder.length
    chosen = min(items, sample)
    few, first = max(2, min(16, chosen // 16)), min(chosen, batch)
    positions = tokens + length * (1 + chosen + few)
    gradients = length * draws * (chosen + 2 * few)
    derivatives = gradients + length * (first if first > 1 else 0)  # the latter ask whether items influence each other
    square = 2 * decoder.width**2
    flops64 = positions * decoder.forward + derivatives * decoder.sweep(layer) + (gradients + tokens) * square
    rows, patterns = length * first, decoder.heads * length
    largest = max(decoder.inner, decoder.vocabulary, patterns)
    together = max(1, min(draws, CACHE // (DOUBLE * rows * largest)))
    each = DOUBLE * rows * (2 * decoder.vocabulary + max(decoder.vocabulary, 2 * decoder.inner, 2 * patterns))
    signs = 3 * rows * draws * decoder.vocabulary  # bytes of one each, made for all draws at once
    graph = decoder.graph(rows, decoder.layers - 1 - layer)
    memory = DOUBLE * decoder.parameters + graph + together * each + signs
    return Cost("interaction basis", positions, derivatives, 0, flops64, 0, memory, f"{draws} draws an item")


def curvature(
    decoder: Decoder, tokens: int, *, free: int | None = None, probes: int = PROBES, steps: int = STEPS
) -> Cost:
    """The Gauss-Newton matrix of the behavioural loss by Lanczos quadrature: `probes` times `steps` products with it.

    `free` weights are differentiated (all where None): of them `steps` vectors are kept, and the network's outputs on all
    tokens. Arithmetic is that of all weights, less where those that are free stand late. Up to 4096 items the gradient's
    graph is kept from product to product; beyond, it is made anew for each.
    """
    products, held = probes * steps, tokens <= CHUNK * decoder.length
    gradients = 1 if held else products
    weights = decoder.parameters if free is None else free
    flops64 = tokens * decoder.forward * (2 + gradients * (1 + GRADIENT) + products * PRODUCT)
    graph = 3 * decoder.graph(min(tokens, CHUNK * decoder.length), decoder.layers)
    outputs = DOUBLE * tokens * decoder.vocabulary
    memory = DOUBLE * (decoder.parameters + weights * (steps + 9)) + outputs + graph
    name = "curvature (Gauss-Newton)"
    positions, derivatives = tokens * (2 + gradients), tokens * (gradients + products)
    return Cost(name, positions, derivatives, 0, flops64, 0, memory, f"{probes} x {steps} products")


def learning_coefficient(
    decoder: Decoder,
    tokens: int,
    *,
    free: int | None = None,
    sampling: Sampling | None = None,
    probes: int = PROBES,
    steps: int = STEPS,
) -> Cost:
    """The local learning coefficient: the curvature that sets the step, then chains of Langevin dynamics.

    Each step is a pass and a gradient, in float32 at least, on all items, or on `batch` of them (4096 where there are more).
    Each chain keeps weights, noise and gradient of what is `free`.
    """
    run, curved = sampling or Sampling(), curvature(decoder, tokens, free=free, probes=probes, steps=steps)
    seen = decoder.length * min(run.batch or WHOLE, tokens // decoder.length)
    walked = run.chains * (run.burn_in + run.draws) * seen
    weights = decoder.parameters if free is None else free
    flops = (2 * tokens + walked * (1 + GRADIENT)) * decoder.forward
    outputs = SINGLE * tokens * decoder.vocabulary
    fixed = SINGLE * (decoder.parameters + 2 * weights) + outputs
    double = DOUBLE * (decoder.parameters + 2 * weights) + 2 * outputs
    chains = SINGLE * run.chains * 4 * weights + decoder.graph(seen, decoder.layers, SINGLE)
    memory = fixed + max(curved.memory, double + chains)
    positions, derivatives = curved.positions + 2 * tokens + walked, curved.derivatives + walked
    note = f"{run.chains} chains of {run.burn_in + run.draws} steps"
    return Cost("learning coefficient", positions, derivatives, flops, curved.flops64, 0, memory, note)
