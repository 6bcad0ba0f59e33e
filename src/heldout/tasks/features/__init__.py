"""Boolean features of graded complexity, several in one row of bits, each an output of its own."""

from heldout.tasks.features.complexity import Complexity, complexity
from heldout.tasks.features.heads import Heads
from heldout.tasks.features.library import KINDS, Feature, feature
from heldout.tasks.features.settings import PRESETS, FeaturesSettings, hermann2020
from heldout.tasks.features.task import Features

__all__ = [
    "KINDS",
    "PRESETS",
    "Complexity",
    "Feature",
    "Features",
    "FeaturesSettings",
    "Heads",
    "complexity",
    "feature",
    "hermann2020",
]
