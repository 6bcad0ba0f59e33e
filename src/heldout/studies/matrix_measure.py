"""The function behind each column of the matrix: an existing analysis with small settings. Nothing here is a new one."""

from __future__ import annotations

from collections.abc import Callable

from heldout.studies.matrix_activations import degeneracy, features, similarity
from heldout.studies.matrix_answers import geometry, rule
from heldout.studies.matrix_evidence import Asked, Evidence
from heldout.studies.matrix_faithfulness import faithfulness
from heldout.studies.matrix_material import Material
from heldout.studies.matrix_removal import removal

MEASURES: dict[str, Callable[[Material, Asked], Evidence]] = {
    "faithfulness": faithfulness,
    "degeneracy": degeneracy,
    "similarity": similarity,
    "features": features,
    "removal": removal,
    "rule": rule,
    "geometry": geometry,
}
