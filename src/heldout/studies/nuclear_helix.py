"""The helix test on the embeddings of the nuclear study's networks, whatever they were trained on, and of untrained ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from heldout.analyses.geometry.helix_test import HelixNull, helix_test
from heldout.runs import StepContext
from heldout.studies.nuclear_measure import table_of, untrained_network
from heldout.studies.nuclear_train import COLUMNS, KINDS, Trained, loaded, task_of

HELIX, PROFILES = "helix.parquet", "profiles.npz"
UNTRAINED = "untrained"


def test_helix(ctx: StepContext) -> None:
    """Both tables of one network; `network` names what it was trained on, or is ``untrained``.

    Writes one row a table and null family, and for a figure the profile over turns with each family's 95th percentile.
    """
    import pandas as pd

    s = ctx.settings
    kind = KINDS.get(s["network"], Trained())
    task = task_of(s, kind)
    network = untrained_network(s, task, 0) if s["network"] == UNTRAINED else loaded(ctx, kind, task)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for i, column in enumerate(COLUMNS):
        ctx.progress(i, len(COLUMNS), column)
        tokens = task.tokens[column]
        test = helix_test(
            table_of(network, task, column), tokens, seed=s["seed"], draws=s["draws"], null=HelixNull(tokens)
        )
        fit = test.fit
        shared: dict[str, Any] = {"network": s["network"], "seed": s["seed"], "column": column, "tokens": len(tokens)}
        shared |= {"turns": fit.turns, "aspect": fit.aspect, "gain": fit.gain, "r2": fit.r2, "statistic": fit.statistic}
        shared |= {"share": float(fit.share.sum()), "p": test.p, "excess": test.excess}
        for name, family in test.families.items():
            rows.append({**shared, "family": name, "threshold": family.threshold, "family_p": family.p})
            arrays[f"{column} {name}"] = family.band
        arrays |= {f"{column} grid": fit.grid, f"{column} profile": fit.profile}
    pd.DataFrame(rows).to_parquet(ctx.out / HELIX, index=False)
    np.savez_compressed(ctx.out / PROFILES, **arrays)
