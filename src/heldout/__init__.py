"""heldout: does what you read off a neural network still hold where you have not looked?

Public names load when they are first used, so that `import heldout` loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    # a network in memory
    "check": "heldout.analyses.check",
    "Checked": "heldout.analyses.check",
    "split": "heldout.tasks.make",
    "Split": "heldout.tasks.base",
    "Batch": "heldout.tasks.base",
    "Scoring": "heldout.analyses.scoring",
    "Regression": "heldout.analyses.outputs",
    "Embedding": "heldout.analyses.outputs",
    # sites, edits and passes with them
    "Site": "heldout.activations.sites",
    "sites": "heldout.activations.listing",
    "Edit": "heldout.activations.edits",
    "Tap": "heldout.activations.tap",
    "capture": "heldout.activations.capture",
    "Moments": "heldout.activations.accumulators",
    "Reservoir": "heldout.activations.accumulators",
    # proxies
    "SVD": "heldout.proxies.svd",
    "KMeans": "heldout.proxies.clusters",
    "Mean": "heldout.proxies.controls",
    "RandomSubspace": "heldout.proxies.controls",
    "Estimator": "heldout.proxies.wrapped",
    "Autoencoder": "heldout.proxies.wrapped",
    "check_proxy": "heldout.proxies.checks",
    # the rule behind a model's answers
    "discover_rule": "heldout.analyses.equivalence.discovery",
    "Relation": "heldout.analyses.equivalence.found",
    # how alike two representations are
    "similarity": "heldout.analyses.similarity.measures",
    # which features of a network interact, and which of its parameters do nothing
    "Sections": "heldout.activations.sections",
    "local_bases": "heldout.proxies.bases",
    "free_directions": "heldout.analyses.degeneracy.ranks",
    "learning_coefficient": "heldout.analyses.degeneracy.llc",
    # errors
    "HeldoutError": "heldout.errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from heldout.activations.accumulators import Moments as Moments
    from heldout.activations.accumulators import Reservoir as Reservoir
    from heldout.activations.capture import capture as capture
    from heldout.activations.edits import Edit as Edit
    from heldout.activations.listing import sites as sites
    from heldout.activations.sections import Sections as Sections
    from heldout.activations.sites import Site as Site
    from heldout.activations.tap import Tap as Tap
    from heldout.analyses.check import Checked as Checked
    from heldout.analyses.check import check as check
    from heldout.analyses.degeneracy.llc import learning_coefficient as learning_coefficient
    from heldout.analyses.degeneracy.ranks import free_directions as free_directions
    from heldout.analyses.equivalence.discovery import discover_rule as discover_rule
    from heldout.analyses.equivalence.found import Relation as Relation
    from heldout.analyses.outputs import Embedding as Embedding
    from heldout.analyses.outputs import Regression as Regression
    from heldout.analyses.scoring import Scoring as Scoring
    from heldout.analyses.similarity.measures import similarity as similarity
    from heldout.errors import HeldoutError as HeldoutError
    from heldout.proxies.bases import local_bases as local_bases
    from heldout.proxies.checks import check_proxy as check_proxy
    from heldout.proxies.clusters import KMeans as KMeans
    from heldout.proxies.controls import Mean as Mean
    from heldout.proxies.controls import RandomSubspace as RandomSubspace
    from heldout.proxies.svd import SVD as SVD
    from heldout.proxies.wrapped import Autoencoder as Autoencoder
    from heldout.proxies.wrapped import Estimator as Estimator
    from heldout.tasks.base import Batch as Batch
    from heldout.tasks.base import Split as Split
    from heldout.tasks.make import split as split


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'heldout' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
