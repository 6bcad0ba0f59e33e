"""Whole pages of made-up evidence, friendly and hostile."""

from __future__ import annotations

import math

import fake_evidence as fake
import numpy as np

from heldout.figures import (
    Matrix,
    accuracy_figure,
    faithfulness_curves,
    forest,
    gap_figure,
    heatmap,
    scatter_components,
    training_curves,
)
from heldout.report import IdentityCheck, Page, Section, Table
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Judgement, Part


def page() -> Page:
    """What a study's page looks like, with every kind of figure and verdict."""
    evidence = fake.estimates(networks=("transformer", "mlp"), holes=1)
    depth = np.arange(12)
    first = np.exp(-np.abs(depth[:, None] - depth[None, :]) / 4.0)
    first[10:, :2] = np.nan
    second = first * np.linspace(1, 0.5, 12)[:, None]
    counts = np.full((12, 12), 240)
    sections = (
        Section(
            "gap",
            "Where the simplification stops being the network",
            (
                "A simplification fitted on training data agrees with its network on fresh data of the same kind. "
                "The figure asks how much of that agreement is lost on other data, and how much of the loss any "
                "equally damaging perturbation would have caused.",
            ),
            (gap_figure(evidence, unit="sentences"),),
        ),
        Section(
            "curves",
            "Faithfulness by size",
            ("Ranks and cluster counts were fixed beforehand.",),
            (
                faithfulness_curves(evidence, unit="sentences"),
                accuracy_figure(evidence, unit="sentences"),
            ),
        ),
        Section(
            "inside",
            "What is inside",
            figures=(
                heatmap(
                    [Matrix("network", first, counts), Matrix("proxy", second, counts)],
                    rows=depth,
                    columns=depth,
                    id="depths",
                    title="Attention by depth of query and key",
                    row_title="query depth",
                    column_title="key depth",
                    value_title="mean attention",
                    limits="Attention is not importance.",
                    difference=True,
                    reason="no query of this depth",
                ),
                scatter_components(
                    fake.points(), id="keys", title="Keys", x="PC1", y="PC2", by="type", limits="Two of 32 dimensions."
                ),
                scatter_components(
                    fake.points(),
                    id="keys2",
                    title="Keys",
                    x="PC1",
                    y="PC2",
                    by="depth",
                    limits="Two of 32 dimensions.",
                ),
                training_curves(fake.curves(), metric="accuracy", unit="sentences"),
                forest(
                    evidence[evidence["quantity"] == "excess_gap"],
                    id="forest",
                    title="Excess gap, all together",
                    label="split",
                    group="network",
                    x="excess gap",
                    limits="Rows are not independent.",
                    unit="sentences",
                    marks=(0.0, 0.02),
                ),
            ),
            tables=(
                Table(
                    "Splits", ["split", "items", "share"], [["id", 2000, 0.5], ["unseen_depth", 1500, 1.25]], "n items."
                ),
            ),
        ),
    )
    return Page(
        title="Are simplified transformers faithful out of distribution?",
        question="Does a reading of attention, fitted where the network was trained, still predict what the network does "
        "on structures and depths it never saw?",
        summary=(
            "SVD of rank 8 agrees with the network on 95.2% of fresh predictions in distribution.",
            "It loses 17.7 points of agreement on unseen depths, 10.6 more than equally damaging perturbations lose.",
        ),
        identity=tuple(
            IdentityCheck(f"transformer, seed {s}", f"layers.{i}", 2.4e-7 * i, 1e-5, True, "used")
            for s in range(5)
            for i in (0, 1)
        ),
        judgements=judgements(),
        sections=sections,
        manifest={
            "config": {"preset": "laptop", "rank": [1, 2, 4, 8], "width": 64},
            "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
            "seeds": [0, 1, 2, 3, 4],
            "wall time (s)": {"train": 312.5, "audit": 41.0},
            "claims hash": "8c1d" * 16,
        },
        warnings=("The evidence predates the source: run again to bring them together.",),
    )


def judgements() -> tuple[Judgement, ...]:
    seeds = (0.081, 0.112, 0.094, 0.12, 0.103)
    passed = Gate(name="network at least .99 on id", passed=True, value="0.995")
    failed = Gate(name="at least 50 network errors beyond depth 10", passed=False, value="31")
    common = {
        "published": "",
        "kind": "effect",
        "seeds": 5,
        "clusters": 500,
        "theta_by_seed": seeds,
        "gates": (passed,),
    }
    return (
        Judgement(
            id="G1", title="The gap exceeds its null", estimand="mean gap over SVD and k-means minus the null's gap",
            delta=0.02, verdict="supported", value=0.102, low=0.083, high=0.121, se=0.0069, df=4.3, p_plus=0.0001,
            p_minus=0.9999, p=0.0002, p_holm=0.0006, **(common | {"published": "about 10 points at depth 11 to 16"}),
        ),
        Judgement(
            id="G3", title="Somewhere the proxy is less accurate than a network that generalises",
            estimand="accuracy of the network minus the proxy's, best of two splits", delta=0.02, verdict="refuted",
            value=-0.011, low=-0.02, high=-0.002, se=0.003, df=5.1, p_plus=1.0, p_minus=0.0004, p=0.0008, p_holm=0.002,
            **(common | {
                "kind": "existence",
                "parts": (
                    Part("unseen_structure_short", -0.011, -0.02, -0.002, 0.6, 0.0004),
                    Part("seen_structure", -0.03, -0.04, -0.02, 0.9, 0.0001),
                ),
                "sign_flip_p": 0.004,
            }),
        ),
        Judgement(
            id="F8", title="Width changes nothing", estimand="gap at width 128 minus gap at width 64", delta=0.05,
            verdict="inconclusive", value=0.011, low=-0.062, high=0.084, se=0.026, df=4.1, p_plus=0.1, p_minus=0.9,
            p=0.2, p_holm=0.2, **(common | {"kind": "equivalence", "clusters": None}),
        ),
        Judgement(
            id="G5", title="Errors overlap less on deeper sentences", estimand="kappa up to depth 10 minus beyond",
            delta=0.02, verdict="not judged", reason="gate failed: at least 50 network errors beyond depth 10 (31)",
            **(common | {"gates": (passed, failed), "seeds": 0, "theta_by_seed": ()}),
        ),
    )  # fmt: skip


def hostile() -> Page:
    """Markup, quotes, unicode and endless names in every string that a user can write."""
    bad, long = fake.HOSTILE, fake.LONG
    evidence = fake.estimates(splits=(bad, long), networks=(bad, "b"), edits=(bad, long), site=bad, holes=1)
    figures = (
        gap_figure(evidence, id=bad, title=bad, unit=bad),
        faithfulness_curves(evidence, id="b", title=long * 3, unit=bad, parameter=bad),
        accuracy_figure(evidence, id="c", title=bad),
        heatmap(
            [Matrix(bad, np.array([[1.0, math.nan]]))], rows=[bad], columns=[bad, long], id="d", title=bad,
            row_title=bad, column_title=long, value_title=bad, limits=bad, reason=bad,
        ),
        scatter_components(
            fake.points(30).rename(columns={"PC1": bad}).assign(type=bad), id="e", title=bad, x=bad, y="PC2",
            by="type", limits=bad,
        ),
        training_curves(
            fake.curves().query("split == 'train'").assign(split=bad, network=bad), metric=bad, id="f", title=bad
        ),
        forest(evidence[evidence["quantity"] == "gap"], id="g", title=bad, label="split", group="edit", x=bad, limits=bad),
    )  # fmt: skip
    judgement = Judgement(
        id=bad, title=bad, estimand=long * 4, delta=0.0, published=bad, kind="existence", verdict="not judged",
        value=1.0, low=-math.inf, high=math.inf, gates=(Gate(name=bad, passed=False, value=bad),),
        parts=(Part(bad, 1.0, math.nan, math.nan, 1.0, math.nan),), reason=bad,
    )  # fmt: skip
    return Page(
        title=bad,
        question=bad,
        summary=(bad, long * 5),
        identity=(IdentityCheck(bad, long, math.nan, 1e-5, False, bad),),
        judgements=(judgement,),
        sections=(Section(bad, bad, (bad,), figures, (Table(bad, [bad, long], [[bad, 1], [long, None]], bad),)),),
        manifest={bad: {long: bad, "list": [bad]}},
        warnings=(bad,),
    )
