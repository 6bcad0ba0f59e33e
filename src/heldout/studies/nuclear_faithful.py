"""Simplified networks of the nuclear study, judged by the faithfulness analysis: components kept, the helix alone, and the
helix with some of what it leaves.

Simplifications are fitted on training nuclei and trained tokens and judged on nuclei that were not trained on, at random
and by vintage. `nuclear_measure` asks how well a cut network predicts; here the question is first whether it still says
what the network says. The rank of each simplification is the least whose predictions are those of the network for .95 of
`select`; noise that does as much damage on `id` stands beside each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.activations.tap import Reading
from heldout.analyses.audit import Plan, Wanted, audit
from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.analyses.faithfulness import Subject
from heldout.analyses.outputs import Regression, calibrated, restored
from heldout.analyses.summary import Chosen, label
from heldout.analyses.tables import Folder
from heldout.evidence import Estimate, Origin
from heldout.networks.token_mlp import TokenMLP
from heldout.proxies.base import Proxy
from heldout.proxies.controls import Mean, RandomSubspace
from heldout.proxies.fit import Family, fit_edits
from heldout.proxies.helix import Helix
from heldout.proxies.helix_fit import COMPONENTS
from heldout.proxies.svd import SVD
from heldout.runs import StepContext
from heldout.studies.nuclear import FAITHFUL_TO
from heldout.studies.nuclear_measure import PENULTIMATE, TABLE_SITES, table_of
from heldout.studies.nuclear_train import Trained, loaded, task_of
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.tasks.nuclear import Nuclear

if TYPE_CHECKING:
    from heldout.studies.nuclear_judge import Found

SCORES, RECORD = "scores", "record.json"
LAYER = str(Site.parse(PENULTIMATE))
TABLES = " + ".join(TABLE_SITES.values())  # both tables of embeddings at once
REFERENCE, SELECT = "id", "select"
THRESHOLD = 0.95  # of select, alike: what a rank must reach
PLANE = 2  # dimensions that a parabola lies in
SUBSPACES = 4  # random subspaces of each rank
BATCH = 4096
DRAWS = 400  # resamples behind an interval
PCA, HAAR, MEAN, HELIX, DRIFT, REST = "pca", "haar", "mean", "helix", "drift", "helix-rest"
RANKED = {LAYER: (PCA,), TABLES: (PCA, HELIX, DRIFT)}  # families whose rank is chosen; at every site HAAR stands beside
SINGLE = {LAYER: (), TABLES: (REST,)}  # and without a rank; at every site MEAN stands beside


def tests_of(network: str) -> tuple[str, ...]:
    """Splits on which a network is further from what it was trained on than on `REFERENCE`."""
    return ("new",) if Trained.named(network).vintage else ()


# -- step --------------------------------------------------------------------------------------------------------------


def simplify(ctx: StepContext) -> None:
    """Scores of every simplification of one network, one part a cell, and what `audit` returns.

    Reads `network`, `components` (ranks), `alike` (keV per nucleon) and `null_draws`. Two predictions are alike where they
    differ by at most `alike`; squares of errors are kept per nucleon (`squared`, `*_loss`, keV^2) and of whole nuclei
    (`whole_*`).
    """
    s, kind = ctx.settings, Trained.named(ctx.settings["network"])
    task = task_of(s, kind)
    network = loaded(ctx, kind, task)
    plan = Plan(
        reference=REFERENCE,
        tests=tests_of(s["network"]),
        fit="train",
        select=SELECT,
        families=(PCA, HELIX, DRIFT, REST),
        oracles=(),
        threshold=THRESHOLD,
        null_draws=s["null_draws"],
        batch_size=BATCH,
        margin_bins=1,  # numbers have no margin
    )

    def build(subject: Subject, split: Split, oracle: bool, wanted: Wanted | None) -> list[Edit]:
        return [*of_layer(network, split, s["components"]), *of_tables(network, task, s["components"])]

    scoring = in_kev(Regression(tolerance=s["alike"]), network, task)
    folder = ctx.out / SCORES
    folder.mkdir()
    with Folder(folder) as sink:
        record = audit(
            Subject(network, "nuclear", s["network"], s["seed"], scoring),
            {name: bare(split) for name, split in task.splits.items()},
            plan,
            build,
            sink,
            seed=s["seed"],
            extra=of_whole_nuclei,
            progress=ctx.progress,
        )
    (ctx.out / RECORD).write_text(json.dumps(record))


def bare(split: Split) -> Split:
    """`split` without labels: rows of the scores are isotopic chains, and not single nuclei."""
    items = split.items
    assert isinstance(items, Rectangular)
    return replace(split, items=Rectangular(items.inputs, items.targets))


def in_kev(scoring: Regression, network: TokenMLP, task: Nuclear) -> Regression:
    """`scoring` about the network's mean energy on `REFERENCE`, its tolerance in keV per nucleon and no share of a scale."""
    found = calibrated(scoring, network, task.splits[REFERENCE], batch_size=BATCH)
    assert isinstance(found, Regression)
    assert found.centre is not None
    fixed = restored(found, {"scale": torch.ones_like(found.centre)})
    assert isinstance(fixed, Regression)
    return fixed


def of_whole_nuclei(original: Reading, edited: Reading, batch: Batch) -> Mapping[str, Tensor]:
    """Squares, keV^2: what the edit changes of a nucleus's energy, and how far the edited and the own prediction are off."""
    assert batch.targets is not None
    a = batch.inputs.sum(dim=1).double()
    own, other, true = (x[:, 0].double() * a for x in (original.output, edited.output, batch.targets))
    return {
        "whole_changed": (other - own) ** 2,
        "whole_error": (other - true) ** 2,
        "whole_own": (own - true) ** 2,
    }


def of_layer(network: TokenMLP, split: Split, ranks: Sequence[int]) -> list[Edit]:
    """The penultimate layer cut to components of its rows on `split`, to random subspaces, and at its mean."""
    families = [Family(PCA, tuple(ranks)), Family(MEAN)]
    families += [Family(HAAR, tuple(ranks), draw=d, options={"centred": True}) for d in range(SUBSPACES)]
    return fit_edits(network, split, [LAYER], families, batch_size=BATCH)


def of_tables(network: TokenMLP, task: Nuclear, ranks: Sequence[int]) -> list[Edit]:
    """Both tables of embeddings simplified alike; fitted on the tokens that training nuclei have, each once.

    The rank of a curve counts the dimensions that it lies in and the components of what it leaves that are added to it:
    ``helix-3`` is the helix alone, ``helix-8`` has five components of its residual, and with all there are it would be the
    table itself. ``helix-rest``: the first three components on their helix, all others as they are.
    """
    makes: list[tuple[str, int | None, Callable[[str], Proxy]]] = [
        (MEAN, None, lambda column: Mean()),
        (REST, None, lambda column: Helix(task.tokens[column].tolist(), rest=True)),
    ]
    for k in sorted({*ranks, PLANE, COMPONENTS}):  # drift and helix alone among them
        makes.append((PCA, k, _principal(k)))
        makes += [(DRIFT, k, _curve(task, k - PLANE, wave=False))] if k >= PLANE else []
        makes += [(HELIX, k, _curve(task, k - COMPONENTS, wave=True))] if k >= COMPONENTS else []
        makes += [(HAAR, k, _subspace(k, draw)) for draw in range(SUBSPACES)]
    tables = {column: torch.from_numpy(table_of(network, task, column)) for column in TABLE_SITES}
    edits = []
    for family, rank, make in makes:
        first, second = (
            Edit.from_proxy(site, make(column).fit(tables[column]), Origin(family, fit_split="train", parameter=rank))
            for column, site in TABLE_SITES.items()
        )
        edits.append(first.then(second))
    return edits


def _principal(rank: int) -> Callable[[str], Proxy]:
    return lambda column: SVD(rank, centred=True)


def _curve(task: Nuclear, residual: int, *, wave: bool) -> Callable[[str], Proxy]:
    return lambda column: Helix(task.tokens[column].tolist(), residual=residual, wave=wave)


def _subspace(rank: int, draw: int) -> Callable[[str], Proxy]:
    """Another one for each draw and each table."""

    def make(column: str) -> Proxy:
        number = list(TABLE_SITES).index(column)
        return RandomSubspace(rank, seed=len(TABLE_SITES) * draw + number, centred=True)

    return make


# -- estimates ---------------------------------------------------------------------------------------------------------


def faithful(found: Found) -> Iterator[Estimate]:
    """Each network's simplifications on nuclei to be judged on: how often they are alike, and errors of whole nuclei; of
    those that the rank rule chose also the gap from `REFERENCE`, beside noise of the same damage."""
    for network in (n for n in FAITHFUL_TO if n in found.networks):
        folders = found.each(f"faithful-{network}")
        scores = Scores.read(folder / SCORES for folder in folders)
        records = [json.loads((folder / RECORD).read_text()) for folder in folders]
        subjects = [(network, seed) for seed in found.seeds]
        chosen = Chosen.from_records(dict(zip(subjects, records, strict=True)), REFERENCE)
        rng = np.random.default_rng(0)
        for split in (REFERENCE, *tests_of(network)):
            wanted = [
                (estimand, {"network": network, "split": split, **where})
                for site in RANKED
                for estimand, where in (*_grid(scores, subjects, site, split), *_chosen(chosen, network, site, split))
            ]
            yield from describe(scores, subjects, wanted, rng=rng, draws=DRAWS)


def _grid(
    scores: Scores, subjects: Sequence[tuple[str, int]], site: str, split: str
) -> Iterator[tuple[Estimand, dict[str, Any]]]:
    """Every simplification at `site`: quantities ``alike``, ``rms_whole`` and ``rms_changed``."""
    cells = [c for c in scores.cells if c.edit.site == site and c.split == split and c.seed == subjects[0][1]]
    for cell in cells:
        if cell.edit.name not in (*RANKED[site], *SINGLE[site], HAAR, MEAN):
            continue  # noise
        at = {"split": split, "edit": cell.edit.label, "site": site}
        where = {"site": site, "edit": cell.edit.name, "parameter": cell.edit.parameter}
        yield (lambda view, at=at: view.ratio("same", **at)), where | {"quantity": "alike"}  # type: ignore[misc]
        yield _root("whole_error", at), where | {"quantity": "rms_whole"}
        yield _root("whole_changed", at), where | {"quantity": "rms_changed"}
    mean = {"split": split, "edit": MEAN, "site": site}
    yield _root("whole_own", mean), {"site": site, "edit": "full", "quantity": "rms_whole"}


def _chosen(chosen: Chosen, network: str, site: str, split: str) -> Iterator[tuple[Estimand, dict[str, Any]]]:
    """What the rank rule chose at `site`, each seed at its own rank."""
    for family in (*RANKED[site], *SINGLE[site]):
        where = {"site": site, "edit": family}

        def of(method: Callable[..., Floats], *more: Any, family: str = family) -> Estimand:
            return lambda view: method(view, site, family, split, *more)

        yield of(chosen.ratio, "same"), where | {"quantity": "chosen_alike"}
        yield _chosen_root(chosen, site, family, split), where | {"quantity": "chosen_rms_whole"}
        if family in RANKED[site]:
            yield _as_random(chosen, site, family, split), where | {"quantity": "random_alike"}
        if split in tests_of(network):
            gap = where | {"reference": REFERENCE}
            yield of(chosen.gap), gap | {"quantity": "alike_gap"}
            yield of(chosen.null_gap), gap | {"quantity": "alike_null_gap"}
            yield of(chosen.excess), gap | {"quantity": "alike_excess_gap"}


def _root(metric: str, at: Mapping[str, str]) -> Estimand:
    return lambda view: np.sqrt(view.ratio(metric, **at))  # type: ignore[arg-type]


def _as_random(chosen: Chosen, site: str, family: str, split: str) -> Estimand:
    """How often random subspaces of the chosen rank are alike."""
    return lambda view: view.ratio("same", split=split, edit=label(HAAR, chosen.size(view, site, family)), site=site)


def _chosen_root(chosen: Chosen, site: str, family: str, split: str) -> Estimand:
    def estimand(view: View) -> Floats:
        edit = label(family, chosen.size(view, site, family))
        return np.sqrt(view.ratio("whole_error", split=split, edit=edit, site=site))

    return estimand
