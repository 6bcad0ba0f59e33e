"""What the arithmetic study claims, fixed before any result is seen, and the names and thresholds in them."""

from __future__ import annotations

from typing import Any, Literal

from heldout.statistics.claims import Claim

Law = Literal["at_most", "exactly"]
LAWS: tuple[Law, ...] = ("at_most", "exactly")  # n digits: the operands that are trained on
PRODUCT = "product"
ACCURATE, LONG_WRONG, EQUIVALENT, DELTA = 0.99, 0.01, 0.5, 0.02
WITHIN = 0.02  # how far from the theory a modular network's accuracy may lie
APART = 0.9  # overlap of class and random subspaces from which nothing can be told apart
CLASS_SITE = "norm"  # at the last prompt position it predicts the units digit: the paper's place
REPAIRED = 0.9  # truth on longer operands that a repair is after

# gates
LEARNT = "networks of {} have learnt their task"
TELLS = "{}: removing random directions of equal variance is another intervention"


def sum_name(law: Law) -> str:
    return f"sum_{law}"


def claims() -> list[Claim]:
    """C1 to C6 for sums under each law, C2 and C3 for products too, and C7 for the modular tasks of the laptop preset."""
    paper, follow = "arXiv 2308.08268", "arXiv 2407.17963"
    found: list[Claim] = []
    for law in LAWS:
        found += _of_sums(law, paper)
    learnt = (LEARNT.format(PRODUCT),)
    scope = "2-digit products, three layers of width 48; operands of (3, 3), (3, 2) and (2, 3) digits"
    found += [
        Claim(
            id=f"C2-{PRODUCT}",
            title="Products of longer operands are wrong",
            estimand="accuracy .01 minus exact match with the true product, mean over longer operands",
            delta=0.0,
            scope=scope,
            gates=learnt,
            published=f"{follow}: .1% at one digit more (D_2, D_12)",
        ),
        Claim(
            id=f"C3-{PRODUCT}",
            title="and are the products of the last two digits",
            estimand="exact match with the product of the operands modulo 100, minus the best of 100 shuffles of the "
            "answers, mean over longer operands",
            delta=EQUIVALENT,
            scope=scope,
            gates=learnt,
            null="answers shuffled within answer length",
            published=f"{follow}: 98.1% (D_2), 93.0% (D_12) at one digit more",
            kind="structure",
        ),
    ]
    found.append(
        Claim(
            id="C7",
            title="Modular tasks: accuracy on longer operands is what the theory says",
            estimand=f"{WITHIN} minus the difference between measured accuracy and that predicted for the same pairs, taken "
            "either way; a part for each modulus x one and two digits more x way",
            delta=0.0,
            scope="sums of 3-digit operands modulo 100 and of 2-digit operands modulo 150, three layers of width 48; "
            "tested on one and on two digits more",
            gates=(LEARNT.format("modular sums"),),
            published=f"{follow}: other moduli and digits; 33.2% where 33.3% is predicted (p = 150, n = 4)",
            kind="conjunction",
        )
    )
    return found


def _of_sums(law: Law, paper: str) -> list[Claim]:
    """The claims on plain addition under one law."""
    name = sum_name(law)
    learnt = (LEARNT.format(name),)
    words = f"{law.replace('_', ' ')} 3 digits"
    scope = f"3-digit sums, three layers of width 48, trained on operands of {words}"
    longer = f"{scope}; tested on operands of (4, 4), (4, 3) and (3, 4) digits"

    def claim(number: str, title: str, estimand: str, delta: float, **more: Any) -> Claim:
        return Claim(f"{number}-{law}", title, estimand, delta, **{"scope": longer, "gates": learnt, **more})

    return [
        claim(
            "C1",
            f"Unseen 3-digit sums are right ({words})",
            f"exact match on unseen pairs of two 3-digit operands minus {ACCURATE}",
            0.0,
            scope=scope,
            gates=(),
            published=f"{paper}: 1.00",
        ),
        claim(
            "C2",
            f"Longer sums are wrong ({words})",
            f"{LONG_WRONG} minus exact match with the true sum, mean over longer operands",
            0.0,
            published=f"{paper}: 0",
        ),
        claim(
            "C3",
            f"and are the sums of the last three digits ({words})",
            "exact match with the sum of the operands modulo 1000, minus the best of 100 shuffles of the answers, mean over "
            "longer operands",
            EQUIVALENT,
            null="answers shuffled within answer length",
            published=f"{paper}: shown as a figure; its released network has 1.000",
            kind="structure",
        ),
        claim(
            "C4",
            f"Accuracy stems from the classes that activations form ({words})",
            "exact match lost in distribution when the subspace of the units digit's centroids is removed, minus the 95th "
            f"percentile of what 20 random subspaces of equal variance cost; output of {CLASS_SITE}, last prompt position",
            DELTA,
            scope=scope,
            gates=(*learnt, TELLS.format(name)),
            null="random directions of the activations' span, removed until the mean squared change is equal",
            published=f"{paper}: said without a figure",
            kind="structure",
        ),
        claim(
            "C4-rank",
            f"Accuracy stems from those classes more than from as many random directions ({words})",
            "exact match lost in distribution when the subspace of the units digit's centroids is removed, minus the 95th "
            "percentile of what 20 draws of 9 random directions of the activations' span cost, the deviation removed along "
            f"them scaled to the same mean squared change; output of {CLASS_SITE}, last prompt position",
            DELTA,
            scope=scope,
            null="as many random directions, the deviation along them scaled until the mean squared change is equal",
            published=f"{paper}: said without a figure; this control is ours, since directions of equal variance nearly "
            "coincided with the class subspace on the tuning seed",
            kind="structure",
        ),
        claim(
            "C5",
            f"The classes persist out of distribution ({words})",
            "share of activations on longer operands nearest to the centroid of their own units digit, on components and "
            "centroids fitted in distribution, minus the larger of the 95th percentile under permuted labels and the "
            "untrained network's share",
            DELTA,
            null="permuted labels, and the untrained network",
            published=f"{paper}: shown as a figure",
            kind="structure",
        ),
        claim(
            "C6",
            f"What was learnt helps to repair longer sums ({words})",
            f"how many steps of the grid 10, 50, 500, more sooner than training from scratch on k long examples the method "
            f"gets {REPAIRED} of 4-digit sums right; for fine-tuning and for priming",
            0.0,
            published=f"{paper}: 'useful for generalisation', no figure known",
            kind="conjunction",
        ),
    ]
