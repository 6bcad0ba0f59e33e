"""Steps: what their keys depend on, what is refused, in which order they run."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import dummy_study
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.errors import ConfigError
from heldout.runs import Step, StepContext, check_steps, step_keys
from heldout.runs._json import canonical, plain
from heldout.runs.steps import and_dependents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def key(*steps: Step) -> str:
    return step_keys(check_steps(steps))[steps[-1].name]


BASE = Step("a", dummy_study.sample, {"seed": 0, "size": 3})


def test_each_part_of_a_step_changes_its_key_and_nothing_else_does() -> None:
    others = [
        Step("b", dummy_study.sample, {"seed": 0, "size": 3}),
        Step("a", dummy_study.total, {"seed": 0, "size": 3}),
        Step("a", dummy_study.sample, {"seed": 1, "size": 3}),
        Step("a", dummy_study.sample, {"seed": 0.0, "size": 3}),
        Step("a", dummy_study.sample, {"seed": False, "size": 3}),
        Step("a", dummy_study.sample, {"seed": 0}),
        Step("a", dummy_study.sample, {"seed": 0, "size": 3}, version=2),
    ]
    assert len({key(step) for step in [BASE, *others]}) == 1 + len(others)
    assert key(Step("a", dummy_study.sample, {"size": 3, "seed": 0})) == key(BASE)
    assert key(Step("unrelated", dummy_study.total), BASE) == key(BASE)


def test_a_key_follows_its_inputs_and_their_names() -> None:
    def after(first: Step, local: str = "x") -> str:
        return key(first, Step("b", dummy_study.total, inputs={local: first.name}))

    other = Step("a", dummy_study.sample, {"seed": 1, "size": 3})
    assert len({after(BASE), after(other), after(BASE, "y")}) == 3


def test_a_key_is_the_same_in_another_process() -> None:
    code = "import dummy_study as d; from heldout.runs import step_keys; print(step_keys(d.steps())['all'])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert result.stdout.strip() == step_keys(check_steps(dummy_study.steps()))["all"]


def test_importing_runs_loads_nothing_heavy() -> None:
    code = "import sys, heldout.runs; print({'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@given(JSON)
def test_plain_json_is_kept_and_has_one_text(value: object) -> None:
    assert plain(value, "value") == value
    assert canonical(plain(value, "value")) == canonical(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (np.int64(3), "int64"),
        (Path("x"), "Path"),
        ({1: 2}, "key 1"),
        ({"deep": [0, {1, 2}]}, r"deep\[1\] is a set"),
    ],
)
def test_settings_that_have_no_one_text_are_refused(value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Step("a", dummy_study.sample, {"x": value})


def test_settings_are_copied_and_tuples_are_lists() -> None:
    given_ = {"ranks": (1, 2)}
    step = Step("a", dummy_study.sample, given_)
    given_["ranks"] = (3,)
    assert step.settings["ranks"] == [1, 2]


def local_function() -> object:
    def inner(ctx: StepContext) -> None: ...

    return inner


@pytest.mark.parametrize("function", [lambda ctx: None, local_function(), functools.partial(dummy_study.sample)])
def test_functions_that_a_worker_cannot_import_are_refused(function: object) -> None:
    with pytest.raises(ConfigError, match="cannot be imported by a worker"):
        Step("a", function)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä"])
def test_names_that_are_not_accepted(name: str) -> None:
    with pytest.raises(ConfigError, match="step name"):
        Step(name, dummy_study.sample)


def test_order_puts_inputs_first_whatever_the_order_given() -> None:
    names = [step.name for step in check_steps(reversed(dummy_study.steps()))]
    for step in dummy_study.steps():
        assert all(names.index(source) < names.index(step.name) for source in step.inputs.values())


def test_lists_of_steps_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="two steps are named 'a'"):
        check_steps([BASE, BASE])
    with pytest.raises(ConfigError, match=r"unknown input 'sampel-1'.*sample-1"):
        check_steps([*dummy_study.steps(), Step("b", dummy_study.total, inputs={"x": "sampel-1"})])
    loop = [Step(a, dummy_study.total, inputs={"x": b}) for a, b in ("ab", "bc", "ca")]
    with pytest.raises(ConfigError, match="circle; look among a, b, c"):
        check_steps([BASE.__class__("d", dummy_study.total), *loop])


def test_fresh_patterns_take_their_dependents_along() -> None:
    order = check_steps(dummy_study.steps())
    assert and_dependents(order, []) == set()
    assert and_dependents(order, ["sample-2"]) == {"sample-2", "sum-12", "all"}
    assert and_dependents(order, ["sum-*"]) == {"sum-01", "sum-12", "all"}
    with pytest.raises(ConfigError, match=r"unknown step 'sum-02'.*sum-01"):
        and_dependents(order, ["sum-02"])


def test_a_step_cannot_read_or_change_what_is_not_its_own(tmp_path: Path) -> None:
    ctx = StepContext("a", {"seed": 0}, {"network": tmp_path}, out=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="unknown setting of step 'a' 'sead'; choose from seed"):
        ctx.settings["sead"]
    with pytest.raises(ConfigError, match=r"unknown input of step 'a' 'net'; choose from network"):
        ctx.inputs["net"]
    with pytest.raises(TypeError):
        ctx.settings["seed"] = 1  # type: ignore[index]
