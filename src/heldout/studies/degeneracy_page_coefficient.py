"""Sections of the degeneracy page beside the interaction basis: learning coefficients, blocks, and a language model."""

from __future__ import annotations

import math
from contextlib import suppress

import pandas as pd

from heldout.errors import EvidenceError
from heldout.figures import Figure, faithfulness_curves, forest, scatter_components
from heldout.figures.page import Section, Table
from heldout.studies.degeneracy_blocks import NETWORKS
from heldout.studies.degeneracy_population import MEASURED as POPULATION
from heldout.studies.degeneracy_shown import Shown
from heldout.studies.features_shown import interval, rounded

PREDICTORS = {
    "n_eff": "2 x learning coefficient",
    "quadratic": "quadratic count at its cut-off",
    "weight_norm": "weight norm",
}
COUNTS = {"quadratic": "at the chains' cut-off", "n_eff": "2 x learning coefficient", "untrained": "before training"}


def learning(here: Shown) -> Section:
    """The learning coefficient of networks with one training loss beside their held-out loss (D2)."""
    outputs = [here.run.output(f"degeneracy-population-s{seed}") for seed in here.config.seed_list()]
    networks = pd.concat([pd.read_parquet(folder / POPULATION) for folder in outputs], ignore_index=True)
    x, y = "2 x learning coefficient", "held-out loss, nats"
    points = networks.rename(columns={"n_eff": x, "held_loss": y, "way": "way of training"})
    figures: list[Figure] = []
    with suppress(EvidenceError):  # no network has a coefficient: the table says why
        figures.append(
            scatter_components(
                points,
                id="coefficient",
                title="Learning coefficient and held-out loss at one training loss",
                x=x,
                y=y,
                by="way of training",
                unit="networks",
                limits="Seeds differ in training images and weights, so that ranks are compared within a seed.",
            )
        )
    counts = here.rows("population_networks", "population_unmatched", "population_withheld").set_index("quantity")[
        "value"
    ]
    rows = [
        (PREDICTORS[r["edit"]], *interval(r), r["reason"] or "")
        for r in here.rows("rank_correlation").to_dict("records")
    ]
    table = Table(
        title="Rank correlation with the held-out loss within a seed",
        columns=("predictor", "mean over seeds", "95% interval", "why there is none"),
        rows=rows,
        caption=f"Of {counts['population_networks']:g} networks, did not reach the training loss: "
        f"{counts['population_unmatched']:g}; have no coefficient, because their chains disagree: "
        f"{counts['population_withheld']:g}.",
    )
    each = Table(
        title="Every network",
        columns=(
            "seed",
            "way",
            "updates",
            "train loss",
            "held-out loss",
            x,
            "its interval",
            "quadratic",
            "R-hat",
            "why not",
        ),
        rows=[
            (
                r["seed"],
                r["way"],
                r["updates"],
                rounded(r["train_loss"]),
                rounded(r["held_loss"]),
                rounded(r["n_eff"]),
                f"[{rounded(r['n_eff_low'])}, {rounded(r['n_eff_high'])}]" if math.isfinite(r["n_eff_low"]) else "",
                rounded(r["quadratic"]),
                rounded(r["r_hat"]),
                r["unmatched"] or r["reason"],
            )
            for r in networks.to_dict("records")
        ],
        caption="Losses in nats. The interval is that of the chains' mean, not over other networks.",
        folded=True,
    )
    text = (
        "Networks of a seed start from the same weights, see the same images and stop at the same training loss; they "
        "differ in how they are trained. The learning coefficient is that of the behavioural loss (KL) on the training "
        "images, by Langevin dynamics held near the network.",
    )
    return Section(
        "coefficient",
        "Does the simpler of two networks generalise better?",
        text,
        figures=tuple(figures),
        tables=(table, each),
    )


def blocks(here: Shown) -> Section:
    """Effective parameters of a network in two blocks and of a dense one (D3)."""
    e = here.estimates
    ratios = e[e["quantity"].str.startswith("log_ratio:")]
    names = [q.partition(":")[2] for q in ratios["quantity"]]
    ratios = ratios.assign(count=[COUNTS.get(n, f"at cut-off {n.partition('@')[2]}") for n in names])
    figure = forest(
        ratios,
        id="blocks",
        title="Effective parameters, dense over blocks",
        label="count",
        x="log of the ratio; above 0 the network in blocks has fewer",
        limits="One task and one size. Before training it is the architecture's difference and was not learnt.",
        unit="seeds",
    )
    own = e[e["quantity"].str.startswith("blocks:")]
    values = own.assign(count=own["quantity"].str.partition(":")[2]).set_index(["network", "count"])["value"]
    counts = list(dict.fromkeys(own["quantity"].str.partition(":")[2]))
    table = Table(
        title="Both networks",
        columns=("", *NETWORKS),
        rows=[(name, *(rounded(values[network, name]) for network in NETWORKS)) for name in counts],
        caption="Means over seeds. quadratic: tr[H (H + cut)^-1] at the chains' cut-off, and at others behind @; n_eff: 2 x "
        "learning coefficient; untrained: quadratic before training; held_loss: mean squared error on fresh items.",
    )
    text = (
        "The task is two halves that have nothing to do with each other. One network is two MLPs side by side, the other "
        "one MLP with as many parameters that sees both; both are trained to one loss.",
    )
    return Section(
        "blocks", "Do modules that do not interact need fewer parameters?", text, figures=(figure,), tables=(table,)
    )


def language(here: Shown) -> Section:
    """The interaction basis of decoders of source code beside principal components (D9)."""
    rows = here.estimates[here.estimates["quantity"] == "agreement"].assign(
        split=lambda e: [FAMILY[f] for f in e["edit"]]
    )
    figure = faithfulness_curves(
        rows,
        quantity="agreement",
        id="language",
        title="Features kept of a language model's stream",
        unit="units of text",
        by=("site",),
        parameter="features kept",
    )
    text = (
        "Decoders of source code, those of the code study. At one place only the first features of a basis are kept; "
        "agreement is the share of predictions on id that stay the same. Bases are found on fit, at every position.",
    )
    return Section("language", "Does it gain anything on a language model?", text, figures=(figure,))


FAMILY = {"ib": "interaction basis", "pca": "principal components"}
