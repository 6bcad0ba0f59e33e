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
    from heldout.figures.lines_plot import lines
    from heldout.figures.matrices import Matrix, heatmap
    from heldout.figures.nuclides_chart import Chart, nuclides
    from heldout.figures.plane_plot import Plane, plane
    from heldout.figures.scatter import scatter_components
    from heldout.figures.space_plot import Spectrum, space
    from heldout.figures.training import training_curves

_HOME = {
    "Chart": "nuclides_chart",
    "Figure": "base",
    "Layer": "layers",
    "Matrix": "matrices",
    "Plane": "plane_plot",
    "Spectrum": "space_plot",
    "accuracy_figure": "accuracy",
    "faithfulness_curves": "curves",
    "forest": "forest_plot",
    "gap_figure": "gap",
    "heatmap": "matrices",
    "lines": "lines_plot",
    "module_graph": "layers",
    "nuclides": "nuclides_chart",
    "plane": "plane_plot",
    "scatter_components": "scatter",
    "space": "space_plot",
    "training_curves": "training",
}

__all__ = [
    "Chart",
    "Figure",
    "Layer",
    "Matrix",
    "Plane",
    "Spectrum",
    "accuracy_figure",
    "faithfulness_curves",
    "forest",
    "gap_figure",
    "heatmap",
    "lines",
    "module_graph",
    "nuclides",
    "plane",
    "scatter_components",
    "space",
    "training_curves",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
