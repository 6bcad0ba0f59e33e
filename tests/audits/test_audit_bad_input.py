"""Bad input gets one clear message, exit code 2 and no traceback; what was computed is kept."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import POINTS, base, save_hugging_face, write, write_sequences

from heldout.cli import main
from heldout.errors import ConfigError
from heldout.runs import Run


def refused(path: Path, capsys: pytest.CaptureFixture[str], command: str = "audit") -> str:
    """Run the command; it must end with code 2 and one message."""
    more = ["--runs", str(path.parent / "runs")] if command == "audit" else []
    with pytest.raises(SystemExit) as leave:
        main([command, str(path), *more])
    said = capsys.readouterr().err
    assert leave.value.code == 2
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    return said[said.index("error: ") :]


def splits(**changed: Any) -> dict[str, Any]:
    return {**POINTS, **changed}


SPECS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown field": ({"famlies": {}}, ["unknown field 'famlies'", "families"]),
    "unknown field below": ({"families": {"svdd": [1]}}, ["'families.svdd'", "svd"]),
    "unknown field of a reading": (
        {"readings": [{"kind": "steering", "name": "s", "site": "1", "vektor": {"file": "x"}}]},
        ["readings.0.vektor", "vector"],
    ),
    "unknown kind of reading": ({"readings": [{"kind": "sterring", "name": "s"}]}, ["readings.0", "steering"]),
    "unknown field of a split": ({"splits": splits(id={**POINTS["id"], "rol": "test"})}, ["'splits.id.rol'", "role"]),
    "unknown scoring": ({"scoring": {"kind": "regresion"}}, ["scoring.kind", "regression"]),
    "no test split": ({"splits": {"fit": POINTS["fit"]}}, ["none has role 'test'"]),
    "nothing to fit on": ({"splits": {"id": POINTS["id"]}}, ["none has role 'fit'"]),
    "unknown reference": ({"reference": "idd"}, ["'idd' is no test split", "id"]),
    "no such function": ({"network": {"from": "mine:mpl"}}, ["network.from", "'mpl'", "mlp"]),
    "no such module": ({"network": {"from": "mein:mlp"}}, ["no module 'mein'", "mine"]),
    "not of the form": ({"network": {"from": "mine.mlp"}}, ["package.module:function"]),
    "wrong argument": ({"network": {"from": "mine:mlp", "arguments": {"sed": 1}}}, ["network.from", "sed"]),
    "not a network": ({"network": {"from": "mine:letter", "arguments": {"label": 1}}}, ["returned a str", "nn.Module"]),
    "missing site": ({"sites": ["3"]}, ["site '3'", "choose from 0, 1, 2"]),
    "missing site of a reading": (
        {"readings": [{"kind": "function", "name": "h", "site": "11", "function": "mine:halve"}]},
        ["site '11'"],
    ),
    "overlapping splits": (
        {"splits": splits(id={**POINTS["id"], "arguments": {"seed": 1}})},
        ["share 40", "'fit'", "'id'"],
    ),
    "wrong shape of an edit": (
        {"readings": [{"kind": "function", "name": "n", "site": "1", "function": "mine:narrow"}]},
        ["(40, 1)", "(40, 8)", "split 'id'"],
    ),
    "wrong shape of the network": (
        {"network": {"from": "mine:wrong_shape"}, "sites": ["0"], "families": {"svd": [2]}},
        ["(12,) for 4 items", "split 'id'"],
    ),
    "positions first, with as many items as positions": (
        {
            "network": {"from": "mine:positions_first"},
            "sites": ["layers.0"],
            "splits": {
                n: {**s, "function": "mine:square", "arguments": {"seed": i}} for i, (n, s) in enumerate(POINTS.items())
            },
        },
        ["split 'id'", "items are mixed", "Axis 0", "batch_first=False", "SITE@time_first"],
    ),
    "rank above the width": ({"families": {"svd": [9]}}, ["rank 9", "0 to 8"]),
    "components beyond the width": (
        {"readings": [{"kind": "circuit", "name": "c", "keep": {"1": [8]}}]},
        ["components [8] of 8"],
    ),
    "wrong split function": (
        {"splits": splits(id={"role": "test", "function": "mine:letter", "arguments": {"label": 1}})},
        ["splits.id.function", "returned a str"],
    ),
    "a mask by keyword beside inputs by position": (
        {"splits": splits(id={"role": "test", "file": "id.jsonl", "inputs": "tokens", "mask_argument": "mask"})},
        ["splits.id", "inputs: {argument: column}"],
    ),
    "no such file": (
        {"splits": splits(id={"role": "test", "file": "id.parquet", "inputs": "x"})},
        ["split 'id'", "does not exist"],
    ),
    "pickled data": (
        {"splits": splits(id={"role": "test", "file": "id.pkl", "inputs": "x"})},
        ["pickled", ".safetensors"],
    ),
    "pickled weights": ({"network": {"from": "mine:mlp", "weights": "w.pkl"}}, ["network.weights", "unpickling"]),
    "pickled state": (
        {"network": {"from": "mine:mlp", "weights": "w.pt"}},
        ["weights_only=True", "nothing is unpickled"],
    ),
    "other weights": ({"network": {"from": "mine:mlp", "weights": "other.pt"}}, ["does not fit the network"]),
    "no such directory": ({"network": {"huggingface": "gtp2"}}, ["no directory", "Only local directories"]),
    "a hub name": ({"network": {"huggingface": "openai/gpt2"}}, ["no directory", "Only local directories"]),
    "unknown device": ({"device": "gpu"}, ["device 'gpu'"]),
}


@pytest.mark.parametrize("name", SPECS)
def test_one_clear_message(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed, words = SPECS[name]
    path = write(tmp_path, base(**changed))
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "w.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    said = refused(path, capsys)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", ["no plain YAML"]),
        ("- 1", ["holds list"]),
        ("name: !!python/object/apply:os.system ['touch done']", ["no plain YAML"]),
    ],
)
def test_yaml_that_is_no_spec(text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    said = refused(tmp_path / "spec.yaml", capsys)
    assert all(word in said for word in words), said
    assert not Path("done").exists()


def test_a_spec_that_is_not_there_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, base())
    assert "spec.yaml" in refused(tmp_path / "spek.yaml", capsys)
    assert "spec.yaml" in refused(tmp_path / "spek.yaml", capsys, "show")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("fails", ["split 'far'", "Fails failed", "numbers ", "flux capacitor"]),
        ("overflows", ["split 'far'", "NaN or infinite", "items "]),
    ],
)
def test_a_network_that_fails_half_way_keeps_what_was_computed(
    network: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items beyond 8 are on one split only, and not in its first batch."""
    far = {**POINTS["far"], "arguments": {"seed": 3, "shift": 5.5}}
    path = write(
        tmp_path,
        base(
            network={"from": f"mine:{network}"},
            sites=["body"],
            families={"svd": [2]},
            splits=splits(far=far),
            batch_size=4,
        ),
    )
    said = refused(path, capsys)
    assert all(word in said for word in words), said
    assert "kept" in said
    run = Run.open(next((tmp_path / "runs").glob("audit-*")))
    assert list(run.output("audit-score-network-r0-id").glob("*.parquet"))
    before = (run.output("audit-score-network-r0-id") / "step.json").stat().st_mtime_ns
    refused(path, capsys)  # and nothing of it is computed again
    assert (run.output("audit-score-network-r0-id") / "step.json").stat().st_mtime_ns == before


def test_an_activation_that_is_not_finite_names_site_split_and_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = {**POINTS["fit"], "arguments": {"seed": 3, "shift": 5.5}}
    path = write(
        tmp_path,
        base(network={"from": "mine:overflows"}, sites=["head:input"], families={"svd": [2]}, splits=splits(fit=fit)),
    )
    text = (tmp_path / "mine.py").read_text().replace("        self.head(h)\n", "")
    (tmp_path / "mine.py").write_text(text)
    said = refused(path, capsys)
    assert "site head:input[0] holds NaN or infinite values on split 'fit', items [" in said


@pytest.mark.parametrize("kept", ["nothing", "pickled", "config only"])
def test_a_model_directory_without_weights(kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_hugging_face("gpt2", tmp_path)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    if kept == "pickled":
        torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    if kept == "nothing":
        (folder / "config.json").unlink()
    said = refused(write(tmp_path, base(network={"huggingface": "gpt2"})), capsys)
    words = {
        "nothing": "no config.json",
        "pickled": "pytorch_model.bin would need unpickling",
        "config only": "no weights",
    }
    assert words[kept] in said


def test_a_network_that_is_drawn_anew_each_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(write(tmp_path, base(network={"from": "mine:unseeded"}, sites=["0"], families={"svd": [2]})), capsys)
    assert "network: mine:unseeded returned other weights" in said
    assert "seed" in said


def test_names_that_would_share_a_step_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(write(tmp_path, base(splits=splits(**{"a b": POINTS["far"], "a_b": POINTS["far"]}))), capsys)
    assert "give one another name" in said


def test_a_head_that_the_directory_does_not_hold_is_not_filled_with_random_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_hugging_face("gpt2", tmp_path)
    write_sequences(tmp_path)
    said = refused(write(tmp_path, base(network={"huggingface": "gpt2", "head": "sequence_classification"})), capsys)
    assert "would be random" in said
    assert "causal_lm" in said


def test_a_head_that_nobody_named_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_hugging_face("gpt2", tmp_path)
    said = refused(write(tmp_path, base(network={"huggingface": "gpt2"})), capsys)
    assert "because scoring.kind is classification" in said
    assert "next_token for a decoder" in said
    assert "network.head" in said


def test_code_beside_weights_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_hugging_face("gpt2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "sly", "auto_map": {k: f"sly.{k}" for k in ("AutoConfig", "AutoModelForCausalLM")}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sly.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(write(tmp_path, base(network={"huggingface": "gpt2", "head": "causal_lm"})), capsys)
    assert not (tmp_path / "ran").exists()


def test_a_users_module_may_not_hide_an_installed_one(tmp_path: Path) -> None:
    from heldout.networks.load import import_function

    (tmp_path / "pandas.py").write_text("def make(): pass")
    import pandas  # noqa: F401 - so that it is there already

    with pytest.raises(ConfigError, match="rename yours"):
        import_function("pandas:make", tmp_path, field="network.from")
