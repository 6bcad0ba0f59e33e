"""What is said about an edited network on one split, by how its outputs are scored."""

from __future__ import annotations

from heldout.analyses.estimates import Estimand, Floats, View

METRICS = {  # kind of scoring -> quantity -> metric that is averaged over predictions
    "regression": {"mean_squared": "squared"},
    "embedding": {"neighbour_agreement": "neighbours", "cosine": "cosine"},
}
OF_CLASSES = {"kl": "kl", "jsd": "jsd"}


def of_outputs(kind: str, *, split: str, edit: str, site: str) -> dict[str, Estimand]:
    """Quantity -> estimand of one edit on one split: ``same_prediction`` first, then what its kind of scoring adds.

    ``r_squared`` of numbers is 1 - squared / spread, of sums; see `heldout.analyses.outputs.Numbers.against`.
    """

    def ratio(metric: str) -> Estimand:
        return lambda view: view.ratio(metric, split=split, edit=edit, site=site)

    def r_squared(view: View) -> Floats:
        lost, whole = (view.total(m, split=split, edit=edit, site=site) for m in ("squared", "spread"))
        return 1 - lost / whole

    found = {q: ratio(m) for q, m in {"same_prediction": "same", **METRICS.get(kind, OF_CLASSES)}.items()}
    return found | ({"r_squared": r_squared} if kind == "regression" else {})
