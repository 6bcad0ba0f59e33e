"""The page of the features study: decodable, quickly decodable, loud."""

from __future__ import annotations

import numpy as np

from heldout.figures import Figure, forest
from heldout.figures.page import Section, Table
from heldout.studies.features_reading import CONTROL_BITS, READ
from heldout.studies.features_shown import Shown, rounded, section

KINDS = {
    "decoded": "decoded",
    "selectivity": "decoded, less control",
    "code_saved": "bits saved",
    "variance_explained": "variance explained",
}


def readable(here: Shown) -> Section:
    return section(
        "readable",
        "Decodable, quickly decodable, loud",
        (
            "Three questions about one layer. Can a linear probe read a feature? Logistic regression, its penalty chosen on "
            "inner folds, its accuracy counted on outer ones. From how few rows? Labels are sent block by block, each coded "
            "by a probe trained on the blocks before; bits saved are 1 less bits sent over one bit a row. How much of the "
            f"variance goes with it? The control is a random label of the patterns of {CONTROL_BITS} bits, those that the "
            "feature reads first: a probe that reads this as well reads the inputs, not a feature.",
        ),
        {"decodability, code length and variance explained": lambda: _side_by_side(here)},
        (_numbers(here),),
    )


def _side_by_side(here: Shown) -> Figure:
    rows = here.together(KINDS, here.ran(READ))
    return forest(
        rows,
        id="readable",
        title="Readability beside variance explained",
        label="where",
        group="how",
        x="share: of rows read rightly (chance .5), of bits saved, of variance explained",
        limits=f"Probes see the first {_probed(here):,} test rows. That a feature can be read does not show that the "
        "network reads it: one that was never trained may be readable too. Bits saved are below 0 where probes are surer "
        "than right.",
        unit="networks (variance: test rows)",
        marks=(0.0, 0.5, 1.0),
    )


def _probed(here: Shown) -> int:
    return min(here.config.probe_rows, *(here.conditions[n].task.test for n in here.ran(READ)))


def _numbers(here: Shown) -> Table:
    kinds = ("decoded", "decoded_control", "selectivity", "decoded_majority", "compression", "code_saved_control")
    beside = ("decoded_inputs", "compression_inputs")
    names = [n for n in READ if n in here.conditions]
    found = {kind: here.rows(kind).set_index(["network", "feature"])["value"] for kind in (*kinds, *beside)}
    read = here.rows("decoded", names)
    rows = []
    for key in zip(read["network"], read["feature"], strict=True):
        rows.append((*key, *(rounded(found[kind].get(key, np.nan)) for kind in (*kinds, *beside))))
    return Table(
        title="What probes read",
        columns=(
            "condition",
            "feature",
            "accuracy",
            "control",
            "less control",
            "largest class",
            "compression",
            "bits saved, control",
            "accuracy, inputs",
            "compression, inputs",
        ),
        rows=rows,
        caption="Means over seeds. Compression: bits without activations over bits with them; it grows with the number of "
        "rows, since a feature once learnt costs nothing more. Inputs: the same probes on the bits that enter the network, "
        "once for all seeds.",
        folded=True,
    )
