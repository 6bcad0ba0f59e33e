"""Random audit specs, as mappings and as YAML text: read and kept, or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import Draw, accepted, from_schema, fuzz, mutated, same, survives
from hypothesis import strategies as st

from heldout.audits.spec import Spec, parse_spec, read_spec
from heldout.audits.steps import steps
from heldout.cli import main
from heldout.errors import ConfigError

FAST, SLOW = 120, 1_500  # examples of each kind

SPLITS = {
    "train": {"role": "fit", "function": "mine:points", "arguments": {"seed": 1, "deep": {"a": [1.5, "b", None]}}},
    "choose": {"role": "select", "file": "choose.csv", "inputs": ["x", "y"], "targets": "t", "strata": {"kind": "k"}},
    "id": {"role": "test", "file": "id.parquet", "inputs": {"input_ids": "t"}, "mask_argument": "attention_mask"},
    "far": {"role": "test", "note": "far away", "function": "mine:points"},
}
READINGS = [
    {"name": "circuit", "kind": "circuit", "keep": {"0": [0, 1]}, "heads": 2, "baseline": "zero"},
    {"name": "probe", "kind": "probe", "site": "0", "action": "keep", "classes": [0, 1]},
    {"name": "steer", "kind": "steering", "site": "0", "vector": {"file": "v.safetensors"}, "alpha": [0.5, 1]},
    {"name": "sae", "kind": "autoencoder", "site": "0", "encoder": {"from": "mine:e"}, "decoder": {"from": "mine:d"}},
    {"name": "own", "kind": "function", "site": "0", "function": "mine:f", "arguments": {"a": 1}},
]
FEATURES = {"sites": ["0", "1"], "labels": ["kind"], "kinds": {"kind": "binary"}, "before": {"1": "0"}, "decode": False}
FILES = {"activations": "a.npz", "table": "a.csv"}
VALID = [
    {
        "name": "all of it",
        "network": {"from": "mine:mlp", "arguments": {"width": 8}, "weights": ["a.safetensors", "b.safetensors"]},
        "splits": SPLITS,
        "scoring": {"kind": "classification", "candidates": [0, 3], "tolerance": 0.5},
        "sites": ["0", "1"],
        "families": {"svd": [1, 2], "mean": True, "haar_draws": 2},
        "readings": READINGS,
        "rule": {"function": "mine:rule", "operation": "mod_add", "modulus": 7, "splits": ["far"]},
        "features": FEATURES,
        "similarity": {"sites": ["0", ["0", "1"]], "measures": ["cka"], "rows": 20},
        "reference": "id",
        "select": "choose",
        "decode": {"names": "names.txt"},
        "oracle": False,
        "seed": 3,
    },
    {
        "name": "two",
        "networks": {"a": {"huggingface": "gpt2", "head": "causal_lm"}, "b": {"from": "mine:b", "dtype": "float64"}},
        "splits": SPLITS,
        "sites": {"0": {"svd": [1]}, "1": None},
        "families": {"kmeans": [2]},
        "threshold": 0.9,
    },
    {
        "name": "files",
        "splits": {"train": {"role": "fit", **FILES}, "test": {"role": "test", **FILES}},
        "features": {"sites": ["a"], "groups": "who"},
    },
]  # fmt: skip
SCHEMA = Spec.model_json_schema(by_alias=True)
TRICKS = [
    "\t",
    "*a",
    "&a ",
    "!!set {a, b}",
    "!!binary aGk=",
    "!!python/object:os.system x",
    "!!timestamp x",
    "!!int ''",
    "<<: *a",
]
TRICKS += [
    "2020-13-45",
    "2020-01-01",
    "0x" + "f" * 40,
    "1_0",
    "~",
    ".inf",
    ".nan",
    "1e-3",
    "on",
    "0o17",
    "190:20:30",
    "? ",
    "%",
    "'",
    '"',
]
TRICKS += [
    "[" * 3000,
    "{",
    "}",
    "]",
    "---\n",
    "...\n",
    "#",
    "\0",
    "\x85",
    "\ufeff",
    "|",
    ">",
    "!!bool x",
    "!!float x",
    "seed: 1\n",
    ": ",
]


@st.composite
def mappings(draw: Draw) -> dict[str, Any]:
    """A valid spec with one to three changes, or parts of others as the schema allows them."""
    spec = draw(st.sampled_from(VALID))
    if draw(st.booleans()):
        made: dict[str, Any] = draw(mutated(spec))
        return made
    fields = draw(st.lists(st.sampled_from(sorted(SCHEMA["properties"])), min_size=1, max_size=2, unique=True))
    return {**spec, **{f: draw(from_schema(SCHEMA["properties"][f], SCHEMA)) for f in fields}}


@st.composite
def texts(draw: Draw) -> str:
    """The YAML of a spec, valid or not, with up to three places overwritten, cut or doubled."""
    spec = draw(st.sampled_from(VALID) | mappings())
    text = yaml.safe_dump(
        spec, sort_keys=False, allow_unicode=True, default_flow_style=draw(st.sampled_from([False, None]))
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.sampled_from([0, 0, 1, 5, 40])))
        line = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at) + 1]
        text = text[:at] + draw(st.sampled_from([*TRICKS, "", "\n" + line])) + text[until:]
    return text


def check(given: dict[str, Any], folder: Path) -> None:
    spec, fine = accepted(lambda: parse_spec(given, "spec.yaml"), "spec.yaml")
    if fine:
        kept_as(spec, given, folder)


def kept_as(spec: Spec, given: dict[str, Any], folder: Path) -> None:
    """Nothing lost, nothing changed, and its steps can be made (or are refused in words)."""
    kept = spec.model_dump(mode="json", by_alias=True)
    assert survives(kept)
    assert parse_spec(json.loads(json.dumps(kept)), "again") == spec
    assert same(_by_alias(given), kept), (given, kept)
    accepted(lambda: steps(spec, folder))


def _by_alias(tree: Any) -> Any:
    """`from` may be written `from_` in Python, and an empty mapping of a site stands for its default."""
    if isinstance(tree, dict):
        return {"from" if k == "from_" else k: _by_alias(v) for k, v in tree.items()}
    return [_by_alias(v) for v in tree] if isinstance(tree, list) else tree


def check_text(text: str, folder: Path) -> None:
    path = folder / "spec.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    spec, fine = accepted(lambda: read_spec(path), str(path))
    if not fine:
        return
    again = yaml.safe_load(path.read_text(encoding="utf-8"))
    kept_as(spec, again, folder)


def test_specs(tmp_path: Path) -> None:
    fuzz(lambda given: check(given, tmp_path), mappings(), FAST)
    fuzz(lambda text: check_text(text, tmp_path), texts(), FAST)


@pytest.mark.slow
def test_many_specs(tmp_path: Path) -> None:
    fuzz(lambda given: check(given, tmp_path), mappings(), SLOW)
    fuzz(lambda text: check_text(text, tmp_path), texts(), SLOW)


# ---- what was found

START = "name: a\nnetwork: {from: 'mine:mlp'}\nsites: ['0']\nfamilies: {svd: [1]}\n"
LAUGHS = "a: &a [1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
SPLIT = "splits:\n  fit: {role: fit, function: 'mine:p'}\n  id: {role: test, function: 'mine:p', arguments: {%s}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (START + SPLIT % "" + "seed: 1\nseed: 2\n", ["'seed' is given twice"]),
        (START + SPLIT % "" + "seed: true\n", ["seed", "True"]),
        (START + SPLIT % "" + "threshold: .nan\n", ["threshold", "finite"]),
        (START + SPLIT % "" + "scoring: {tolerance: .inf}\n", ["scoring.tolerance", "finite"]),
        (START + SPLIT % "" + "seed: 2020-13-45\n", ["no plain YAML", "month"]),
        (START + SPLIT % "" + "seed: !!timestamp x\n", ["no plain YAML"]),
        (START + SPLIT % "" + "seed: !!bool x\n", ["no plain YAML"]),
        (START + SPLIT % "" + f"seed: {'9' * 5000}\n", ["no plain YAML", "4300 digits"]),
        (START + SPLIT % "" + f"seed: 0x{'f' * 9000}\n", ["seed", "2^53"]),
        (START + SPLIT % "" + f"out: {'[' * 5000}\n", ["too deeply nested"]),
        (START + SPLIT % "" + 'out: "\\ud800"\n', ["out", "no file"]),
        (START + SPLIT % "since: 2020-01-01", ["splits.id.arguments.since", "date"]),
        (START + SPLIT % "table: {1: a}", ["splits.id.arguments.table", "key 1 is no text"]),
        (START + SPLIT % "names: !!set {a, b}", ["splits.id.arguments.names", "set"]),
        (START + SPLIT % "a: &a [*a]", ["splits.id.arguments.a", "refer to itself"]),
        (START.replace("['0']", "!!set {'0', '1'}") + SPLIT % "", ["sites", "set"]),
        (LAUGHS, ["more than 100000 values"]),
    ],
)  # fmt: skip
def test_what_was_accepted_or_failed_before(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SystemExit) as leave:
        main(["audit", str(tmp_path / "spec.yaml"), "--runs", str(tmp_path / "runs")])
    assert leave.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert len(said) < 1000
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


def test_numbers_as_yaml_takes_them_for_text_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(START + SPLIT % "" + "threshold: 5e-1\n")
    assert read_spec(tmp_path / "spec.yaml").threshold == 0.5


def test_settings_of_studies_are_no_settings_of_specs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(START + SPLIT % "")
    for more in (["--set", "seed=3"], ["--seeds", "3"]):
        with pytest.raises(SystemExit) as leave:
            main(["show", str(tmp_path / "spec.yaml"), *more])
        assert leave.value.code == 2
        assert more[0] in capsys.readouterr().err


def test_a_tree_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="spec"):
        parse_spec({"name": object()}, "spec")
