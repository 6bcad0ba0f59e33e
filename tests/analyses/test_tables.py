"""Rows of the scores table are sums over groups, as pandas makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import torch

from heldout.analyses.tables import Folder, Groups, Memory
from heldout.errors import EvidenceError
from heldout.evidence import Cell, Origin, read_scores

RNG = np.random.default_rng(0)
M = 200
LABELS = {"unit": RNG.integers(-5, 40, M), "depth": RNG.integers(0, 3, M), "bin": RNG.integers(0, 4, M)}
VALUES = {"kl": torch.from_numpy(RNG.normal(size=M)), "same": torch.from_numpy(RNG.random(M) < 0.5)}


def test_sums_equal_a_pandas_groupby() -> None:
    found = Groups(LABELS).sums(VALUES)
    frame = pd.DataFrame({**LABELS, **{k: v.numpy().astype(float) for k, v in VALUES.items()}, "n": 1.0})
    expected = frame.groupby(["unit", "depth", "bin"]).sum().reset_index()
    assert len(expected) < M  # some rows did fall together
    for name in expected.columns:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)
        assert name in LABELS or found[name].dtype == np.float64


def test_many_strata_with_many_values_stay_apart() -> None:
    """Numbered by their product, 2 x 4096^6 groups would leave 64 bits, and rows that differ in the first label meet."""
    labels = {"unit": np.arange(8192) // 4096} | {str(i): np.arange(8192) % 4096 for i in range(6)}
    found = Groups(labels).sums({})
    assert found["n"].tolist() == [1.0] * 8192
    assert len(set(zip(*(found[k] for k in labels), strict=True))) == 8192


def test_a_stratum_called_n_is_not_taken_for_the_number_of_predictions() -> None:
    """Draws of one edit are counted once each, whatever the strata are called."""
    groups = Groups({"unit": LABELS["unit"], "n": LABELS["depth"]})
    one = groups.sums(VALUES)
    assert one["n"].sum() == M
    np.testing.assert_array_equal(np.unique(one["n_"]), [0, 1, 2])
    joined = groups.join([one, groups.sums(VALUES)])
    assert joined["n"].sum() == 2 * M
    np.testing.assert_allclose(joined["kl"], 2 * one["kl"])
    np.testing.assert_array_equal(joined["n_"], one["n_"])


def test_no_predictions_are_no_rows() -> None:
    found = Groups({"unit": np.array([], dtype=np.int64)}).sums({"kl": torch.tensor([])})
    assert [len(v) for v in found.values()] == [0, 0, 0]


def test_float32_values_are_summed_in_float64() -> None:
    n = 100_000
    found = Groups({"unit": np.zeros(n, dtype=np.int64)}).sums({"kl": torch.full((n,), 0.1)})
    assert found["kl"][0] == pytest.approx(n * float(torch.tensor(0.1)), rel=1e-12)


def test_a_folder_holds_what_memory_holds(tmp_path: Path) -> None:
    memory = Memory()
    cells = [small.cell("id"), small.cell("rotated"), small.cell("id", parameter=4.0)]
    with Folder(tmp_path) as folder:
        for i, cell in enumerate([*cells, *cells]):
            for sink in (memory, folder):
                sink.add(cell, {"unit": np.arange(3) + i, "n": np.ones(3)})
    read = [read_scores(p) for p in sorted(tmp_path.iterdir())]
    assert {c.filename for c, _ in read} == set(memory.parts)
    for cell, found in read:
        kept, parts = memory.parts[cell.filename]
        assert kept == cell
        np.testing.assert_array_equal(found["unit"], np.concatenate([p["unit"] for p in parts]))


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_two_edits_of_one_name_are_refused_and_not_averaged(kind: str, tmp_path: Path) -> None:
    sink = Memory() if kind == "memory" else Folder(tmp_path)
    rows = {"unit": np.arange(2), "n": np.ones(2)}
    sink.add(Cell("t", "n", 0, "id", Origin("keep", "here", settings={"components": [0, 1]})), rows)
    with pytest.raises(EvidenceError, match=r"both called 'keep' at here on split 'id'.*another name"):
        sink.add(Cell("t", "n", 0, "id", Origin("keep", "here", settings={"components": [2, 3]})), rows)


def test_parts_are_whole_after_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with Folder(tmp_path) as folder:
            folder.add(small.cell(), {"unit": np.arange(2), "n": np.ones(2)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read_scores(next(tmp_path.iterdir()))[1]["unit"].tolist() == [0, 1]
