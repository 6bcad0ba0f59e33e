"""Costs of what runs a decoder forward, and of the statistics on what it holds.

N positions ("tokens"), D width, K rank or clusters, V vocabulary. A batch holds `batch` items of the decoder's length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from heldout.analyses.cost.decoder import DOUBLE, Cost, Decoder
from heldout.analyses.damage import DRAWS
from heldout.analyses.features.nulls import BLOCK
from heldout.analyses.features.nulls import DRAWS as PERMUTATIONS

SCORED = 10  # arrays (positions, V) of float32 that are alive while an edited pass is compared with the network's own
EIGEN = 9  # FLOPs of a symmetric eigendecomposition with its vectors, times D^3 (Golub and Van Loan)
MIXED = 6  # arrays as large as a block of permuted labels while it is made
CALIBRATION = 13, 4  # scales that a matched null tries, noises at each


def plain(decoder: Decoder, tokens: int, *, batch: int = 256) -> Cost:
    """One pass, its output thrown away: what the others are measured against."""
    positions = _batch(decoder, tokens, batch)
    return Cost("plain pass", tokens, 0, tokens * decoder.forward, 0, 0, decoder.working(positions))


def moments(decoder: Decoder, tokens: int, *, sites: int = 1, batch: int = 256) -> Cost:
    """Streaming second moments (N, D) -> (D, D) at so many sites, in one pass: 2 D^2 FLOPs a token and site.

    Each site keeps 8 D^2 bytes; joining a batch takes three times that, and its rows twice over in float64, for a moment.
    """
    positions, square = _batch(decoder, tokens, batch), DOUBLE * decoder.width**2
    rows = DOUBLE * positions * decoder.width
    memory = sites * square + max(decoder.working(positions), 2 * rows, rows + 3 * square)
    flops64 = 2 * sites * tokens * decoder.width**2
    return Cost("second moments", tokens, 0, tokens * decoder.forward, flops64, 0, memory)


def components(width: int) -> Cost:
    """SVD or principal components from moments, all ranks at once: one eigendecomposition, whatever the data."""
    return Cost("singular directions", 0, 0, 0, 0, EIGEN * width**3, 4 * DOUBLE * width**2)


def kmeans(width: int, rows: int, clusters: int, *, restarts: int = 3, iterations: int = 300, size: int = 4) -> Cost:
    """k-means on a sample of rows of `size` bytes an entry: at most, as Lloyd's algorithm mostly stops earlier.

    One start tries 2 + ln K candidates for each further centroid; each iteration compares all rows with all centroids.
    """
    distances = 1 + (clusters - 1) * (2 + int(math.log(clusters))) + (iterations + 1) * clusters
    memory = rows * width * (size + 4 * DOUBLE)
    return Cost("k-means", 0, 0, 0, 0, 2 * restarts * distances * rows * width, memory, f"{iterations} iterations")


def faithfulness(decoder: Decoder, tokens: int, edits: Sequence[tuple[int, int]], *, batch: int = 256) -> Cost:
    """Edits (block, rank), each a projection of the block's output on so many directions, scored on all tokens.

    One pass of the network, then for each edit what follows the edited block and 4 D K FLOPs a position. The identity
    check before it makes 3 passes over one batch, and one whole and one replayed pass more for each block that is edited.
    A batch keeps the output of every block, and `SCORED` arrays as large as its logits in float32.
    """
    positions, blocks = _batch(decoder, tokens, batch), sorted({layer for layer, _ in edits})
    replayed = sum(decoder.after(layer) + 4 * decoder.width * rank for layer, rank in edits)
    check = (3 + len(blocks)) * decoder.forward + sum(map(decoder.after, blocks))
    flops = tokens * (decoder.forward + replayed) + positions * check
    kept = (decoder.layers + 3) * decoder.width * decoder.bytes
    memory = positions * (kept + 4 * SCORED * decoder.vocabulary + decoder.bytes * decoder.vocabulary)
    passed = tokens * (1 + len(edits)) + positions * (3 + 2 * len(blocks))
    return Cost("faithfulness", passed, 0, flops, 0, 0, memory, f"{len(edits)} edits")


def null(decoder: Decoder, tokens: int, layer: int, rank: int, *, batch: int = 256) -> Cost:
    """The matched-damage null of one edit, calibrated on so many tokens of the reference split.

    Bisection tries 13 scales with 4 noises each. Its 20 draws are then scored like edits, each as dear as the edit itself:
    `faithfulness` with 20 of them.
    """
    scales, noises = CALIBRATION
    positions = _batch(decoder, tokens, batch)
    edited, whole = 1 + scales * noises, 1 + scales
    each = decoder.after(layer) + 4 * decoder.width * rank
    check = 2 * decoder.forward + decoder.after(layer)
    flops = tokens * (whole * decoder.forward + edited * each) + positions * check
    memory = faithfulness(decoder, tokens, [(layer, rank)], batch=batch).memory
    passed = tokens * (whole + edited) + 3 * positions
    return Cost("matched null", passed, 0, flops, 0, 0, memory, f"then {DRAWS} draws to score")


def interventions(decoder: Decoder, tokens: int, *, sites: int = 1, draws: int = DRAWS, batch: int = 4096) -> Cost:
    """A structure removed, kept alone, and so many random removals of its size: whole passes, nothing replayed. For networks
    of one number an item, which a decoder with another head can be.

    Each removal draws directions in the span of the activations: an eigendecomposition and an orthogonalisation.
    """
    passed, square = tokens * (3 + draws), DOUBLE * decoder.width**2
    host = sites * (draws + 1) * (EIGEN + 2) * decoder.width**3
    memory = decoder.working(_batch(decoder, tokens, batch)) + sites * (draws + 6) * square
    return Cost("interventions", passed, 0, passed * decoder.forward, 0, host, memory, f"{draws} random removals")


def features(
    decoder: Decoder, tokens: int, labels: Sequence[int], *, draws: int = PERMUTATIONS, batch: int = 256
) -> Cost:
    """Labels (columns of each) at one site: joint moments, least squares, and permutations; half the tokens fit, half test.

    The rows are read in one pass and kept: as they are, and in float64 for permutations, the test half twice.
    """
    columns, width = sum(labels), decoder.width
    joint = 2 * tokens * (columns + width) ** 2
    permuted = 2 * tokens * width * draws * columns
    shuffled = MIXED * DOUBLE * min(tokens // 2 * draws, BLOCK)
    memory = tokens * width * (decoder.bytes + 1.5 * DOUBLE) + DOUBLE * (columns + width) ** 2 + shuffled
    flops = tokens * decoder.forward
    return Cost("feature audit", tokens, 0, flops, 0, joint + permuted, memory, f"{draws} permutations of each label")


def cka(decoder: Decoder, tokens: int, *, batch: int = 256) -> Cost:
    """Linear CKA, debiased or not, of two such networks, streamed: moments of both sides' rows and their squared lengths."""
    both, positions = 2 * decoder.width + 2, _batch(decoder, tokens, batch)
    square, rows = DOUBLE * both**2, DOUBLE * positions * both
    memory = max(square + max(4 * rows, 3 * rows + 3 * square), decoder.working(positions))
    return Cost("linear CKA", 2 * tokens, 0, 2 * tokens * decoder.forward, 0, 2 * tokens * both**2, memory)


def _batch(decoder: Decoder, tokens: int, batch: int) -> int:
    """Positions of a batch of so many items."""
    return min(tokens, batch * decoder.length)
