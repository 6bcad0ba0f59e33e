"""The interaction basis of a decoder's residual stream, shown beside studies that simplify attention.

What these studies simplify, keys and queries of a head, is no single site: a score is a product of both, so a basis of one
is found together with the other (joint SVD). The stream behind each layer is one site, through which all of the layer's
effect on the output goes. There the basis is compared with principal components of the same rank. No claim reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.activations.edits import Edit
from heldout.analyses.estimates import Estimand, Scores, describe
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.summary import CURVE_DRAWS, label
from heldout.analyses.tables import Folder
from heldout.evidence import Estimate, read_estimates, write_estimates
from heldout.figures import faithfulness_curves
from heldout.figures.page import Section
from heldout.proxies.fit import Family, fit_edits
from heldout.runs import Run
from heldout.studies.audited import ESTIMATES
from heldout.tasks.base import Split

FAMILIES = ("ib", "pca")
DRAWS = 4  # random mixtures of all outputs an item, in place of each output one by one
QUANTITIES = {"same_prediction": "same", "kl": "kl", "accuracy_proxy": "proxy_correct"}


def stream(layers: int) -> list[str]:
    """The residual stream behind each block of a transformer."""
    return [f"blocks.{i}" for i in range(layers)]


def stream_edits(
    subject: Subject, fit: Split, sites: Sequence[str], ranks: Sequence[int], *, batch_size: int
) -> list[Edit]:
    """At each site the first features of its interaction basis to the logits, and as many principal components; fitted on
    every position of `fit` that its mask counts as data."""
    probes = {"probes": "full", "draws": DRAWS}
    families = [Family("ib", tuple(ranks), options=probes), Family("pca", tuple(ranks))]
    every = int(fit.items.lengths.sum())
    return fit_edits(subject.network, fit, sites, families, sample=every, batch_size=batch_size, device=subject.device)


def score_stream(
    out: Path, subject: Subject, fit: Split, splits: Sequence[Split], s: Mapping[str, Any], *, batch_size: int
) -> None:
    """Score parts of one network in the folder `out`; `s` has ``sites`` and ``stream_ranks``."""
    edits = stream_edits(subject, fit, s["sites"], s["stream_ranks"], batch_size=batch_size)
    with Folder(out) as sink:
        faithfulness(subject, splits, edits, sink, batch_size=batch_size)


def write_stream_estimates(out: Path, folders: Sequence[Path], splits: Sequence[str], s: Mapping[str, Any]) -> None:
    """Every edit on each of `splits`, over all networks whose score parts lie in `folders`."""
    scores, rng = Scores.read(folders), np.random.default_rng(0)
    rows: list[Estimate] = []
    for network in scores.networks():
        subjects = [(network, seed) for seed in scores.seeds(network)]
        for site in s["sites"]:
            for family in FAMILIES:
                for rank in s["stream_ranks"]:
                    for split in splits:
                        what = {"network": network, "site": site, "edit": family, "parameter": rank, "split": split}
                        at = {"split": split, "edit": label(family, rank), "site": site}
                        wanted = [(_mean(metric, at), what | {"quantity": q}) for q, metric in QUANTITIES.items()]
                        rows += describe(scores, subjects, wanted, rng=rng, draws=CURVE_DRAWS)
    write_estimates(out / ESTIMATES, rows)


def _mean(metric: str, at: Mapping[str, Any]) -> Estimand:
    return lambda view: view.ratio(metric, **at)


def stream_section(run: Run, step: str, unit: str) -> tuple[Section, ...]:
    """What the page shows of it; nothing for a run that was made before there was such a step."""
    if step not in run.steps():
        return ()
    estimates: pd.DataFrame = read_estimates(run.output(step) / ESTIMATES)
    figure = faithfulness_curves(
        estimates,
        id="interaction",
        title="The stream behind each layer: interaction basis and principal components",
        unit=unit,
        parameter="rank",
    )
    return (
        Section(
            id="interaction",
            title="What the output depends on, beside what is loud",
            text=(
                "ib (the interaction basis) keeps directions of the residual stream by how much they vary times how much "
                "the logits depend on them, on average over the fit split; pca by how much they vary. At the full width "
                "both are the network.",
                "It has no counterpart at keys and queries: a score is a product of both, and no single site holds what a "
                "simplification of them replaces. This figure stands beside the claims and judges none of them; there is no "
                "null here.",
            ),
            figures=(figure,),
        ),
    )
