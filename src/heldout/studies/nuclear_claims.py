"""What the nuclear study claims, fixed before its seeds are looked at."""

from __future__ import annotations

import math

from heldout.statistics.claims import Claim

BEATS = "networks beat the refitted mass formula"
KNOWN_RIGHT, ANSWERED = "closed-form networks are named right", "networks answer pairs they have not seen"
WITHIN = 1.10  # N1: how much larger the error may be
RARE = 0.1  # N5: how common the rarer of two algorithms must be


def claims() -> list[Claim]:
    """N1 to N6, in order."""
    scope = (
        "TokenMLP on binding energy per nucleon, measured nuclei with more "
        "than 8 protons and neutrons, AME2020, held out at random by nucleus; errors of whole nuclei, keV"
    )
    paper = "arXiv 2405.17425"
    return [
        Claim(
            id="N1",
            title="A few components of the penultimate layer carry the prediction",
            estimand=f"log {WITHIN:g} minus log of the held-out RMS with at most 8 components over the full network's; "
            "how many, chosen on select",
            delta=0.0,
            scope=f"{scope}; principal components of the penultimate layer on train",
            gates=(BEATS,),
            published=f"its notebooks: 977 keV with 8 against 270 with all, on training nuclei ({paper})",
        ),
        Claim(
            id="N2",
            title="Components carry the terms of the mass formula",
            estimand="partial correlation of the strongest of 10 components with a term, mean over the eleven terms of the "
            "extended formula, minus the larger of two 95th percentiles: of permuted residuals, and of untrained networks",
            delta=0.0,
            scope=f"{scope}; outputs from one component of the penultimate layer at a time, times A, on held-out nuclei",
            gates=(BEATS,),
            null="residuals of groups of eight isotopic chains change sign; untrained networks",
            published=f"its notebooks: up to 1.00 (volume), .67 (pairing), .44 (shell), not partial ({paper})",
            kind="structure",
        ),
        Claim(
            id="N3",
            title="Embeddings of the number of neutrons lie on a helix",
            estimand="largest aspect x gain in R^2 over a quadratic, 1.75 to n/6 turns, minus the 95th percentile of "
            "the worst of three null families",
            delta=0.0,
            scope=f"{scope}; embeddings of trained neutron numbers, first three components",
            gates=(BEATS,),
            null="random walks, matched Gaussian processes and permuted tokens of the full width",
            published=f"a picture of about 3.6 turns, no null ({paper})",
            kind="structure",
        ),
        Claim(
            id="N4",
            title="Terms that components point at make a better formula",
            estimand="log of the held-out RMS of the refitted five-term formula over that of five terms chosen by "
            "components, refitted on the same nuclei",
            delta=math.log(1.05),
            scope=f"{scope}; five of twelve terms by orthogonal matching pursuit of ten components on train",
            gates=(BEATS,),
            published=f"its notebooks: symbolic regression of components does worse than the formula ({paper})",
        ),
        Claim(
            id="N5",
            title="Modular addition is learnt by more than one algorithm",
            estimand="the least of two shares of a seed's named networks: with a loud circle that is a pizza, and with "
            "one that is a clock",
            delta=RARE,
            scope="addition modulo 11 and 23; perceptrons on two concatenated embeddings, every combination of 4 widths, 3 "
            "weight decays and 3 shares of the pairs",
            gates=(KNOWN_RIGHT, ANSWERED),
            published="arXiv 2306.17844: clocks, pizzas and both; shares depend on the sweep",
        ),
        Claim(
            id="N6",
            title="On nuclei measured later, networks do better than baselines on the same nuclei",
            estimand="log of a baseline's RMS over the mean RMS of single networks; a part for each of the refitted "
            "formula, the refitted extended formula, nearest neighbours and a kernel method on the formula's residual",
            delta=math.log(1.05),
            scope="TokenMLP on binding energy per nucleon of AME2003; nuclei first measured by AME2020, of those that "
            "networks can score",
            kind="conjunction",
            published="no such test is known to us",
        ),
    ]
