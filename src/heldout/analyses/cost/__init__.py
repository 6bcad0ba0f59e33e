"""What an analysis will cost on a decoder of a given size, before it is run: passes, arithmetic and memory in closed form.

    from heldout.analyses import cost

    model = cost.Decoder(layers=32, width=4096, heads=32, vocabulary=32_000, length=2048)
    cost.faithfulness(model, 1_000_000, [(15, 64)], batch=1).hours(1.4e14, 9e12, 5e11)

`decoder` has the network and the units, `passes` what runs it forward, `derivatives` what differentiates it.
"""

from heldout.analyses.cost.decoder import Cost, Decoder
from heldout.analyses.cost.derivatives import curvature, interaction, learning_coefficient
from heldout.analyses.cost.passes import (
    cka,
    components,
    faithfulness,
    features,
    interventions,
    kmeans,
    moments,
    null,
    plain,
)

__all__ = [
    "Cost",
    "Decoder",
    "cka",
    "components",
    "curvature",
    "faithfulness",
    "features",
    "interaction",
    "interventions",
    "kmeans",
    "learning_coefficient",
    "moments",
    "null",
    "plain",
]
