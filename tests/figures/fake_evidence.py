"""Made-up evidence that looks like a study's: smooth, deterministic, with holes where `holes` asks for them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from heldout.evidence import Estimate, estimates_frame

SPLITS = ("seen_structure", "unseen_structure_short", "unseen_depth", "unseen_depth_length_matched")
HOSTILE = "</script><script>alert('x')</script> \"q\" & <b>bold</b> ünïcode 中 %{x} $y$"
LONG = "a_split_whose_name_goes_on_for_exactly_sixty_characters_long"
assert len(LONG) == 60


def estimates(
    *,
    splits: tuple[str, ...] = SPLITS,
    networks: tuple[str, ...] = ("transformer",),
    edits: tuple[str, ...] = ("svd", "kmeans"),
    site: str = "layers.1.attn@attn.key",
    holes: int = 0,
) -> pd.DataFrame:
    """Gap, excess gap, accuracies and same prediction, as `heldout.evidence.Estimate` rows over five seeds."""
    out: list[Estimate] = []

    def add(quantity: str, value: float, half: float, **fields: object) -> None:
        common = {"method": "crossed t", "n": 500, "seeds": 5, "site": site, "reference": "id"}
        missing = holes > 0 and quantity == "gap" and sum(e.quantity == "gap" for e in out) < holes
        if missing:
            out.append(Estimate(quantity, math.nan, reason="no scored position", **(common | fields)))
        else:
            out.append(Estimate(quantity, value, value - half, value + half, **(common | fields)))

    for a, network in enumerate(networks):
        for s, split in enumerate(splits):
            damage = 0.012 + 0.055 * s + 0.02 * a
            add("accuracy_network", 0.995 - 0.6 * damage, 0.006, network=network, split=split)
            for e, edit in enumerate(edits):
                here = {"network": network, "split": split, "edit": edit, "parameter": float(8 * (e + 1))}
                gap, null = damage * (1 + 0.3 * e), 0.4 * damage
                add("gap", gap, 0.008 + 0.05 * damage, null=null, **here)
                add("excess_gap", gap - null, 0.009 + 0.06 * damage, **here)
                add("accuracy_proxy", 0.985 - 1.1 * damage * (1 + 0.2 * e), 0.009, **here)
                for p in (1, 2, 4, 8, 16, 32, 64):
                    same = 1 - 0.6 * math.exp(-0.45 * math.log2(2 * p)) * (1 + 2 * damage) + 0.01 * e
                    add("same_prediction", min(same, 1.0), 0.02, null=same - 0.03, **(here | {"parameter": float(p)}))
    return estimates_frame(out)


def curves(seeds: int = 5) -> pd.DataFrame:
    """Training curves of two splits."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(seeds):
        for split, top in (("train", 0.999), ("unseen_depth", 0.82)):
            for step in range(0, 4001, 200):
                value = top * (1 - math.exp(-step / (600 + 60 * seed))) + 0.01 * rng.standard_normal()
                rows.append(("transformer", seed, split, step, value, 2000))
    return pd.DataFrame(rows, columns=["network", "seed", "split", "step", "value", "n"])


def points(n: int = 4000) -> pd.DataFrame:
    """Points in three clusters, with a category and a number each."""
    rng = np.random.default_rng(2)
    kind = np.arange(n) % 3
    centre = np.array([[0, 0], [3, 1], [1, 3]])[kind]
    xy = centre + 0.6 * rng.standard_normal((n, 2))
    return pd.DataFrame(
        {"PC1": xy[:, 0], "PC2": xy[:, 1], "type": np.array(["a", "b", "c"])[kind], "depth": xy @ [1, 1]}
    )
