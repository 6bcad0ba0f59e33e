"""Networks of every kind through a whole audit: identity exact, hooks gone, batches, padding and order change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from folders import base, save_hugging_face, sequence_splits, write, write_sequences
from torch import nn

from heldout.activations.edits import Edit
from heldout.activations.tap import Tap
from heldout.audits.material import load_network, load_split
from heldout.audits.running import run_audit
from heldout.audits.spec import Spec, parse_spec
from heldout.audits.steps import SUMMARY
from heldout.evidence import read_estimates, read_scores
from heldout.runs import Run
from heldout.tasks.base import Split

HUGGING_FACE = ("gpt2", "llama", "bert")
MASKED = {"mask_argument": "attention_mask"}
CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "cnn": {
        "network": {"from": "mine:cnn"},
        "sites": ["0", "2"],
        "splits": {
            n: {"role": "fit" if n == "fit" else "test", "function": "mine:images", "arguments": {"seed": s}}
            for s, n in enumerate(("fit", "id", "far"))
        },
        "families": {"svd": [2, 4]},
    },
    "lstm": {
        "network": {"from": "mine:lstm"},
        "sites": ["lstm[0]"],
        "splits": sequence_splits("tokens"),
        "scoring": {"kind": "next_token"},
        "families": {"svd": [2, 5]},
    },
    "gpt2": {
        "network": {"huggingface": "gpt2"},
        "sites": ["transformer.h.0.mlp", "transformer.h.1.attn@attn.value[0]"],
        "splits": sequence_splits("input_ids", **MASKED),
        "scoring": {"kind": "next_token"},
        "families": {"svd": [2, 4]},
    },
    "llama": {
        "network": {"huggingface": "llama"},
        "sites": ["model.layers.0", "model.layers.1.self_attn@attn.key[1]"],
        "splits": sequence_splits("input_ids", **MASKED),
        "scoring": {"kind": "next_token"},
        "families": {"svd": [1, 2]},
    },
    "bert": {
        "network": {"huggingface": "bert"},
        "sites": ["bert.encoder.layer.0"],
        "splits": sequence_splits("input_ids", targets="label", **MASKED),
        "families": {"svd": [2, 8]},
    },
    "theirs": {
        "network": {"from": "mine:theirs"},
        "sites": ["inner.encoder.layers.0@time_first"],
        "splits": sequence_splits("src", targets="label", padding_argument="src_key_padding_mask"),
        "families": {"svd": [2, 8]},
    },
}


KINDS = ("score", "null", "warn")  # of steps that every test split has


EVERY = [pytest.param(n, marks=pytest.mark.slow if n in (*HUGGING_FACE, "theirs") else ()) for n in CASES]


def prepared(name: str, folder: Path, **changed: Any) -> tuple[Path, Spec]:
    spec = base(**{**CASES[name], **changed})
    path = write(folder, spec)
    write_sequences(folder)
    if "huggingface" in spec["network"]:
        save_hugging_face(name, folder)
    return path, parse_spec(spec, "test")


def audit(path: Path, runs: str = "runs") -> Run:
    return run_audit(path, runs=path.parent / runs, progress=None)


def estimates(run: Run) -> pd.DataFrame:
    return read_estimates(run.output(SUMMARY) / "estimates.parquet")


def sums(run: Run, split: str) -> dict[str, dict[str, np.ndarray]]:
    """Edit's site and label -> metric -> sums by unit, units in order."""
    found = {}
    for path in sorted(run.output(f"audit-score-network-r0-{split}").glob("*.parquet")):
        cell, columns = read_scores(path)
        table = pd.DataFrame(columns).groupby("unit").sum()
        found[f"{cell.edit.site} {cell.edit.label}"] = {c: table[c].to_numpy() for c in table}
    return found


def loaded(spec: Spec, folder: Path) -> tuple[nn.Module, Split]:
    network = next(iter(spec.every_network.values()))
    kind = spec.scoring.kind
    return load_network(network, 0, folder, kind=kind), load_split("id", spec.splits["id"], folder, kind=kind)


@pytest.mark.parametrize("name", EVERY)
def test_an_audit_runs_and_says_what_it_must(name: str, tmp_path: Path) -> None:
    path, spec = prepared(name, tmp_path)
    run = audit(path)
    record = json.loads((run.output(SUMMARY) / "audits.json").read_text())[0]
    assert record["identity"]["difference"] <= record["identity"]["tolerance"] / 10
    found = estimates(run)
    gaps = found[found["quantity"] == "gap"]
    assert set(gaps["site"]) == {str(s) for s in spec.sites}
    assert set(gaps["split"]) == {"far"}
    assert gaps[["value", "low", "high", "null"]].notna().all(axis=None)
    assert (gaps["low"] <= gaps["value"]).all()
    assert (gaps["value"] <= gaps["high"]).all()
    worst = json.loads((run.output(SUMMARY) / "worst.json").read_text())
    assert len(worst) == 3 * 2 * len(gaps)  # three of each on two splits


@pytest.mark.parametrize("name", EVERY)
def test_full_rank_keeps_every_prediction_and_a_low_one_does_not(name: str, tmp_path: Path) -> None:
    path, _ = prepared(name, tmp_path)
    found = estimates(audit(path))
    same = found[(found["quantity"] == "same_prediction") & (found["split"] == "id")]
    full = {"mlp": {"1": 8}, "lstm": {"lstm[0]": 5}, "cnn": {"0": 4}, "gpt2": {"transformer.h.1.attn@attn.value[0]": 4}}
    full |= {"llama": {"model.layers.1.self_attn@attn.key[1]": 2}, "bert": {"bert.encoder.layer.0": 8}}
    full |= {"theirs": {"inner.encoder.layers.0@time_first": 8}}
    for site, rank in full[name].items():
        whole = same[(same["site"] == site) & (same["parameter"] == rank)]["value"]
        assert list(whole) == [1.0]
    assert same["value"].min() < 1


@pytest.mark.parametrize("name", EVERY)
def test_batch_size_padding_and_order_change_nothing(name: str, tmp_path: Path) -> None:
    """One item a batch has no padding; a large batch pads; both give the same sums, unit by unit."""
    path, _ = prepared(name, tmp_path)
    large = sums(audit(path), "far")
    write(tmp_path, base(**{**CASES[name], "batch_size": 1}))
    single = sums(audit(path, "runs-single"), "far")
    assert large.keys() == single.keys()
    for label, metrics in large.items():
        assert metrics["n"].tolist() == single[label]["n"].tolist()
        assert metrics["same"].tolist() == single[label]["same"].tolist(), label
        np.testing.assert_allclose(metrics["kl"], single[label]["kl"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    _, spec = prepared(name, tmp_path)
    network, split = loaded(spec, tmp_path)
    assert not network.training
    batch = next(split.batches(64))

    def state() -> list[Any]:
        hooks = [
            {k: list(v) for k, v in vars(m).items() if "hooks" in k and isinstance(v, dict)} for m in network.modules()
        ]
        return [hooks, [p._version for p in network.parameters()]]

    before = state()
    sites = [str(s) for s in spec.sites]
    with Tap(network, edit=Edit.identity(sites).functions) as tap:
        edited = tap(batch).output
    with Tap(network) as tap:
        plain = tap(batch).output
    first, second = (o if isinstance(o, torch.Tensor) else o["logits"] for o in (edited, plain))
    assert torch.equal(first, second)
    assert state() == before


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_targets_of_a_decoder_are_its_next_tokens(name: str, tmp_path: Path) -> None:
    """The loss that the audit sums is the one that the library itself computes."""
    _, spec = prepared(name, tmp_path)
    network, split = loaded(spec, tmp_path)
    batch = next(split.batches(1000))
    assert batch.targets is not None
    assert batch.scored is not None
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    with torch.no_grad():
        theirs = network(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        logits = network(input_ids=ids, attention_mask=mask).logits
    ours = nn.functional.cross_entropy(logits[batch.scored], batch.targets[batch.scored])
    assert int(batch.scored.sum()) == int(mask.sum()) - len(batch)
    torch.testing.assert_close(ours, theirs)


def test_the_same_command_goes_on_and_finds_everything_done(tmp_path: Path) -> None:
    path, _ = prepared("mlp", tmp_path)
    first = audit(path)
    events: list[Any] = []
    second = run_audit(path, runs=tmp_path / "runs", progress=events.append)
    assert second.path == first.path
    assert {e["event"] for e in events} == {"start", "reused", "done"}


def test_a_change_of_a_users_module_or_data_is_seen(tmp_path: Path) -> None:
    path, _ = prepared("lstm", tmp_path)
    first = audit(path)
    rows = (tmp_path / "far.jsonl").read_text().splitlines()
    (tmp_path / "far.jsonl").write_text("\n".join(rows[1:]))
    events: list[Any] = []
    second = run_audit(path, runs=tmp_path / "runs", progress=events.append)
    assert second.path != first.path
    done = {e["event"]: {x["step"] for x in events if x["event"] == e["event"]} for e in events if "step" in e}
    who = "network-r0"
    # What does not read the split stands as it was.
    assert done["reused"] == {f"audit-{s}" for s in (f"fit-{who}", f"match-{who}", *(f"{k}-{who}-id" for k in KINDS))}
    assert done["finished"] == {"audit-splits", "audit-summary", *(f"audit-{k}-{who}-far" for k in (*KINDS, "oracle"))}
    assert len(pd.DataFrame(sums(second, "far")["lstm[0] svd-2"])) == 19


def test_a_split_that_is_added_is_computed_alone_and_moves_no_other_number(tmp_path: Path) -> None:
    path, _ = prepared("mlp", tmp_path)
    before = estimates(audit(path))
    added = {**base()["splits"], "farther": {**base()["splits"]["far"], "arguments": {"seed": 4, "shift": 2.0}}}
    write(tmp_path, base(splits=added))
    events: list[Any] = []
    after = estimates(run_audit(path, runs=tmp_path / "runs", progress=events.append))
    computed = {e["step"] for e in events if e["event"] == "finished"}
    assert all("farther" in s for s in computed - {"audit-splits", "audit-summary"})
    assert "audit-fit-network-r0" not in computed
    pd.testing.assert_frame_equal(after[after["split"] != "farther"].reset_index(drop=True), before)


def test_a_folder_that_was_moved_and_files_that_were_renamed_keep_their_evidence(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "elsewhere" / "new"
    old.mkdir()
    path, _ = prepared("lstm", old)
    first = run_audit(path, runs=tmp_path / "runs", progress=None)
    new.parent.mkdir()
    old.rename(new)
    splits = CASES["lstm"]["splits"]
    (new / "far.jsonl").rename(new / "renamed.jsonl")
    write(new, base(**{**CASES["lstm"], "splits": {**splits, "far": {**splits["far"], "file": "renamed.jsonl"}}}))
    events: list[Any] = []
    second = run_audit(new / "spec.yaml", runs=tmp_path / "runs", progress=events.append)
    assert second.path == first.path
    assert {e["event"] for e in events} == {"start", "reused", "done"}


def test_one_more_training_run_is_computed_alone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, _ = prepared("mlp", tmp_path)
    names = []
    for seed in range(2):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        save_file(made.state_dict(), tmp_path / f"w{seed}.safetensors")
        names.append(f"w{seed}.safetensors")
    write(tmp_path, base(network={"from": "mine:mlp", "weights": names[:1]}))
    audit(path)
    write(tmp_path, base(network={"from": "mine:mlp", "weights": names}))
    events: list[Any] = []
    run = run_audit(path, runs=tmp_path / "runs", progress=events.append)
    assert not any("-r0" in e["step"] for e in events if e["event"] == "finished")
    warned = estimates(run)
    assert set(warned.loc[warned["quantity"].str.startswith("auroc"), "seeds"]) == {2}


def test_a_file_among_arguments_is_read_by_content(tmp_path: Path) -> None:
    from heldout.audits.parts import SplitSpec
    from heldout.audits.sources import fingerprint

    (tmp_path / "a.npy").write_bytes(b"one")
    spec = SplitSpec(role="test", function="mine:points", arguments={"path": "a.npy", "mode": "a"})
    before = fingerprint(spec, tmp_path)
    assert before == fingerprint(spec, tmp_path)
    (tmp_path / "a.npy").write_bytes(b"two")
    assert fingerprint(spec, tmp_path) != before
    assert before["arguments"]["mode"] == "a"


def test_several_runs_are_judged_together(tmp_path: Path) -> None:
    """Three sets of weights of one network: the interval is over training runs."""
    from safetensors.torch import save_file

    path, _ = prepared("mlp", tmp_path)
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        import importlib

        mine = importlib.import_module("mine")
    finally:
        sys.path.remove(str(tmp_path))
    for seed in range(3):
        save_file(mine.mlp(seed).state_dict(), tmp_path / f"w{seed}.safetensors")
    torch.save(mine.mlp(2).state_dict(), tmp_path / "w2.pt")
    weights = ["w0.safetensors", "w1.safetensors", "w2.pt"]
    write(tmp_path, base(network={"from": "mine:mlp", "weights": weights}))
    found = estimates(audit(path))
    gap = found[found["quantity"] == "gap"].iloc[0]
    assert gap["seeds"] == 3
    assert gap["method"] == "t over seeds and units"
    for quantity in ("gap_reweighted", "gap_oracle"):
        assert set(found.loc[found["quantity"] == quantity, "seeds"]) == {3}
