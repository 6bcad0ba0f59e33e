"""What there is to choose from, one line each; loads nothing heavy."""

from __future__ import annotations

from heldout.studies.base import STUDIES

TASKS = {
    "digits": "scikit-learn's handwritten digits, changed in four ways, and classes left out of the fit",
}
PROXIES = {
    "svd": "projection on the directions of largest second moment",
    "pca": "the same about the mean",
    "kmeans": "the nearest of K centroids",
    "haar": "a random subspace: the control for svd and pca",
    "mean": "the mean activation: the floor",
}
ANALYSES = {
    "faithfulness": "same prediction, KL, JSD, accuracy, error consistency and loss recovered of an edited network",
    "matched damage": "noise that hurts as much in distribution: the null beside every gap",
    "oracle": "the proxy fitted on half of the split that it is tested on",
}


def catalogue() -> dict[str, dict[str, str]]:
    """Heading -> name -> line."""
    studies = {name: line for name, (_, line) in STUDIES.items()}
    return {"studies": studies, "tasks": TASKS, "proxies": PROXIES, "analyses": ANALYSES}
