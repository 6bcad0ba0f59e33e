"""What a network loses with the directions that its labels are read from: the causal column of the matrix.

The subspace is that of the linear map from the row's labels to activations at the site, fitted on the fit split (of many
labels its leading directions); rows keep the mean of that split within it (`features.subspace.Removal`). Beside it stand
random subspaces of the same rank, which hold less variance, and the leading principal components, which hold the most. That
answers are lost says that they pass through these directions; not that they pass through them alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.estimates import Scores, View, estimate
from heldout.analyses.faithfulness import faithfulness
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.subspace import subspace_removal
from heldout.analyses.features.variance import fit_map
from heldout.analyses.tables import Folder
from heldout.errors import StatisticsError
from heldout.evidence import Origin
from heldout.studies.matrix_evidence import DRAWS, Asked, Evidence, table
from heldout.studies.matrix_faithfulness import some
from heldout.studies.matrix_material import Material

ALL = "all labels"
OWN, LEADING, RANDOM = "without", "components like", "random like"  # what edits are called, before the labels
SHARE = 0.25  # of the width, the most that is removed


def removal(m: Material, asked: Asked) -> Evidence:
    """Right answers on id that are lost with the labels' subspace, minus those lost with random ones."""
    s = asked.settings
    fit, test = m.stimuli["fit"].evenly(s["items"]), some(m.splits["id"], s["items"])
    coding = Coding.fit(fit.labels, fit.kinds)
    design = coding.encode(fit.labels)
    wanted = {ALL: coding.names} | ({name: (name,) for name in coding.names} if len(coding.names) > 1 else {})
    folders, checks, ranks, site = [], [], {}, str(Site.parse(m.site))
    for i, seed in enumerate(m.seeds):
        asked.progress(i, len(m.seeds), f"seed {seed}")
        subject = m.subject(i)
        moments = moments_of(m.read(subject.network, fit), design)
        edits: list[Edit] = []
        for name, labels in wanted.items():
            made = removals(moments, coding, labels, name, m, seed=seed, draws=s["null_draws"])
            ranks[name, seed] = int(made[0].origin.parameter or 0)
            edits += made
        folders.append(asked.out / f"scores-s{seed}")
        folders[-1].mkdir()
        with Folder(folders[-1]) as sink:
            checks.append(faithfulness(subject, [test], edits, sink, batch_size=m.batch_size).check)
    scores = Scores.read(folders)
    subjects = [(m.row, seed) for seed in m.seeds]

    def right(metric: str, kind: str, name: str, view: View) -> NDArray[np.float64]:
        label = Origin(f"{kind} {name}", parameter=ranks[name, view.seed]).label
        return view.ratio(metric, split="id", edit=label, site=site)

    def lost(view: View) -> NDArray[np.float64]:
        return np.asarray(right("proxy_correct", RANDOM, ALL, view) - right("proxy_correct", OWN, ALL, view))

    rows = []
    for seed in m.seeds:
        view = View(m.row, seed, lambda column: np.array([scores.sums(column)[1].sum()]))
        for name in wanted:
            before = float(right("net_correct", OWN, name, view)[0])
            after = [float(right("proxy_correct", kind, name, view)[0]) for kind in (OWN, RANDOM, LEADING)]
            rows.append((f"seed {seed}", name, ranks[name, seed], before, *after, after[1] - after[0]))
    detail = table(
        "Right answers without the labels' directions",
        (
            *("network", "removed", "rank", "right before", "without them"),
            *("without random ones", "without leading components", "random minus them"),
        ),
        rows,
        f"Share of right answers on {len(test)} items of id. Subspaces of linear maps fitted on {len(fit.split)} stimuli of "
        f"{m.fit}, at most a quarter of the width; beside them {s['null_draws']} random subspaces and the leading principal "
        f"components of the same rank. The mean of {m.fit} is kept. Random subspaces hold less of the activations' variance "
        "than those of the labels.",
    )
    found = estimate(scores, subjects, lost, rng=np.random.default_rng(0), draws=DRAWS)
    identity = tuple(
        {"seed": seed, "sites": list(c.sites), "difference": c.difference, "tolerance": c.tolerance, "replay": c.replay}
        for seed, c in zip(m.seeds, checks, strict=True)
    )
    return Evidence.of(found, tables=(detail,), identity=identity)


def removals(
    moments: JointMoments, coding: Coding, labels: tuple[str, ...], name: str, m: Material, *, seed: int, draws: int
) -> list[Edit]:
    """The removal of the labels' subspace, of the leading principal components of the same rank, and of random subspaces of
    that rank, `draws` of one origin."""
    basis, mean = directions(moments, coding.columns(*labels)), moments.mean()[1]
    rank, rng = len(basis), np.random.default_rng([seed, len(basis)])
    leading = np.linalg.eigh(moments.xx)[1][:, ::-1].T[:rank]
    random = [rng.normal(size=basis.shape) for _ in range(draws)]
    subspaces = [(OWN, basis), (LEADING, leading), *((RANDOM, b) for b in random)]
    return [subspace_removal(m.site, b, mean, name=f"{kind} {name}", fit_split=m.fit) for kind, b in subspaces]


def directions(moments: JointMoments, columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """(K, D) what the labels in `columns` of the design say of activations: the principal components of the map's
    predictions, largest first, at most `SHARE` of the width; those of more would leave random ones nothing else to take."""
    values, vectors = np.linalg.eigh(moments.bb[np.ix_(columns, columns)])
    root = vectors * np.sqrt(np.clip(values, 0, None))  # root @ root.T is the labels' scatter
    _, size, found = np.linalg.svd(root.T @ fit_map(moments, columns).weights, full_matrices=False)
    if not size[0] > 0:
        raise StatisticsError("activations do not vary with the labels: there is no subspace to remove")
    most = max(1, int(SHARE * moments.width))
    return np.asarray(found[: min(most, int((size > 1e-10 * size[0]).sum()))])
