"""The same items from every format; sequences padded; next tokens; bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from heldout.errors import SplitError
from heldout.tasks.files import Columns, read_split, unit_numbers
from heldout.tasks.targets import NextToken

A, B = [0.5, 1.5, -2.0], [1.0, 2.0, 3.0]
LABELS, WHO = [0, 2, 1], ["x", "x", "y"]
TOKENS = [[3, 1, 4], [1, 5], [9, 2, 6, 5]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    frame = pd.DataFrame({"a": A, "b": B, "label": LABELS, "who": WHO})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.assign(tokens=TOKENS).to_parquet(tmp_path / "t.parquet")
    rows = frame.assign(tokens=TOKENS).to_dict("records")
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    save_file({"a": torch.tensor(A), "b": torch.tensor(B), "label": torch.tensor(LABELS)}, tmp_path / "t.safetensors")
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "safetensors"])
def test_every_format_gives_the_same_items(files: Path, suffix: str) -> None:
    units = None if suffix == "safetensors" else "who"
    split = read_split("id", "test", files / f"t.{suffix}", Columns(inputs=["a", "b"], targets="label", units=units))
    batch = next(split.batches(10))
    assert torch.equal(batch.inputs, torch.tensor([A, B]).T)
    assert batch.targets is not None
    assert batch.targets.tolist() == LABELS
    if units:
        first, second, third = split.unit_ids()
        assert first == second != third


def test_text_units_are_the_same_in_every_file() -> None:
    assert unit_numbers(["x", "y"]).tolist() == unit_numbers(np.array(["x", "y"])).tolist()
    assert unit_numbers([7, 7]).tolist() == [7, 7]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_sequences_are_padded_in_batches_with_a_mask(files: Path, suffix: str) -> None:
    columns = Columns(
        inputs={"ids": "tokens"}, targets="label", mask_argument="attention_mask", padding_argument="gone", pad=7
    )
    split = read_split("id", "test", files / f"t.{suffix}", columns)
    batch = split.items.take(np.array([0, 1]))
    assert batch.inputs["ids"].tolist() == [[3, 1, 4], [1, 5, 7]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.inputs["gone"].tolist() == [[False] * 3, [False, False, True]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True] * 3, [True, True, False]]
    assert split.items.lengths.tolist() == [3, 2, 4]
    again = read_split("id", "test", files / f"t.{suffix}", columns)
    assert again.keys is not None
    assert split.keys is not None
    assert again.keys.tolist() == split.keys.tolist()
    assert len(set(split.keys)) == 3


def test_the_next_token_is_the_target_and_the_last_position_has_none(files: Path) -> None:
    split = read_split("id", "test", files / "t.jsonl", Columns(inputs="tokens"))
    batch = NextToken(split.items).take(np.array([1, 2]))
    assert batch.targets is not None
    assert batch.scored is not None
    assert batch.scored.tolist() == [[True, False, False, False], [True, True, True, False]]
    assert batch.targets[batch.scored].tolist() == [5, 2, 6, 5]


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("t.csv", Columns(inputs=["a", "bb"]), ["no column 'bb'", "b"]),
        ("t.csv", Columns(inputs=["a", "who"]), ["no column of single numbers"]),
        ("t.csv", Columns(inputs="a", mask="label"), ["other values than 0 and 1"]),
        ("t.csv", Columns(inputs="a", mask_argument="m"), ["mapping"]),
        ("u.csv", Columns(inputs="a"), ["does not exist", "t.csv"]),
        ("t.pkl", Columns(inputs="a"), ["nothing is unpickled"]),
        ("t.txt", Columns(inputs="a"), [".parquet"]),
        ("bad.parquet", Columns(inputs="a"), ["cannot be read"]),
        ("holes.csv", Columns(inputs="a"), ["item 1 is missing"]),
        ("uneven.jsonl", Columns(inputs="a", targets="b"), ["item 1 has 2 positions in 'inputs' and 1 in 'targets'"]),
        ("empty.jsonl", Columns(inputs="a"), ["item 0", "is empty"]),
    ],
)
def test_bad_files(files: Path, name: str, columns: Columns, words: list[str]) -> None:
    (files / "bad.parquet").write_text("no")
    (files / "holes.csv").write_text("a,b\n1,2\n,3\n")
    (files / "uneven.jsonl").write_text('{"a": [1, 2, 3], "b": [1, 2, 3]}\n{"a": [1, 2], "b": [1]}\n')
    (files / "empty.jsonl").write_text('{"a": []}\n{"a": [1]}\n')
    with pytest.raises(SplitError) as error:
        next(read_split("id", "test", files / name, columns).batches(10))
    assert all(word in str(error.value) for word in [*words, "mapping" if columns.mask_argument else name]), error.value
