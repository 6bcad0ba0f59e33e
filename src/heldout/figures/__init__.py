"""Evidence becomes figures: one function a kind of figure, none of them knows a study.

Names load when they are first used, so that describing a page does not load the libraries that draw its figures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heldout.figures.accuracy import accuracy_figure
    from heldout.figures.base import Figure
    from heldout.figures.curves import faithfulness_curves
    from heldout.figures.forest_plot import forest
    from heldout.figures.gap import gap_figure
    from heldout.figures.layers import Layer, module_graph
    from heldout.figures.matrices import Matrix, heatmap
    from heldout.figures.scatter import scatter_components
    from heldout.figures.training import training_curves

_HOME = {
    "Figure": "base",
    "Layer": "layers",
    "Matrix": "matrices",
    "accuracy_figure": "accuracy",
    "faithfulness_curves": "curves",
    "forest": "forest_plot",
    "gap_figure": "gap",
    "heatmap": "matrices",
    "module_graph": "layers",
    "scatter_components": "scatter",
    "training_curves": "training",
}

__all__ = [
    "Figure",
    "Layer",
    "Matrix",
    "accuracy_figure",
    "faithfulness_curves",
    "forest",
    "gap_figure",
    "heatmap",
    "module_graph",
    "scatter_components",
    "training_curves",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
