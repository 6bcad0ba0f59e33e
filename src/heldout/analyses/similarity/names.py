"""The measures of similarity by name, for settings and specs, which are read without loading what computes them."""

from __future__ import annotations

NAMES = (
    "cka",
    "cka-biased",
    "rsa",
    "rsa-spearman",
    "rsa-kendall",
    "rsa-euclidean",
    "procrustes",
    "predict",
    "predicted",
)
