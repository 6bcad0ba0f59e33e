"""What the degeneracy study claims, fixed before its seeds are looked at."""

from __future__ import annotations

import math

from heldout.statistics.claims import Claim

LEARNT, UNDERSTOOD = "modular networks have learnt", 0.99
TOLERANCE = "1e-06"  # of the ranks behind D1, relative to the largest eigenvalue
PURE = 8  # features of each stream whose purity is compared
UNMOVED, MOVED = 1e-6, 1e-3  # relative changes that count as none, and as one
GAIN = 0.02  # of agreement, from which the interaction basis gains anything on a language model


def claims() -> list[Claim]:
    """D1 to D9, in order."""
    modular = (
        "addition modulo 53, transformer of one layer without norms; residual stream behind embedding, attention and "
        "feed-forward, and logits; bases and edges (gradient rule) on train"
    )
    argued, published = "arXiv 2405.10927: an argument, no figure known", "arXiv 2405.10928"
    return [
        Claim(
            id="D1",
            title="Free directions increase over training",
            estimand="share of parameters that are free after training, minus before; relative tolerance of ranks 1e-6",
            delta=0.01,
            scope="MLP 64-16-10 on handwritten digits, behavioural loss (mean over images of the squared change of "
            "outputs), 200 training images",
            published=argued,
        ),
        Claim(
            id="D2",
            title="Of networks with one training loss, those with the lower learning coefficient do better on unseen data",
            estimand="rank correlation of 2 x LLC with the held-out loss over the networks of a seed",
            delta=0.2,
            scope="MLPs 64-24-10 on 300 handwritten digits, from one initialisation a seed, trained in eight ways to a "
            "training loss of .05 nats; behavioural loss (KL) on the training images, localisation 20; held-out images are "
            "the other half of the data",
            published=argued,
        ),
        Claim(
            id="D3",
            title="A network in blocks has fewer effective parameters than a dense one",
            estimand="log of the effective parameters of the dense network over those of the one in blocks, at the cut-off "
            "100 ln(n) / n, tr[H (H + cut)^-1]",
            delta=math.log(1.05),
            scope="two independent halves of 4 inputs and 1 target each (random tanh teachers), 1024 items; two tanh MLPs "
            "side by side against one of as many parameters; training loss .02; behavioural loss (mean over items of the "
            "squared change of outputs, summed) on the training items",
            published=argued,
        ),
        Claim(
            id="D4",
            title="Each kind of degeneracy, planted, is counted exactly",
            estimand="share of the three kinds whose planted free directions are counted to the unit with nothing "
            "unexplained, minus .95",
            delta=0.0,
            scope="random ReLU networks 6-8-3 in general position, 150 inputs",
            published=argued,
        ),
        Claim(
            id="D5",
            title="Planting leaves the interaction basis unchanged and changes principal components",
            estimand=f"over the three kinds, log10 of {UNMOVED:g} over the largest relative change of interaction "
            f"features and edges; and log10 of the smallest change of principal components and their edges over {MOVED:g}",
            delta=0.0,
            scope="random ReLU networks 6-8-3 in general position, 150 inputs",
            kind="conjunction",
            published=argued,
        ),
        Claim(
            id="D6",
            title="The interaction basis needs fewer edges than principal components",
            estimand="log of the number of edges needed in principal components over that in the interaction basis, "
            "mean over three sections; accuracy within .001 on select",
            delta=math.log(1.05),
            scope=modular,
            gates=(LEARNT,),
            published=f"{published}: log(117.4/86.6), log(85.2/74.0), log(662.6/634.2) from its published data, modulo 113",
        ),
        Claim(
            id="D7",
            title="Its features are purer Fourier features",
            estimand=f"mean over the first {PURE} features of the largest share of one frequency, interaction basis "
            "minus principal components, mean over three streams",
            delta=0.02,
            scope=modular,
            gates=(LEARNT,),
            published=f"{published}: purer, no figure known",
        ),
        Claim(
            id="D8",
            title="Its graph is more modular",
            estimand="z-score of layered modularity beside graphs with as many edges at each feature, interaction "
            "basis minus principal components",
            delta=1.0,
            scope=f"{modular}; edges above 1e-3 of the largest of their section, logits left out",
            gates=(LEARNT,),
            null="edges dealt out anew, each feature keeping its number of them",
            published=f"{published}: modular, no figure known",
        ),
        Claim(
            id="D9",
            title="On a language model it gains nothing over principal components",
            estimand=f"{GAIN} minus the gain in agreement with the network (share of predictions kept) of the interaction "
            "basis to the logits over principal components, mean over layers and numbers of features kept",
            delta=0.0,
            scope="decoders of the code study, residual stream behind each block, every position; bases on fit, agreement "
            "on id; numbers of features below the width",
            published=f"{published}: no substantial gain, no figure known",
        ),
    ]
