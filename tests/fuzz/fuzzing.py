"""What the fuzz tests share: values drawn from a pydantic schema, values that are wrong, and what acceptance means."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from heldout.errors import HeldoutError

Draw = Callable[..., Any]

# Plain values that no field, or only some, may take.
WRONG = (
    *(True, False, None, "", "5", "1e-3", " 7 ", "1_000", "nan", "inf", "-Infinity"),
    *("x", "true", "yes", "é", "../..", "~nobody/x"),
    *([], {}, [1], [[]], {"a": 1}, {"": []}, [None], [True], ["x", "x"]),
    *(0, 1, -1, 2, 1.5, 5.0, -0.0, 1e-300, 1e308, 2**31, 2**53, 2**53 + 1, 2**63, 10**25, 1e25),
    *(math.nan, math.inf, -math.inf, "\0", "\ud800", "a\nb", "x" * 300),
)  # fmt: skip
YES, NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}
STUCK = 20  # seconds after which an example has hung; none takes one


def wrong() -> st.SearchStrategy[Any]:
    """One of `WRONG`, a copy that may be changed."""
    return st.sampled_from(WRONG).map(deepcopy)


def fuzz(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], n: int) -> int:
    """`check` on `n` examples, the same every time; how many were accepted. Fails where fewer were made."""
    made = 0

    @settings(max_examples=n, derandomize=True, database=None, deadline=None,
              phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def one(example: Any) -> None:
        nonlocal made
        made += 1
        with in_time():
            check(example)

    one()
    assert made >= n
    return made


@contextmanager
def in_time() -> Iterator[None]:
    """Fails what hangs."""

    def stuck(*_: object) -> None:
        raise AssertionError(f"no answer in {STUCK} seconds")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(STUCK)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def accepted(function: Callable[[], Any], *words: str) -> tuple[Any, bool]:
    """What `function` returns, True; or None, False where it raises a `HeldoutError` that has one of `words` in a message
    that is not endless. Anything else that is raised fails the test."""
    try:
        return function(), True
    except HeldoutError as error:
        said = str(error)
        assert said.strip()
        assert len(said) < 5000, said[:300]
        assert not words or any(word in said for word in words), (said, words)
        return None, False


def same(given: Any, got: Any) -> bool:
    """Whether `got` is what `given` says: equal numbers, text of a number for it, the words of a truth value, all of a list,
    every key of a mapping; and nothing that is not finite."""
    if isinstance(got, bool):
        word = str(given).strip().lower()
        return given is got or (not isinstance(given, bool) and given in (0, 1) and bool(given) == got) or (
            isinstance(given, str) and word in (YES if got else NO)
        )  # fmt: skip
    if isinstance(got, int | float):
        if not math.isfinite(got) or isinstance(given, bool):
            return False
        if isinstance(given, str):
            return float(given) == got if isinstance(got, float) else float(given) == float(got)
        return isinstance(given, int | float) and given == got
    if isinstance(got, Mapping):
        return isinstance(given, Mapping) and all(k in got and same(v, got[k]) for k, v in given.items())
    if isinstance(got, list | tuple):
        return (
            isinstance(given, list | tuple)
            and len(given) == len(got)
            and all(same(a, b) for a, b in zip(given, got, strict=True))
        )
    return type(given) is type(got) and bool(given == got)


def survives(value: Any) -> bool:
    """Whether JSON keeps it as it is."""
    return bool(json.loads(json.dumps(value, allow_nan=False)) == value)


def from_schema(schema: Mapping[str, Any], root: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema allows, at its bounds above all."""
    if "$ref" in schema:
        return st.deferred(lambda: from_schema(root["$defs"][schema["$ref"].rpartition("/")[2]], root))
    if branches := schema.get("anyOf", schema.get("oneOf")):
        return st.one_of([from_schema(branch, root) for branch in branches])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return st.sampled_from(_numbers(schema, whole=kind == "integer"))
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    if kind == "string":
        return st.sampled_from(
            ["", "a", "id", "0", "model.layers.0", "x.csv", "mine:mlp", "cka", "svd", "Übung", "a b"]
        )
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*(from_schema(s, root) for s in schema["prefixItems"])).map(list)
        return st.lists(from_schema(schema["items"], root), min_size=schema.get("minItems", 0), max_size=4)
    if "properties" in schema:
        return _mapping(schema, root)
    inner = schema.get("additionalProperties")
    value = from_schema(inner, root) if isinstance(inner, Mapping) and inner else wrong()
    return st.dictionaries(st.sampled_from(["a", "id", "b c", "", "-"]), value, max_size=2)


@st.composite
def _mapping(draw: Draw, schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """An object with what is required and a few of the other fields."""
    needed = schema.get("required", [])
    others = [name for name in schema["properties"] if name not in needed]
    more = draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others else []
    return {name: draw(from_schema(schema["properties"][name], root)) for name in (*needed, *more)}


def _numbers(schema: Mapping[str, Any], *, whole: bool) -> list[float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -3))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1_000_000))
    if whole:
        return [low, low + 1, low + 2, low + 3, low + 15, low + 63, high, high - 1, min(high, low + 1000)]
    return [low, low + 1e-9, low + (high - low) / 1e9, low + (high - low) / 3, high, low + 0.1, low + 1]


@st.composite
def mutated(draw: Draw, tree: Any) -> Any:
    """`tree` with one to three changes: a value replaced, left out, doubled, or a key that is new or misspelt."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "rename", "double"]))
        if change == "replace":
            holder[key] = draw(wrong())
        elif change == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key] if change == "double" else draw(wrong()))
        elif change == "rename":
            holder[f"{key}s"] = holder.pop(key)
        else:
            holder[draw(st.sampled_from(["", "extra", "sites", "kind", "Seed", "a b", "é"]))] = draw(wrong())
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])
