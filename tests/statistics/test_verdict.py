from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from heldout.errors import StatisticsError
from heldout.statistics.claims import Claim, Gate, claims_hash
from heldout.statistics.rule import MeanTest, mean_test
from heldout.statistics.verdict import Finding, Judgement, judge

SPREAD = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


def claim(name: str = "G1", **change: object) -> Claim:
    return Claim(**{"id": name, "title": "t", "estimand": "gap", "delta": 0.02, "scope": "all"} | change)


def measured(mean: float, *, spread: np.ndarray = SPREAD, v: float = 1e-5, n: int | None = 500) -> MeanTest:
    return mean_test(mean + spread, unit_variance=v, n_clusters=n, delta=0.02)


def finding(mean: float, name: str = "G1", **change: object) -> Finding:
    return Finding(claim(name, **change), {"gap": measured(mean)})


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0.1, "supported"), (0.03, "inconclusive"), (0.02, "inconclusive"), (-0.1, "refuted")]
)
def test_a_verdict_turns_with_the_data(mean: float, verdict: str) -> None:
    (j,) = judge([finding(mean)])
    assert j.verdict == verdict
    assert j.p == pytest.approx(2 * min(j.p_plus, j.p_minus))
    assert j.p_holm == j.p
    assert (j.value, j.seeds, j.clusters, j.reason) == (pytest.approx(mean), 5, 500, "")
    assert j.low < j.value < j.high


def test_below_delta_is_refuted_even_above_zero() -> None:
    claimed = claim(delta=0.2)
    test = mean_test(0.05 + SPREAD, unit_variance=1e-5, n_clusters=500, delta=0.2)
    assert judge([Finding(claimed, {"gap": test})])[0].verdict == "refuted"


def test_holm_runs_over_the_judged_claims_only() -> None:
    borderline = finding(0.042)
    assert 0.05 / 3 < judge([borderline])[0].p < 0.05
    assert judge([borderline])[0].verdict == "supported"
    family = [borderline, finding(0.02, "G2"), finding(0.02, "G3")]
    assert judge(family)[0].verdict == "inconclusive"
    closed = [replace(f, gates=(Gate("identity", False, "1e-2"),)) for f in family[1:]]
    first, second, _ = judge([borderline, *closed])
    assert first.verdict == "supported"
    assert (second.verdict, second.reason) == ("not judged", "gate failed: identity (1e-2)")
    assert math.isnan(second.p_holm)
    assert second.p == 1


@pytest.mark.parametrize(
    ("tests", "change", "reason"),
    [
        ({"gap": measured(0.1, spread=SPREAD[:4])}, {}, "4 seeds, at least 5"),
        ({"gap": measured(0.1, spread=SPREAD[:1])}, {}, "1 seeds, at least 5"),
        ({"gap": measured(0.1, n=9)}, {}, "9 test units, at least 10"),
        ({}, {"reason": "loss recovered has a denominator of 0.02 nat"}, "denominator"),
        ({"gap": measured(0.1)}, {"claim": claim(gates=("identity",))}, "gate not checked: identity"),
    ],
)
def test_reasons_not_to_judge(tests: dict, change: dict, reason: str) -> None:
    (j,) = judge([Finding(**{"claim": claim(), "tests": tests} | change)])
    assert j.verdict == "not judged"
    assert reason in j.reason


def test_a_smoke_preset_judges_nothing_and_still_shows_its_numbers() -> None:
    (j,) = judge([finding(0.1)], not_judged_because="smoke preset")
    assert (j.verdict, j.reason) == ("not judged", "smoke preset")
    assert j.value == pytest.approx(0.1)


def test_an_estimand_without_test_units_is_judged_on_seeds() -> None:
    (j,) = judge([Finding(claim(), {"count": measured(0.1, v=0, n=None)})])
    assert (j.verdict, j.clusters) == ("supported", None)


@pytest.mark.parametrize(
    ("kind", "means", "verdict", "shown"),
    [
        ("conjunction", (0.1, 0.2), "supported", 0.1),
        ("conjunction", (0.1, 0.02), "inconclusive", 0.02),
        ("conjunction", (0.1, -0.1), "refuted", -0.1),
        ("existence", (0.1, -0.1), "supported", 0.1),
        ("existence", (0.02, -0.1), "inconclusive", 0.02),
        ("existence", (-0.1, -0.2), "refuted", -0.1),
    ],
)
def test_claims_of_two_parts(kind: str, means: tuple[float, float], verdict: str, shown: float) -> None:
    parts = {label: measured(m) for label, m in zip("ab", means, strict=True)}
    (j,) = judge([Finding(claim(kind=kind), parts)])
    assert (j.verdict, j.value) == (verdict, pytest.approx(shown))
    assert [(p.label, p.value) for p in j.parts] == [("a", pytest.approx(means[0])), ("b", pytest.approx(means[1]))]


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0, "supported"), (0.1, "refuted"), (-0.1, "refuted"), (0.015, "inconclusive")]
)
def test_no_effect(mean: float, verdict: str) -> None:
    test = mean_test(mean + SPREAD / 4, unit_variance=1e-5, n_clusters=500, delta=0.02)
    assert judge([Finding(claim(kind="equivalence"), {"gap": test})])[0].verdict == verdict


def test_sign_flips_stand_beside_from_nine_seeds() -> None:
    nine, eight = (measured(0.1, spread=np.linspace(-0.02, 0.02, s)) for s in (9, 8))
    assert judge([Finding(claim(), {"gap": nine})])[0].sign_flip_p == 2**-8
    assert judge([Finding(claim(), {"gap": eight})])[0].sign_flip_p is None
    many = measured(0.021, spread=np.linspace(-0.02, 0.02, 25))
    first, second = (judge([Finding(claim(), {"gap": many})])[0].sign_flip_p for _ in range(2))
    assert first == second > 0.1


def test_judgements_survive_json() -> None:
    certain = mean_test([0.1] * 9, unit_variance=0, n_clusters=50, delta=0.02)
    findings = [
        finding(0.1, published="0.97"),
        Finding(claim("G2", kind="existence"), {"a": certain, "b": measured(0.1, spread=SPREAD[:1])}),
        Finding(claim("G3"), {}, gates=(Gate("acc", True, ".99"),), reason="none"),
        Finding(claim("G4"), {"gap": certain}),
    ]
    for j in judge(findings):
        text = json.dumps(j.to_dict(), allow_nan=False)
        back = Judgement.from_dict(json.loads(text))
        assert json.dumps(back.to_dict(), allow_nan=False) == text
        assert repr(back) == repr(j)  # NaN does not equal itself, its text does


def test_a_record_of_another_version_is_refused() -> None:
    record = judge([finding(0.1)])[0].to_dict()
    with pytest.raises(StatisticsError, match="missing or unknown p_holm"):
        Judgement.from_dict({k: v for k, v in record.items() if k != "p_holm"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: claim(kind="hope"), "unknown kind 'hope'"),
        (lambda: claim(delta=-1.0), "not negative"),
        (lambda: claim(kind="equivalence", delta=0.0), "above 0"),
        (lambda: Finding(claim(), {}), "no test and no reason"),
        (lambda: Finding(claim(), {"a": measured(1), "b": measured(1)}), "takes one test"),
        (lambda: Finding(claim(delta=0.5), {"a": measured(1)}), "tested against 0.02, the claim says 0.5"),
        (lambda: judge([finding(1), finding(1)]), "judged once"),
        (lambda: claims_hash([claim(), claim()]), "different ids"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        make()


def test_the_hash_sees_every_field_and_no_order() -> None:
    a, b = claim("A"), claim("B")
    assert claims_hash([a, b]) == claims_hash([b, a])
    changes = [{"title": "u"}, {"delta": 0.03}, {"gates": ("g",)}, {"null": "n"}, {"kind": "structure"}, {"scope": "x"}]
    hashes = {claims_hash([a, replace(b, **c)]) for c in [*changes, {}, {"estimand": "e"}, {"published": "p"}]}
    assert len(hashes) == 9
    assert claims_hash([claim(delta=1)]) == claims_hash([claim(delta=1.0)])
    # Pinned: the hash must not change between versions of Python or of this library.
    assert claims_hash([a]).startswith("b29e35ae4389fbaf")
