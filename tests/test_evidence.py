"""The two tables: what is written is read back, streamed or not, and nothing else is taken for one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heldout.errors import EvidenceError
from heldout.evidence import (
    Cell,
    Estimate,
    Origin,
    ScoresWriter,
    estimates_frame,
    read_estimates,
    read_scores,
    write_estimates,
)

ORIGIN = Origin("svd", "blocks.0", "fit", 8, True, {"centred": False, "heads": [1, 2]})
CELL = Cell("digits", "mlp", 3, "rotated", ORIGIN)


def columns(n: int, start: int = 0) -> dict[str, np.ndarray]:
    unit = np.arange(start, start + n)
    return {"unit": unit, "n": np.ones(n), "same": unit / 3, "depth": unit % 4}


def test_a_part_comes_back_with_its_cell(tmp_path: Path) -> None:
    writer = ScoresWriter(tmp_path / "part.parquet", CELL)
    writer.add(columns(5))
    writer.close()
    cell, found = read_scores(tmp_path / "part.parquet")
    assert cell == CELL
    assert list(found) == ["unit", "n", "same", "depth"]
    for name, values in columns(5).items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_many_small_additions_are_one_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoresWriter, "ROWS", 7)
    writer, most = ScoresWriter(tmp_path / "many.parquet", CELL), 0
    for start in range(0, 60, 3):
        writer.add(columns(3, start))
        most = max(most, writer._rows)
    writer.close()
    assert most < 7  # memory does not grow with the table
    assert pq.ParquetFile(tmp_path / "many.parquet").num_row_groups > 1
    _, found = read_scores(tmp_path / "many.parquet")
    for name, values in columns(60).items():
        np.testing.assert_array_equal(found[name], values)


def test_rows_without_a_unit_or_a_weight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"\['n'\] missing"):
        ScoresWriter(tmp_path / "part.parquet", CELL).add({"unit": np.arange(3)})


@pytest.mark.parametrize("other", [{"kl": np.ones(2)}, {}])
def test_rows_of_other_columns_are_refused_and_not_dropped(tmp_path: Path, other: dict[str, np.ndarray]) -> None:
    writer = ScoresWriter(tmp_path / "part.parquet", CELL)
    writer.add(columns(2))
    wrong = {k: v for k, v in columns(2).items() if k != "same" or other} | other
    with pytest.raises(EvidenceError, match="has the columns depth, n, same, unit"):
        writer.add(wrong)


def test_file_names_tell_cells_apart() -> None:
    others = [
        replace(CELL, seed=4),
        replace(CELL, network="cnn"),
        replace(CELL, split="id"),
        replace(CELL, edit=replace(ORIGIN, site="blocks_0")),
        replace(CELL, edit=replace(ORIGIN, parameter=16)),
        replace(CELL, edit=replace(ORIGIN, oracle=False)),
        replace(CELL, edit=replace(ORIGIN, name="svd+null")),
        replace(CELL, edit=replace(ORIGIN, site=" + ".join(f"model.layers.{i}.mlp" for i in range(64)))),
        replace(CELL, split="a/../b"),
        replace(CELL, split="a/../b".replace("/", ":")),
    ]
    names = {c.filename for c in [CELL, *others]}
    assert len(names) == len(others) + 1
    assert all(len(name) < 255 and "/" not in name for name in names)


def _text(path: Path) -> None:
    path.write_text("not a table")


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"unit": [1], "n": [1.0]}), path)


def _other_kind(path: Path) -> None:
    write_estimates(path, [Estimate("gap", 0.1)])


def _missing(path: Path) -> None:
    pass


def _other_format(path: Path) -> None:
    table = pa.table({"unit": [1]})
    record = b'{"format": 99, "table": "scores", "cell": {"from": "the future"}}'
    pq.write_table(table.replace_schema_metadata({b"heldout": record}), path)


@pytest.mark.parametrize("make", [_text, _foreign, _other_kind, _missing, _other_format])
def test_other_files_are_refused_as_scores(tmp_path: Path, make: object) -> None:
    path = tmp_path / "some.parquet"
    make(path)  # type: ignore[operator]
    with pytest.raises(EvidenceError, match=r"some\.parquet"):
        read_scores(path)


@pytest.mark.parametrize("make", [_text, _foreign, _missing])
def test_other_files_are_refused_as_estimates(tmp_path: Path, make: object) -> None:
    path = tmp_path / "some.parquet"
    make(path)  # type: ignore[operator]
    with pytest.raises(EvidenceError, match=r"some\.parquet"):
        read_estimates(path)


def test_estimates_come_back(tmp_path: Path) -> None:
    rows = [
        Estimate("gap", 0.25, 0.2, 0.3, "t", 0.01, n=40, seeds=5, split="rotated", parameter=8.0),
        Estimate("kappa", math.nan, reason="no errors", seed=3, oracle=True),
    ]
    write_estimates(tmp_path / "a.parquet", rows)
    write_estimates(tmp_path / "b.parquet", rows[:1])
    found = read_estimates([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    pd.testing.assert_frame_equal(found, estimates_frame([*rows, rows[0]]))
    assert found["seed"].isna().tolist() == [True, False, True]
    assert found["reason"].tolist() == ["", "no errors", ""]


def test_no_value_needs_a_reason() -> None:
    with pytest.raises(EvidenceError, match="gives no reason"):
        Estimate("gap", math.nan)
    assert math.isnan(Estimate("gap", math.nan, reason="empty").value)


def test_no_files_are_no_estimates() -> None:
    with pytest.raises(EvidenceError, match="no estimates"):
        read_estimates([])


@pytest.mark.parametrize(
    ("origin", "label"),
    [
        (Origin("mean"), "mean"),
        (Origin("svd", parameter=8), "svd-8"),
        (Origin("keep", parameter=0.5), "keep-0.5"),
        (Origin("kmeans", parameter=16, oracle=True), "kmeans-16-oracle"),
    ],
)
def test_labels(origin: Origin, label: str) -> None:
    assert origin.label == label


def test_blocks_grow_with_their_rows_and_to_the_wider_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoresWriter, "FIRST", 2)
    writer = ScoresWriter(tmp_path / "part.parquet", CELL)
    for start in range(0, 60, 3):
        given = columns(3, start)
        writer.add(given | {"same": given["same"].astype(np.int64)} if start == 0 else given)
    writer.close()
    _, found = read_scores(tmp_path / "part.parquet")
    expected = columns(60)
    expected["same"][:3] = expected["same"][:3].astype(np.int64)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
