"""What there is to choose from, one line each; loads nothing heavy."""

from __future__ import annotations

from heldout.studies.base import STUDIES

TASKS = {
    "arithmetic": "sums, differences, products, modular ones, in any base; by operand length, carries, leading digits",
    "dyck": "well-nested brackets of k types, at most m deep; unseen structures and unseen depths",
    "code": "source code by character: installed Python and other languages, CodeSearchNet, or a folder of yours",
    "digits": "scikit-learn's handwritten digits, changed in four ways, and classes left out of the fit",
    "images": "pictures of one shape each: shape, texture and colour, rendered; other combinations, turns and sizes",
    "modular": "addition, subtraction, multiplication modulo p as pairs of tokens; a corner of pairs kept out of training",
    "nuclear": "nuclear masses and what follows from them, by Z and N; held out at random, at chains' ends, by vintage",
    "table": "numbers behind tokens in a CSV or Parquet of yours, with gaps; held out by group or by edition",
    "features": "Boolean features of graded complexity, rare or predictive as asked; balanced, independent fresh rows",
    "sequences": "features of token sequences, answered one after another in an order of your choice",
}
PROXIES = {
    "svd": "projection on the directions of largest second moment",
    "pca": "the same about the mean",
    "ib": "the first features of the interaction basis: what varies and the output depends on",
    "kmeans": "the nearest of K centroids",
    "haar": "a random subspace: the control for svd and pca",
    "mean": "the mean activation: the floor",
    "weights": "attention whose W_q^T W_k is cut to a rank; no data",
    "onehot": "attention on the largest score alone; no data",
    "topk": "attention on the k largest scores; no data",
}
OWN = {
    "audit SPEC.yaml": "readings of your network, on your splits, from files: gap, null, oracle, early warning, a page",
    "rule PREDICTIONS.csv": "the relation behind a model's answers to arithmetic, from a table of them (docs/rule.md)",
    "heldout.check": "the same for one reading of a network in memory: ten lines of Python (README, docs/audit.md)",
}
ANALYSES = {
    "faithfulness": "same prediction, KL, JSD, accuracy, error consistency and loss recovered of an edited network",
    "matched damage": "noise that hurts as much in distribution: the null beside every gap",
    "oracle": "the proxy fitted on half of the split that it is tested on",
    "heads": "previous-token and induction scores of attention heads",
    "early warning": "how well reconstruction error, margin and distance tell where a proxy will disagree",
    "depth maps": "attention and errors by depth of query and key",
    "similarity": "CKA, RSA, Procrustes and predictivity of two sets of activations, with interval, null and noise ceiling",
    "degeneracy": "interaction bases, edges and modules of a network; free directions by cause; the learning coefficient",
    "components": "what leading directions carry, read linearly on held-out data",
}


def catalogue() -> dict[str, dict[str, str]]:
    """Heading -> name -> line."""
    studies = {name: line for name, (_, line) in STUDIES.items()}
    return {"studies": studies, "your own network": OWN, "tasks": TASKS, "proxies": PROXIES, "analyses": ANALYSES}
