"""Presets, overrides, and what they do to a run's claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heldout.errors import ConfigError
from heldout.runs.steps import check_steps
from heldout.statistics.claims import claims_hash
from heldout.studies.base import (
    SMOKE,
    STUDIES,
    TUNING_SEEDS,
    describe_study,
    find_study,
    not_judged_because,
    overrides_of,
    parse_overrides,
)
from heldout.studies.running import directory_name, pick_device

DIGITS = find_study("digits")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_the_presets_and_each_is_accepted(name: str) -> None:
    study = find_study(name)
    assert study.name == name
    assert {SMOKE, "laptop"} <= set(study.presets)
    for preset in study.presets:
        config, changed = study.configure(preset)
        assert changed == []
        assert max(config.seed_list()) < TUNING_SEEDS
        check_steps(study.steps(config, ""))
    claims = study.claims()
    assert len({c.id for c in claims}) == len(claims)


@pytest.mark.parametrize("name", STUDIES)
def test_show_names_every_field_preset_and_claim(name: str) -> None:
    study = find_study(name)
    for preset in study.presets:
        text = describe_study(name, preset, [], None)
        for field in study.config.model_fields:
            assert f"  {field} = " in text
        assert all(f"{claim.id}  {claim.title}" in text for claim in study.claims())
        assert all(p in text for p in study.presets)


def test_show_says_where_a_value_comes_from() -> None:
    text = describe_study("digits", SMOKE, ["shift=2"], 3)
    assert "  shift = 2  (given)" in text
    assert "  seeds = 3  (given)" in text
    assert "  training_steps = 60  (preset smoke)" in text
    assert "  rotation = 20.0  (default)" in text
    assert "claims would not be judged: the smoke preset" in text
    assert "  6 x train_network" in text  # two networks, three seeds
    assert "not be judged" not in describe_study("digits", "laptop", [], None)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, []),
        ({"seeds": 5}, []),
        ({"seeds": 9}, []),  # more of the same
        ({"seeds": 4}, ["seeds"]),
        ({"first_seed": 100}, ["first_seed"]),
        ({"shift": 2}, ["shift"]),
        ({"shift": 1}, []),
        ({"ranks": [1, 2], "seeds": 7}, ["ranks"]),
    ],
)
def test_settings_that_were_changed_are_named_and_more_seeds_are_not(given: dict[str, Any], changed: list[str]) -> None:
    config, found = DIGITS.configure("laptop", given)
    assert found == changed
    why = not_judged_because("laptop", found)
    assert bool(why) == bool(changed)
    assert all(field in why for field in changed)
    assert [config.seed_list()[0], len(config.seed_list())] == [given.get("first_seed", 0), given.get("seeds", 5)]


def test_the_reason_reaches_the_step_that_judges_and_no_other() -> None:
    config, _ = DIGITS.configure(SMOKE)
    plain, barred = (DIGITS.steps(config, why) for why in ("", "settings overridden: shift"))
    different = [a.name for a, b in zip(plain, barred, strict=True) if a != b]
    assert different == ["digits-judge"]
    assert barred[-1].settings["not_judged"] == "settings overridden: shift"


def test_an_analysis_setting_does_not_retrain_and_a_task_setting_does() -> None:
    def changed(**given: Any) -> set[str]:
        steps = [DIGITS.steps(DIGITS.configure(SMOKE, g)[0], "") for g in ({}, given)]
        return {a.name.split("-")[1] for a, b in zip(*steps, strict=True) if a != b}

    assert changed(ranks=[1]) == {"audit", "judge"}
    assert changed(learning_rate=0.1) == {"train"}
    assert changed(rotation=5.0) == {"train", "audit", "judge"}


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        (["seeds=3", "ranks=[1, 2]"], {"seeds": 3, "ranks": [1, 2]}),
        (['networks=["mlp"]'], {"networks": ["mlp"]}),
        (["name=plain text"], {"name": "plain text"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a="], {"a": ""}),
    ],
)
def test_pairs(pairs: list[str], found: dict[str, Any]) -> None:
    assert parse_overrides(pairs) == found


def test_a_field_is_set_once() -> None:
    with pytest.raises(ConfigError, match="'a' is set twice"):
        parse_overrides(["a=1", "a=2"])
    with pytest.raises(ConfigError, match="seeds is set twice, by --seeds and by --set"):
        overrides_of(["seeds=2"], 2)
    assert overrides_of(["a=1"], 2) == {"a": 1, "seeds": 2}
    assert overrides_of(["seeds=3"], None) == {"seeds": 3}


@pytest.mark.parametrize("pair", ["seeds", "=3", ""])
def test_what_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"written key=value, for example seeds=3"):
        parse_overrides([pair])


@pytest.mark.parametrize(
    ("preset", "given", "words"),
    [
        ("lapto", {}, ["'digits'", "preset 'lapto'", "laptop"]),
        ("laptop", {"rotatoin": 3}, ["'digits'", "field 'rotatoin'", "rotation"]),
        ("laptop", {"seeds": 0}, ["seeds", "greater than 0", "got 0"]),
        ("laptop", {"first_seed": -1}, ["first_seed", "got -1"]),
        ("laptop", {"seeds": "many"}, ["seeds", "'many'"]),
        ("laptop", {"networks": ["rnn"]}, ["networks.0", "'mlp' or 'cnn'", "'rnn'"]),
        ("laptop", {"networks": []}, ["networks"]),
        ("laptop", {"ranks": [0]}, ["ranks.0", "greater than 0"]),
        ("laptop", {"ranks": []}, ["ranks"]),
        ("laptop", {"ranks": [2, 1000]}, ["rank 1000", "at most 128 (gather)"]),
        ("laptop", {"ranks": [65], "networks": ["mlp"]}, ["rank 65", "at most 64"]),
        ("laptop", {"ranks": [32]}, ["blocks.0.pool@channels", "width 16"]),
        ("laptop", {"haar_ranks": [129]}, ["haar_ranks", "rank 129"]),
        ("laptop", {"clusters": [501]}, ["501 clusters of 500 points", "kmeans_sample"]),
        ("laptop", {"shift": 8}, ["shift", "less than or equal to 7"]),
        ("laptop", {"noise": -1}, ["noise"]),
        ("laptop", {"noise": float("nan")}, ["noise", "finite"]),
        ("laptop", {"left_out": [10]}, ["left_out"]),
        ("laptop", {"learning_rate": 0}, ["learning_rate"]),
    ],
)
def test_what_is_not_accepted_is_named(preset: str, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        DIGITS.configure(preset, given)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_study_is_met_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown study 'digit'.*digits"):
        find_study("digit")


def test_the_hash_of_the_claims_sees_every_change() -> None:
    claims = list(DIGITS.claims())
    whole = claims_hash(claims)
    assert claims_hash(DIGITS.claims()[::-1]) == whole
    for field, value in {"delta": 0.03, "title": "other", "estimand": "other", "gates": (), "scope": "other"}.items():
        assert claims_hash([replace(claims[0], **{field: value}), *claims[1:]]) != whole, field
    assert claims_hash(claims[1:]) != whole


def test_directories_are_named_after_what_was_asked_for() -> None:
    def name(preset: str = "laptop", **given: Any) -> str:
        return directory_name("digits", preset, DIGITS.configure(preset, given)[0], given)

    assert name() == "digits-laptop"
    assert name(seeds=9) == "digits-laptop-seeds=9"
    assert name(shift=2, seeds=9) == name(seeds=9, shift=2) == "digits-laptop-seeds=9,shift=2"
    long = [name(ranks=list(range(1, n)), clusters=[2, 4]) for n in (20, 21)]
    assert len(set(long)) == 2
    assert all(len(n) < 40 for n in long)
    assert "/" not in name(networks=["mlp"])


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")
    for device in ("nonsense", "meta", "cuda:99"):
        with pytest.raises(ConfigError, match=f"'{device}' cannot be used here.*--device cpu"):
            pick_device(device)
