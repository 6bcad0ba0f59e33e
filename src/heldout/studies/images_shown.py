"""What the page of the images study reads: a finished run with its tables at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from heldout.evidence import read_estimates
from heldout.runs import Run
from heldout.studies.audited import ESTIMATES
from heldout.studies.images import BLOCKS, EASY, HARD, SUMMARY, ImagesConfig
from heldout.studies.images_estimates import EVERY, GAP, GATES, paired, site
from heldout.studies.images_measure import MEAN, TRAINED

UNIT = "networks"
EXPLAINED = "pooled variance explained, held out"
GAP_AXIS = f"gap in variance explained: {EASY} minus {HARD}"
BEYOND = ("combinations", "turned", "small")
OVER_SEEDS = "Intervals are over seeds, each with pictures and initial weights of its own."


class Shown:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: ImagesConfig) -> None:
        folder = run.output(SUMMARY)
        self.run, self.config = run, config
        self.networks = list(config.networks())
        self.gates = json.loads((folder / GATES).read_text())
        self.values = pd.read_parquet(folder / EVERY)
        e = read_estimates(folder / ESTIMATES)
        kind, feature = zip(*(q.partition(":")[::2] for q in e["quantity"]), strict=True)
        self.estimates = e.assign(kind=kind, feature=feature)

    def rows(self, kind: str, networks: Sequence[str], sites: Sequence[str], split: str = "test") -> pd.DataFrame:
        """Estimates of one kind, by network and site in the order named."""
        e = self.estimates
        e = e[(e["kind"] == kind) & (e["split"] == split) & e["network"].isin(networks) & e["site"].isin(sites)]
        order = [(networks.index(n), sites.index(s)) for n, s in zip(e["network"], e["site"], strict=True)]
        return e.assign(at=order).sort_values("at", kind="stable").drop(columns="at")

    def last(self, network: str) -> int:
        """The number of a network's last stage."""
        return len(BLOCKS[self.config.networks()[network]["depth"]])

    def read(self, network: str) -> str:
        """Where a network's readout reads."""
        return site(self.last(network), MEAN)

    def at_reading(self, kind: str, networks: Sequence[str], split: str = "test") -> pd.DataFrame:
        """Estimates of one kind where the readout reads, of networks or of what `paired` or `called` makes of them."""
        own = [self.rows(kind, [n], [self.read(n.split(" ")[0].removesuffix(","))], split) for n in networks]
        return pd.concat(own)

    def differences(self) -> list[str]:
        """The plain networks that have a residual twin, as `paired` calls them."""
        return [paired(n) for n in self.networks if n.startswith("plain")]

    def gap_of_seeds(self, network: str) -> pd.Series:
        """Seed -> the gap where the readout of a trained network reads, on test."""
        v = self.values
        own = v[(v["network"] == network) & (v["quantity"] == GAP) & (v["stage"] == self.last(network.split(" ")[0]))]
        own = own[(own["view"] == MEAN) & (own["when"] == TRAINED) & (own["split"] == "test")]
        return own.set_index("seed")["value"]
