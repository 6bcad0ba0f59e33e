"""Steps that differ in their seed alone are computed as one where that is asked for, each with an output of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dummy_study
import pytest
from dummy_study import evidence

from heldout.errors import ConfigError, HeldoutError, NonFiniteError
from heldout.runs import Run, Step, execute
from heldout.runs.steps import check_steps, companions, step_keys


def seeds(*given: int, together: Any = dummy_study.samples, **more: Any) -> list[Step]:
    settings = {"size": 10, "pause": 0, **more}
    return [Step(f"sample-{s}", dummy_study.sample, {"seed": s, **settings}, together=together) for s in given]


def run(out: Path, study: list[Step], **options: Any) -> tuple[Run, list[Mapping[str, Any]]]:
    heard: list[Mapping[str, Any]] = []
    return execute(
        "dummy", study, out=out, **{"engine": "inline", "progress": heard.append, "together": True, **options}
    ), heard


def shared(found: Run) -> dict[str, int]:
    """Step -> the number of steps that were computed with it, itself among them."""
    notes = {name: json.loads((found.output(name) / "notes.json").read_text()) for name in found.steps()}
    return {name: next((e["together"] for e in said["events"] if "together" in e), 1) for name, said in notes.items()}


def names(heard: list[Mapping[str, Any]], kind: str) -> list[str]:
    return [event["step"] for event in heard if event["event"] == kind]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"together": None}, 1),
        ({"together": None, "device": "cuda:0"}, 3),
        ({"together": False, "device": "cuda:0"}, 1),
        ({"together": True}, 3),
        ({"together": True, "engine": "local", "workers": 2}, 3),
    ],
    ids=["cpu", "accelerator", "accelerator, apart", "asked for", "workers"],
)
def test_seeds_are_one_computation_on_an_accelerator_or_where_asked_for(
    tmp_path: Path, options: dict[str, Any], size: int
) -> None:
    study = seeds(0, 1, 2)
    found, heard = run(tmp_path / "run", study, **options)
    assert shared(found) == dict.fromkeys(found.steps(), size)
    assert names(heard, "submitted") == names(heard, "finished") == ["sample-0", "sample-1", "sample-2"]
    assert found.manifest["together"] is (size > 1)
    keys = step_keys(study)
    for step in study:
        record = found.record(step.name)
        assert (record["key"], record["settings"]["seed"]) == (keys[step.name], step.settings["seed"])
        assert record.get("together", []) == ([s.name for s in study] if size > 1 else [])
    alone, _ = run(tmp_path / "alone" / "run", [Step(s.name, s.function, s.settings) for s in study], together=False)
    for name in found.steps():
        parts = [r.output(name) / "parts" / "numbers.bin" for r in (found, alone)]
        assert parts[0].read_bytes() == parts[1].read_bytes()


def test_wall_seconds_are_shared_out(tmp_path: Path) -> None:
    start = time.perf_counter()
    found, _ = run(tmp_path / "run", seeds(0, 1, pause=0.1))
    whole = time.perf_counter() - start
    each = [found.record(name)["wall_seconds"] for name in found.steps()]
    assert each[0] == each[1]
    assert 0.1 < each[0] < whole / 2


def test_what_is_missing_is_computed_with_all_its_companions_and_ends_as_if_it_had_been_there(tmp_path: Path) -> None:
    """What a network draws depends on those beside it, here the note that says how many there were."""
    study = seeds(0, 1, 2, 3)
    first, _ = run(tmp_path / "run", study)
    before = evidence(first)
    for name in ("sample-0", "sample-2"):
        shutil.rmtree(first.output(name))
    again, heard = run(tmp_path / "run", study)
    assert sorted(names(heard, "reused")) == ["sample-1", "sample-3"]
    assert names(heard, "submitted") == names(heard, "finished") == ["sample-0", "sample-2"]
    assert evidence(again) == before
    last, heard = run(tmp_path / "run", study, fresh=["sample-1"])
    assert [(e["step"], e["outcome"]) for e in heard if e["event"] == "finished"] == [("sample-1", "identical")]
    assert evidence(last) == before
    more, heard = run(tmp_path / "run", seeds(0, 1, 2, 3, 4))
    assert names(heard, "finished") == ["sample-4"]
    assert shared(more) == {f"sample-{s}": 4 if s < 4 else 5 for s in range(5)}


def test_only_steps_that_differ_in_the_seed_alone_are_companions() -> None:
    def of(order: list[Step]) -> dict[str, tuple[str, ...]]:
        return companions(check_steps(order))

    a, b = seeds(0, 1)
    assert of([a, b]) == {"sample-0": ("sample-0", "sample-1"), "sample-1": ("sample-0", "sample-1")}
    wider = Step("wide", dummy_study.sample, {**b.settings, "size": 11}, together=dummy_study.samples)
    newer = Step("new", dummy_study.sample, b.settings, together=dummy_study.samples, version=2)
    other = Step("other", dummy_study.sample, b.settings, together=dummy_study.totals)
    apart = Step("apart", dummy_study.sample, b.settings)
    place = Step("place", dummy_study.sample, b.settings, together=dummy_study.samples, places={"at": "here"})
    after = Step("after", dummy_study.sample, b.settings, {"x": "sample-0"}, together=dummy_study.samples)
    seedless = [Step(n, dummy_study.sample, {"size": 1}, together=dummy_study.samples) for n in ("p", "q")]
    for step in (wider, newer, other, apart, place, after):
        assert of([a, step])[step.name] == (step.name,)
    assert of(seedless) == {"p": ("p",), "q": ("q",)}


def test_later_steps_go_together_once_all_their_inputs_are_there(tmp_path: Path) -> None:
    later = [
        Step(f"sum-{s}", dummy_study.total, {"seed": s}, {"x": f"sample-{s}"}, together=dummy_study.totals)
        for s in range(3)
    ]
    study = [*seeds(0, 1, 2, together=None), *later]
    found, heard = run(tmp_path / "run", study)
    assert {n: size for n, size in shared(found).items() if n in {s.name for s in later}} == {
        "sum-0": 3,
        "sum-1": 3,
        "sum-2": 3,
    }
    order = [(event["event"], event["step"]) for event in heard if event["event"] in ("submitted", "finished")]
    assert order.index(("submitted", "sum-0")) > order.index(("finished", "sample-2"))


def test_an_error_names_all_that_were_computed_together(tmp_path: Path) -> None:
    study = seeds(0, 1, together=dummy_study.fails_together)
    with pytest.raises(NonFiniteError, match="lower the learning rate") as raised:
        run(tmp_path / "run", study)
    assert raised.value.__notes__ == [
        "in step 'sample-0, sample-1'",
        "trained together; --apart trains them one by one, and keeps those that end",
    ]
    found, _ = run(tmp_path / "run", study, together=False)
    assert set(found.steps()) == {"sample-0", "sample-1"}
    shutil.rmtree(found.output("sample-1"))
    with pytest.raises(NonFiniteError) as raised:  # one is kept of the two that are computed
        run(tmp_path / "run", study)
    assert raised.value.__notes__[0] == "in step 'sample-1'"
    assert "--apart" in raised.value.__notes__[1]


@pytest.mark.parametrize("times", [2, 3])
def test_steps_that_lose_their_worker_are_tried_again_together(tmp_path: Path, times: int) -> None:
    study = seeds(0, 1, counter=str(tmp_path / "count"), times=times)
    options = {"engine": "local", "workers": 1}
    if times == 3:
        with pytest.raises(HeldoutError, match="step 'sample-0, sample-1' lost its worker 3 times"):
            run(tmp_path / "run", study, **options)
    else:
        found, heard = run(tmp_path / "run", study, **options)
        assert names(heard, "lost") == ["sample-0"] * 2
        assert set(shared(found).values()) == {2}


def test_a_function_for_several_must_be_importable_too() -> None:
    with pytest.raises(ConfigError, match="cannot be imported by a worker"):
        seeds(0, together=lambda contexts: None)


@pytest.mark.parametrize("together", [False, True])
def test_a_step_of_several_seeds_is_told(tmp_path: Path, together: bool) -> None:
    found, _ = run(tmp_path / "run", [Step("told", dummy_study.told)], together=together)
    assert json.loads((found.output("told") / "together.json").read_text()) is together
