"""Model recovery with the networks of one configuration; see `heldout.analyses.similarity.recovery`."""

from __future__ import annotations

from heldout.analyses.similarity.brains import Recording
from heldout.analyses.similarity.methods import standard_methods
from heldout.analyses.similarity.recovered import confusion, gains, rates
from heldout.analyses.similarity.recovery import recovery
from heldout.runs import StepContext
from heldout.studies.similarity_compare import Compared

TABLES = {"rates": rates, "confusion": confusion, "gains": gains}


def recover_networks(ctx: StepContext) -> None:
    """Brains of every role, ranked by every measure under every correction."""
    s = ctx.settings
    here = Compared.read(s, ctx.inputs)
    scores = recovery(
        here.rows,
        here.stimuli,
        standard_methods(here.stimuli, loud=[here.one.features[0]]),
        seed=s["data_seed"],
        recording=Recording(neurons=s["neurons"], noise=s["noise"]),
        draws=s["brains"],
        progress=lambda done, total: ctx.progress(done, total, "brains"),
    )
    for name, table in TABLES.items():
        table(scores).to_parquet(ctx.out / f"{name}.parquet", index=False)
