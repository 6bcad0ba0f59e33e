"""What the page of the degeneracy study reads."""

from __future__ import annotations

import json

import pandas as pd

from heldout.evidence import read_estimates
from heldout.runs import Run
from heldout.studies.audited import ESTIMATES
from heldout.studies.degeneracy import JUDGE
from heldout.studies.degeneracy_judge import GATES
from heldout.studies.degeneracy_settings import DegeneracyConfig

NAMES = {"lib": "interaction basis", "pca": "principal components"}
STREAMS = {"embed": "behind embedding", "last": "behind attention", "mlp": "behind feed-forward"}


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: DegeneracyConfig) -> None:
        self.run, self.config, self.folder = run, config, run.output(JUDGE)
        self.estimates = read_estimates(self.folder / ESTIMATES)
        self.gates = json.loads((self.folder / GATES).read_text())
        self.seed = config.seed_list()[0]

    def rows(self, *quantities: str) -> pd.DataFrame:
        e = self.estimates[self.estimates["quantity"].isin(quantities)]
        return e.assign(
            basis=[NAMES.get(edit, edit) for edit in e["edit"]], where=[STREAMS.get(s, s) for s in e["site"]]
        )
