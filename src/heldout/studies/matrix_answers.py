"""What the matrix measures of networks on numbers: the rule behind their answers, and the order of their embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from heldout.analyses.equivalence.discovery import discover_rule
from heldout.analyses.geometry.helix_test import circle_test
from heldout.analyses.geometry.order import orderedness_test
from heldout.studies.matrix_evidence import Asked, Evidence, alone, table
from heldout.studies.matrix_material import Material

# -- rule --------------------------------------------------------------------------------------------------------------


def rule(m: Material, asked: Asked) -> Evidence:
    """The rule behind answers to pairs never trained on, modulo p."""
    tested = [m.splits[name] for name in dict.fromkeys(("id", m.shifted))]
    theta: list[float] = []
    rows, pairs = [], 0
    for seed, network in zip(m.seeds, m.networks.trained, strict=True):
        asked.progress(len(theta), len(m.seeds), f"seed {seed}")
        operands, answers = [], []
        for split in tested:
            batch = split.items.take(np.arange(len(split))).to(m.device)
            operands.append(batch.inputs[:, :2].cpu().numpy())
            with torch.no_grad():
                answers.append(network(batch.inputs).argmax(-1).cpu().numpy())
        (a, b), modulus = np.concatenate(operands).T, _modulus(m)
        found = discover_rule(
            a,
            b,
            np.concatenate(answers),
            operation="mod_add",
            modulus=modulus,
            seed=seed,
            shuffles=asked.settings["shuffles"],
        )
        best, pairs = found.best, found.pairs
        hits, n = best.heldout
        theta.append(hits / n - found.null)
        rows.append((f"seed {seed}", best.names[0], hits / n, found.null, "yes" if found.found else "no", found.reason))
    detail = table(
        "The best rule",
        ("network", "rule", "exact match, held-out pairs", "best on shuffled answers", "confirmed", "why not"),
        rows,
        f"{pairs} pairs that were not trained on, halved by unordered pair: one half chooses, the other confirms.",
    )
    return Evidence.of(alone(theta), tables=(detail,))


def _modulus(m: Material) -> int:
    return int(m.splits["id"].items.take(np.arange(1)).inputs[0, 2])  # the equals sign is token p


# -- geometry ----------------------------------------------------------------------------------------------------------


def geometry(m: Material, asked: Asked) -> Evidence:
    """Whether the embeddings of numbers lie in their order: digits on a line, residues on a circle."""
    draws = asked.settings["permutations"]
    theta, rows = [], []
    for seed, *both in zip(m.seeds, m.networks.trained, m.networks.untrained, strict=True):
        found = []
        for network in both:
            if m.row == "modular":
                tokens = np.arange(_modulus(m))
                weights = _embedding(network, "embed.embed")[tokens]
                circle = circle_test(weights, tokens, period=len(tokens), seed=seed, draws=draws)
                found.append((circle.statistic, circle.statistic - circle.excess, circle.p))
            else:
                tokens = np.arange(10)
                order = orderedness_test(_embedding(network, "embed")[tokens], tokens, 1, seed=seed, draws=draws)
                found.append((order.observed, order.threshold, order.p))
        own, before = found
        theta.append(own[0] - own[1])
        rows.append((f"seed {seed}", *own, before[0]))
    detail = table(
        "Tables of embeddings",
        ("network", "statistic", "95th percentile, permuted", "p", "before training"),
        rows,
        f"{draws} permutations of the tokens; the statistic's choices are made anew in each.",
    )
    return Evidence.of(alone(theta), tables=(detail,))


def _embedding(network: nn.Module, path: str) -> np.ndarray:
    """(V, D) float64, a table of embeddings."""
    weights = network.get_submodule(path).weight
    assert isinstance(weights, Tensor)
    return np.asarray(weights.detach().double().cpu().numpy())
