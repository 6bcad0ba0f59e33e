"""Noise ceilings: attenuation that is known is taken out, feature by feature, and nothing is divided by noise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from planted_networks import balanced, network

from heldout.analyses.similarity.ceiling import ceilings, feature_ceilings
from heldout.analyses.similarity.measures import MEASURES
from heldout.errors import ConfigError, StatisticsError

LABELS, TEST = balanced(40), balanced(30, seed=3)


def conditions(labels: dict, seeds: int = 3) -> dict[str, list[np.ndarray]]:
    return {
        "easy": [network(labels, {"easy": 3.0}, seed=s) for s in range(seeds)],
        "both": [network(labels, {"easy": 3.0, "hard": 1.5}, seed=10 + s) for s in range(seeds)],
        "none": [network(labels, {}, seed=20 + s) for s in range(seeds)],
    }


def row(found, a: str, b: str, **where: str):  # type: ignore[no-untyped-def]
    chosen = found[(found["a"] == a) & (found["b"] == b)]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen.iloc[0]


def test_attenuation_by_independent_errors_is_taken_out() -> None:
    """One unit each, compared by correlation: seeds are a signal with errors, and signals correlate by 0.6."""
    rng = np.random.default_rng(0)
    n, truth = 20_000, 0.6
    a = rng.normal(size=n)
    b = truth * a + np.sqrt(1 - truth**2) * rng.normal(size=n)
    networks = {
        "a": [(a + 0.8 * rng.normal(size=n))[:, None] for _ in range(4)],
        "b": [(b + 1.5 * rng.normal(size=n))[:, None] for _ in range(4)],
    }
    found = row(ceilings(networks, measure=lambda x, y: float(np.corrcoef(x[:, 0], y[:, 0])[0, 1])), "a", "b")
    assert found["reliability_a"] == pytest.approx(1 / (1 + 0.64), abs=0.01)
    assert found["reliability_b"] == pytest.approx(1 / (1 + 2.25), abs=0.01)
    assert found["similarity"] == pytest.approx(truth / np.sqrt(1.64 * 3.25), abs=0.01)
    assert found["corrected"] == pytest.approx(truth, abs=0.02)


def test_the_table_is_made_of_means_over_pairs_of_different_seeds() -> None:
    networks, of = conditions(TEST), MEASURES["cka"].of
    found = ceilings(networks)
    assert len(found) == 9
    easy, both = networks["easy"], networks["both"]
    rel = [np.mean([of(x[i], x[j]) for i, j in combinations(range(3), 2)]) for x in (easy, both)]
    cross = np.mean([of(easy[i], both[j]) for i in range(3) for j in range(3) if i != j])
    here = row(found, "easy", "both")
    assert here["similarity"] == pytest.approx(cross, rel=1e-12)
    assert [here["reliability_a"], here["reliability_b"]] == pytest.approx(rel, rel=1e-12)
    assert here["corrected"] == pytest.approx(cross / np.sqrt(rel[0] * rel[1]), rel=1e-12)
    assert (here["pairs"], row(found, "easy", "easy")["pairs"]) == (6, 3)
    assert row(found, "both", "easy")["corrected"] == pytest.approx(here["corrected"], rel=1e-12)
    assert row(found, "both", "both")["corrected"] == pytest.approx(1, rel=1e-12)


def test_networks_of_one_seed_are_never_compared() -> None:
    networks = conditions(TEST)
    networks["copy"] = networks["easy"]  # the very networks: only pairs of different places count
    found = ceilings(networks)
    assert row(found, "easy", "copy")["similarity"] == pytest.approx(
        row(found, "easy", "easy")["similarity"], rel=1e-12
    )


def test_a_measure_with_a_direction_is_taken_from_a_to_b() -> None:
    def ordered(x: np.ndarray, y: np.ndarray) -> float:
        return float(x.std() / (x.std() + y.std()))

    networks = {"small": [np.eye(6), 2 * np.eye(6)], "large": [10 * np.eye(6), 20 * np.eye(6)]}
    found = ceilings(networks, measure=ordered)
    assert row(found, "small", "large")["similarity"] < 0.3 < 0.7 < row(found, "large", "small")["similarity"]
    assert row(found, "small", "small")["similarity"] == pytest.approx(0.5)
    assert row(found, "small", "small")["pairs"] == 2


def test_where_seeds_do_not_agree_there_is_a_reason_and_no_number() -> None:
    found = row(ceilings(conditions(TEST)), "easy", "none")
    assert np.isnan(found["corrected"])
    assert np.isnan(found["ceiling"])
    assert "reliability of 'none' is" in found["reason"]
    assert "too low to divide by" in found["reason"]
    assert row(ceilings(conditions(TEST)), "easy", "both")["reason"] == ""


def test_each_feature_has_its_own_ceiling() -> None:
    found = feature_ceilings(conditions(LABELS), conditions(TEST), LABELS)
    assert found["feature"].unique().tolist() == ["*", "easy", "hard"]
    whole = ceilings(conditions(TEST))
    assert row(found, "easy", "both", feature="*")["similarity"] == row(whole, "easy", "both")["similarity"]
    easy = row(found, "easy", "both", feature="easy")
    assert easy["reliability_a"] > 0.9
    assert easy["corrected"] == pytest.approx(1, abs=0.05)
    hard = row(found, "both", "both", feature="hard")
    assert hard["reliability_a"] > 0.7
    assert "too low" in row(found, "easy", "both", feature="hard")["reason"]  # easy-only networks have no hard feature


def test_an_undefined_score_is_a_reason() -> None:
    networks = {"a": [np.eye(8), np.eye(8)], "b": [np.ones((8, 2)), np.eye(8)]}
    found = ceilings(networks, measure="rsa-euclidean")
    assert found["reason"].str.contains("undefined").all()
    assert found["corrected"].isna().all()


def test_bad_input_to_ceilings_is_refused() -> None:
    networks = conditions(TEST)
    with pytest.raises(StatisticsError, match="two or more of different seeds"):
        ceilings({"a": networks["easy"][:1]})
    with pytest.raises(ConfigError, match="no conditions"):
        ceilings({})
    with pytest.raises(StatisticsError, match="must see the same"):
        ceilings({"a": networks["easy"], "b": [x[:-1] for x in networks["both"]]})
    with pytest.raises(ConfigError, match="condition by condition"):
        feature_ceilings({"easy": conditions(LABELS)["easy"]}, networks, LABELS)
    with pytest.raises(ConfigError, match="measure"):
        ceilings(networks, measure="nothing")
