"""Random configurations of every study, as values and as ``--set`` writes them: accepted and kept, or refused in words."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest
from fuzzing import Draw, accepted, from_schema, fuzz, mutated, same, survives, wrong
from hypothesis import strategies as st

from heldout.cli import main
from heldout.errors import ConfigError
from heldout.runs.steps import check_steps
from heldout.studies import code
from heldout.studies.base import STUDIES, Config, Study, describe_study, find_study, parse_overrides

FAST, SLOW = 12, 400  # examples for each study and way of writing


schema_of = cache(Config.model_json_schema.__func__)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_package_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the corpus of installed code costs seconds, each time."""
    monkeypatch.setattr(code, "_fingerprint", lambda corpus: "")


@st.composite
def overrides(draw: Draw, study: Study) -> tuple[str, dict[str, Any]]:
    """A preset, and up to three fields with values that the schema allows, nearly allows, or does not."""
    schema = schema_of(study.config)
    found: dict[str, Any] = {}
    for field in draw(st.lists(st.sampled_from(sorted(schema["properties"])), min_size=1, max_size=3, unique=True)):
        right = from_schema(schema["properties"][field], schema)
        way = draw(st.sampled_from(["right", "right", "right", "wrong", "mutated"]))
        found[field] = draw(wrong()) if way == "wrong" else draw(right)
        if way == "mutated":
            found[field] = draw(mutated({"v": found[field]})).get("v", found[field])
    if draw(st.integers(0, 19)) == 0:
        found[draw(st.sampled_from(["", "seed", "Seeds", "extra", "rank"]))] = draw(wrong())
    return draw(st.sampled_from(sorted(study.presets))), found


def check(study: Study, preset: str, given: dict[str, Any]) -> None:
    made, fine = accepted(
        lambda: study.configure(preset, given), *(f.rstrip("s") for f in study.config.model_fields), "field"
    )
    if not fine:
        return
    config, changed = made
    kept = config.model_dump(mode="json")
    assert survives(kept)
    assert type(config)(**json.loads(json.dumps(kept))) == config
    for field, value in given.items():
        assert same(value, kept[field]), (field, value, kept[field])
    plain = study.configure(preset)[0].model_dump(mode="json")
    assert {f for f in kept if kept[f] != plain[f]} <= set(given)
    assert set(changed) <= set(given)
    if config.seeds <= 20:
        steps, made = accepted(lambda: study.steps(config, ""))
        assert made
        check_steps(steps)


def check_pairs(study: Study, preset: str, given: dict[str, Any], *, bare: bool) -> None:
    """The same through ``--set``: JSON, or text without quotes as one types it."""
    pairs = [f"{k}={v if bare and isinstance(v, str) else json.dumps(v)}" for k, v in given.items()]
    text, fine = accepted(lambda: describe_study(study.name, preset, pairs, None))
    if not fine:
        return
    config = study.configure(preset, parse_overrides(pairs))[0].model_dump(mode="json")
    for field, value in given.items():
        typed = parse_overrides([f"{field}={value}"])[field] if bare and isinstance(value, str) else value
        assert same(typed, config[field]), (field, value, config[field])
        assert f"  {field} = {json.dumps(config[field])}  (given)" in text


def values(name: str, n: int) -> None:
    study = find_study(name)
    fuzz(lambda example: check(study, *example), overrides(study), n)


def pairs(name: str, n: int) -> None:
    study = find_study(name)
    few = overrides(study).map(lambda e: (e[0], {k: 2 if k == "seeds" and v == 1000 else v for k, v in e[1].items()}))
    fuzz(lambda e: check_pairs(study, *e[0], bare=e[1]), st.tuples(few, st.booleans()), n)


@pytest.mark.parametrize("name", STUDIES)
def test_configurations(name: str) -> None:
    values(name, FAST)
    pairs(name, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_many_configurations(name: str) -> None:
    values(name, SLOW)
    pairs(name, SLOW)


def test_many_configurations_are_many() -> None:
    assert 2 * SLOW * len(STUDIES) >= 8_000


# ---- what was found


@pytest.mark.parametrize(
    ("study", "pair", "words"),
    [
        ("digits", "seeds=true", ["seeds", "True"]),
        ("digits", "ranks=[true]", ["ranks", "True"]),
        ("degeneracy", 'population={"items": true}', ["population", "items", "True"]),
        ("digits", "learning_rate=Infinity", ["learning_rate", "finite"]),
        ("digits", "learning_rate=1e400", ["learning_rate", "finite"]),
        ("digits", "learning_rate=inf", ["learning_rate", "finite"]),
        ("degeneracy", 'population={"level": NaN}', ["population.level", "finite"]),
        ("digits", f"shift={'1' * 5000}", ["shift", "4300 digits"]),
        ("digits", f"ranks={'[' * 100_000}", ["ranks", "recursion"]),
        ("degeneracy", 'population={"items": 1, "items": 2}', ["population", "'items' is given twice"]),
        ("digits", "batch=9007199254740993", ["batch", "2^53"]),
        ("digits", "seeds=1000000000", ["seeds", "1000"]),
        ("digits", "first_seed=4294967296", ["first_seed", "1000000000"]),
        ("digits", 'networks=["cnn", "cnn"]', ["networks", "'cnn' is named twice"]),
        ("arithmetic", "moduli=[[5, 1000000]]", ["moduli", "30"]),
        ("arithmetic", "digits=200", ["digits", "30"]),
        ("similarity", "noise=[0.1, 0.1]", ["noise", "once"]),
        ("similarity", "noise=[1e6]", ["noise", "1000"]),
        ("code", "layers=9007199254740992", ["layers", "1000"]),
        ("code", 'path="\\ud800"', ["path", "no file"]),
        ("code", 'path="\\u0000"', ["path", "no file"]),
    ],
)
def test_what_was_accepted_or_failed_before(
    study: str, pair: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["show", study, "--set", pair])
    assert leave.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert len(said) < 1000
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("pair", "value"),
    [("learning_rate=.5", 0.5), ("learning_rate=1e-2", 0.01), ("learning_rate=1", 1.0), ('learning_rate="0.5"', 0.5)],
)
def test_numbers_may_be_written_as_one_writes_them(pair: str, value: float) -> None:
    assert find_study("digits").configure("laptop", parse_overrides([pair]))[0].learning_rate == value  # type: ignore[attr-defined]


def test_values_that_are_no_plain_data_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ({1, 2}, b"1", endless, {1: 2}, math.nan, object()):
        with pytest.raises(ConfigError, match="ranks"):
            find_study("digits").configure("laptop", {"ranks": value})
