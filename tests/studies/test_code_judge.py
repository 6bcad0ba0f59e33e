"""The code study's claims on evidence made by hand: what is estimated, and what is judged when a gate fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heldout.analyses.estimates import Scores, View
from heldout.analyses.summary import Chosen
from heldout.evidence import Cell, Origin
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import judge
from heldout.studies.audited import Audited
from heldout.studies.code import BEATS, NETWORK
from heldout.studies.code_audit import INDUCTION, RANDOM, categories, joint_site
from heldout.studies.code_estimates import CodeEvidence
from heldout.studies.code_judge import LATER, NEW, REPEATED, START, family_gates, findings, network_gates

S: dict[str, Any] = {
    "shape": {"layers": 2, "width": 8, "heads": 2, "positions": "sinusoidal", "window": 32},
    "sites": ("all",),
    "ranks": (2, 4),
    "clusters": (2, 3),
    "weight_ranks": (4,),
    "haar_ranks": (),
    "head_rank": 2,
}
SITE = joint_site(S)
CATEGORIES = categories(S)
KINDS = [CATEGORIES.code(*kind) for kind in (START, LATER, REPEATED, NEW)]
TESTS = ("python_packages", "c_cpp", "fortran")
EDITS = [("svd", 2), ("svd", 4), ("kmeans", 2), ("kmeans", 3), ("weights", 4), ("onehot", None), ("mean", None)]
SEEDS, UNITS, EACH = range(5), 12, 100.0

# An edit's label (of some heads: their name), split, category -> share of the same predictions
Agrees = Callable[[str, str, int], float]


def agrees(edit: str, split: str, kind: int) -> float:
    """SVD loses .10 on new languages and .04 more at starts of words; its null .03 and .01 more."""
    away, starts = split in ("c_cpp", "fortran"), kind == KINDS[0]
    base = 0.9 if edit == "svd-2" else 0.97
    lost = {"svd-4": (0.10, 0.04), "svd+null-4": (0.03, 0.01)}.get(edit, (0.05, 0.0))
    return base - away * (lost[0] + starts * lost[1])


def audited(agree: Agrees = agrees, *, reached: bool = True) -> Audited:
    rng = np.random.default_rng(0)
    cells = []

    def add(seed: int, split: str, origin: Origin) -> None:
        units = np.repeat(np.arange(UNITS) + 1000 * (["id", "train_sample", *TESTS].index(split)), len(KINDS))
        kinds = np.tile(KINDS, UNITS)
        name = origin.label if origin.site == SITE else origin.site
        share = np.array([agree(name, split, k) for k in kinds]) + 0.002 * rng.standard_normal(len(kinds))
        n = np.full(len(kinds), EACH)
        rows = {"unit": units, "category": kinds, "n": n, "same": n * share, "net_loss": n * 1.0}
        rows |= {"net_correct": n * 0.6, "proxy_correct": n * (0.58 if split == "python_packages" else 0.6)}
        cells.append((Cell("code", NETWORK, seed, split, origin), lambda rows=rows: rows))

    chosen = [("svd", 4), ("kmeans", 3), ("weights", 4), ("onehot", None)]
    for seed in SEEDS:
        for split in ("id", "train_sample", *TESTS):
            for name, size in EDITS:
                add(seed, split, Origin(name, SITE, parameter=size))
            for name, size in chosen:
                add(seed, split, Origin(f"{name}+null", SITE, parameter=size))
        for site in (INDUCTION, RANDOM):
            add(seed, "id", Origin("svd", site, parameter=2))
    row = [
        {"site": SITE, "family": f, "parameter": p, "agreement": 0.97, "reached": reached or f != "kmeans"}
        for f, p in chosen
    ]
    nulls = [{"edit": f, "agreement": 0.97, "target": 0.97, "reason": ""} for f, _ in chosen]
    records = {(NETWORK, seed): {"chosen": row, "nulls": nulls} for seed in SEEDS}
    return Audited(Scores(cells), records, Chosen.from_records(records, "id"))


def point(evidence: CodeEvidence, estimand: Callable[[View], Any]) -> float:
    return float(np.mean([estimand(evidence.audited.point(who)) for who in evidence.audited.records]))


def gates(evidence: CodeEvidence, induction: float = 0.3, bigram: float = 2.4) -> dict[str, Gate]:
    heads = {seed: {"heads": [{"induction": induction}, {"induction": 0.0}]} for seed in SEEDS}
    return {g.name: g for g in (*network_gates(evidence, heads, bigram), *family_gates(evidence))}


def verdicts(evidence: CodeEvidence, **more: float) -> dict[str, Any]:
    return {j.id: j for j in judge(findings(evidence, gates(evidence, **more)))}


def test_the_excess_within_a_kind_is_gap_minus_the_nulls() -> None:
    evidence = CodeEvidence(audited(), S, TESTS)
    at = (("svd",), evidence.languages)
    assert evidence.languages == ("c_cpp", "fortran")
    assert point(evidence, evidence.kind_gap(*START, *at)) == pytest.approx(0.14, abs=0.002)
    assert point(evidence, evidence.kind_gap(*START, *at, null=True)) == pytest.approx(0.04, abs=0.002)
    assert point(evidence, evidence.kind_excess(*START, *at)) == pytest.approx(0.10, abs=0.002)
    assert point(evidence, evidence.kind_excess(*LATER, *at)) == pytest.approx(0.07, abs=0.002)


def test_a_mean_claim_is_over_all_families_and_splits_that_it_names() -> None:
    judged = verdicts(CodeEvidence(audited(), S, TESTS))
    # On new languages SVD exceeds its null by .07 (and .03 more in a quarter of the characters), k-means by nothing.
    assert judged["G6-svd"].value == pytest.approx(0.0775, abs=0.002)
    assert judged["G6"].value == pytest.approx(0.0775 / 2, abs=0.002)
    assert judged["G1"].value == pytest.approx(0.0775 / 3, abs=0.002)
    assert {judged[i].verdict for i in ("G1", "G1-svd", "G6", "G6-svd", "G7-svd")} == {"supported"}
    assert judged["G7-svd"].value == pytest.approx(0.03, abs=0.003)
    assert {judged[i].verdict for i in ("G2", "G2-weights", "G7-words", "G8", "G4")} == {"refuted"}
    assert judged["G3"].value == pytest.approx(0.02, abs=1e-9)


def test_the_estimand_stays_when_a_family_does_not_reach_its_threshold() -> None:
    whole, short = (verdicts(CodeEvidence(audited(reached=r), S, TESTS)) for r in (True, False))
    for name in ("G1", "G6", "G7"):
        assert short[name].verdict == "not judged"
        assert "svd and kmeans keep .95" in short[name].reason
        assert "kmeans: its largest size keeps 0.97" in short[name].reason
        assert short[name].value == whole[name].value
    assert {short[name].verdict for name in ("G1-svd", "G6-svd", "G7-svd")} == {"supported"}
    assert not any(part.label.startswith("kmeans") for part in short["G3"].parts)
    assert any(part.label.startswith("kmeans") for part in whole["G3"].parts)


def test_without_induction_repeated_words_are_not_judged() -> None:
    judged = verdicts(CodeEvidence(audited(), S, TESTS), induction=0.19)
    assert [i for i, j in judged.items() if j.verdict == "not judged"] == ["G7-words", "G8"]
    assert "least induction score of a best head 0.190" in judged["G8"].reason


def test_networks_no_better_than_a_bigram_table_judge_nothing() -> None:
    judged = verdicts(CodeEvidence(audited(), S, TESTS), bigram=1.29)
    assert {j.verdict for j in judged.values()} == {"not judged"}
    assert all(BEATS in j.reason for j in judged.values())


def test_induction_heads_that_repeated_words_need_support_their_claim() -> None:
    def costly(edit: str, split: str, kind: int) -> float:
        return 0.8 if edit == INDUCTION and kind == CATEGORIES.code(*REPEATED) else agrees(edit, split, kind)

    judged = verdicts(CodeEvidence(audited(costly), S, TESTS))
    assert judged["G8"].verdict == "supported"
    assert judged["G8"].value == pytest.approx(0.17, abs=0.002)


def test_agreement_that_falls_with_size_fails_its_gate() -> None:
    def falls(edit: str, split: str, kind: int) -> float:
        return 0.95 if edit == "svd-4" else 0.99

    found = gates(CodeEvidence(audited(falls), S, TESTS))
    assert not found["agreement of svd rises with size"].passed
    assert "(svd 4)" in found["agreement of svd rises with size"].value
    assert found["agreement of weights rises with size"].passed


def test_a_simplification_that_does_not_keep_training_text_fails_its_gate() -> None:
    def weak(edit: str, split: str, kind: int) -> float:
        return 0.9 if (edit, split) == ("weights-4", "train_sample") else 0.97

    found = gates(CodeEvidence(audited(weak), S, TESTS))
    assert [n for n, g in found.items() if not g.passed] == [
        "weights and onehot keep .95 of the predictions on id_select and train_sample",
        "weights keep .95 of the predictions on id_select and train_sample",
    ]
