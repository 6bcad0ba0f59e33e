"""Random tables, files of answers, mass tables, pictures and activations, cut and changed: read as they stand, or refused
in words."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fuzzing import Draw, accepted, fuzz
from hypothesis import strategies as st
from safetensors.torch import save_file

from heldout.audits.alike import rows_of_files as rows_alike
from heldout.audits.labelled import rows_of_files
from heldout.audits.parts import Features, Similarity, SplitSpec
from heldout.errors import ConfigError, HeldoutError
from heldout.tasks.columns import GAPS, read_table
from heldout.tasks.files import Columns, read_split
from heldout.tasks.nuclear.files import fields_of, parse_mass_table, read_mass_table, read_radii
from heldout.tasks.pictures import PicturesSettings, pictures
from heldout.tasks.predictions import read_predictions
from heldout.tasks.table import Table, TableSettings

FAST, SLOW = 40, 600  # examples of each kind

CELLS = [
    "",
    "NA",
    "nan",
    "inf",
    "-1",
    "0",
    "1",
    "1.0",
    "2.5",
    "1e3",
    "1e999",
    "x",
    "é",
    "1_0",
    " 3 ",
    "True",
    "0x1",
    "9007199254740993",
    "a;b",
    '"',
    "7" * 400,
]
BYTES = [b"", b"\0", b",", b",,", b"\n", b"\r", b'"', b"\xff", b"\xef\xbb\xbf", b"nan", b"-", b"1_0", b"#"]
BYTES += [b"\x80\x04", b"<html>", b"9" * 40, b";"]


@st.composite
def spoiled(draw: Draw, data: bytes, head: int = 200) -> bytes:
    """`data` with up to three places overwritten, inserted, doubled or cut; half of them among the first `head` bytes."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(head, len(data))) | st.integers(0, len(data)))
        span = draw(st.sampled_from([0, 0, 1, 2, 8, 60]))
        way = draw(st.sampled_from(["write", "write", "write", "double", "cut", "flip"]))
        if way == "cut":
            data = data[:at]
        elif way == "double":
            data = data[: at + span] + data[at:]
        elif way == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        else:
            data = data[:at] + draw(st.sampled_from(BYTES)) + data[at + span :]
    return data


@st.composite
def sheets(draw: Draw) -> bytes:
    """A CSV with columns m, k, y, z, e: mostly right, some cells odd."""
    n = draw(st.integers(8, 24))
    rows = [[str(i % 4), f"k{i // 4}", f"{i / 7:.3f}", str(i * i), str(2000 + i % 2)] for i in range(n)]
    for _ in range(draw(st.integers(0, 3))):
        rows[draw(st.integers(0, n - 1))][draw(st.integers(0, 4))] = draw(st.sampled_from(CELLS))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["m", "k", "y", "z", "e"], *rows])
    data = text.getvalue().encode()
    return draw(spoiled(data)) if draw(st.booleans()) else data


def written(path: Path) -> list[list[str]]:
    """The cells of a CSV file as the standard library reads it: header first, without blank lines."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [[c.strip() for c in row] for row in csv.reader(file, skipinitialspace=True) if row]


def check_table(data: bytes, vintage: bool, path: Path) -> None:
    path.write_bytes(data)
    settings = TableSettings(("m", "k"), ("y", "z"), vintage="e" if vintage else None, train=0.5, select=0.2)
    table, fine = accepted(lambda: Table.read(path, settings), str(path), "table", "split")
    if not fine:
        return
    header, *rows = written(path)
    assert all(len(row) == len(header) for row in rows)
    numbers = [
        float(row[header.index(c)]) for row in rows for c in ("y", "z") if row[header.index(c)].lower() not in GAPS
    ]
    kept = [r.value for part in (table.rows, table.unscorable) for r in part.values()]
    assert np.isfinite(np.concatenate(kept)).all()
    if not vintage:  # every number is in one split, once, as it was written
        assert sorted(np.concatenate(kept).tolist()) == sorted(numbers)
    for column in table.vocabularies.values():
        assert not any(isinstance(v, float) for v in column)


def check_split(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    columns = Columns(inputs=["m", "z"], targets="y", units="k", keys="e", strata={"m": "m"})
    split, fine = accepted(lambda: read_split("id", "test", path, columns), "split 'id'")
    if not fine:
        return
    header, *rows = written(path)
    batch = split.items.take(np.arange(len(split)))
    for i, name in enumerate(("m", "z")):
        np.testing.assert_array_equal(batch.inputs[:, i].numpy(), np.float32([r[header.index(name)] for r in rows]))
    assert not any(r[header.index(c)].lower() in GAPS for r in rows for c in ("y", "k", "e"))


def check_predictions(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    found, fine = accepted(lambda: read_predictions(path), str(path))
    if fine:
        header, *rows = written(path)
        lines = [tuple(r[header.index(c)] for c in ("a", "b", "answer")) for r in rows if any(r)]
        pairs = [(int(a), int(b), c) for a, b, c in lines]
        assert list(zip(found.a, found.b, found.answers, strict=True)) == list(dict.fromkeys(pairs))


ANSWERS = "a,b,answer\n" + "".join(f"{a},{b},{a + b}\n" for a in range(6) for b in range(4))
LAYOUT = "a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6"
MASSES = f"header\nformat : {LAYOUT}\n1N-Z    N    Z   A  EL    O\n\n" + "".join(
    f"0{n - z:3d}{n:5d}{z:5d}{n + z:5d} {'Xx':>3s}{'':4s} {excess:>14s}{error:>12s}\n"
    for z, n, excess, error in [
        (1, 0, "7288.971064", "0.000013"), (2, 2, "2424.915870", "0.000150"), (3, 4, "14907.105", "0.004"),
        (8, 8, "-4737.002", "0.0003"), (20, 20, "-34846.4", "0.02"), (26, 30, "-60607#", "500#"),
    ]
)  # fmt: skip
RADII = "z,n,radius,uncertainty\n1,0,0.8783,0.0086\n2,2,1.6755,\n8,8,2.6991,0.0052\n20,20,3.4776,0.0019\n"


def check_masses(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    found, fine = accepted(lambda: read_mass_table(path), path.name, "layout")
    if fine:
        assert np.isfinite(found.mass_excess).all()
        assert (found.uncertainty >= 0).all()
        assert np.isfinite(found.uncertainty).all()
        assert ((found.a > 0) & (found.a < 1000)).all()


def check_radii(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    found, fine = accepted(lambda: read_radii(path), str(path))
    if fine:
        header, *rows = written(path)
        for values, name in ((found.z, "z"), (found.n, "n"), (found.radius, "radius")):
            assert values.tolist() == [float(row[header.index(name)]) for row in rows]
        assert not (found.uncertainty < 0).any()


def idx(array: np.ndarray) -> bytes:
    header = (2048 + array.ndim).to_bytes(4, "big") + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def picture_files() -> dict[str, bytes]:
    found = {}
    for part, n in (("train", 30), ("t10k", 12)):
        pixels = np.arange(n * 16).reshape(n, 4, 4) % 256
        found[f"{part}-images-idx3-ubyte"] = idx(pixels)
        found[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    return found


@st.composite
def picture_folders(draw: Draw) -> dict[str, bytes]:
    files = picture_files()
    name = draw(st.sampled_from(sorted(files)))
    packed = draw(st.booleans())
    data = gzip.compress(files[name], mtime=0) if packed else files[name]
    del files[name]
    return {**files, name + ".gz" * (packed and draw(st.booleans())): draw(spoiled(data, head=20))}


def check_pictures(files: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    splits, fine = accepted(lambda: pictures(PicturesSettings("mnist", str(folder))), str(folder), "pictures")
    if fine:
        for split in splits.values():
            batch = split.items.take(np.arange(len(split)))
            assert 0 <= batch.inputs.min() <= batch.inputs.max() <= 1
            assert 0 <= batch.targets.min() <= batch.targets.max() <= 9
        assert sum(len(split) for split in splits.values()) >= 3


ARRAYS: list[Callable[[int], Any]] = [
    lambda n: np.linspace(-1, 1, 3 * n).reshape(n, 3).astype(np.float32),
    lambda n: np.arange(2 * n).reshape(n, 2),
    lambda n: np.arange(2 * n).reshape(n, 2).astype(">f4"),
    lambda n: np.ones((n, 2), dtype=np.float16),
    lambda n: np.ones((n, 2), dtype=bool),
    lambda n: np.ones((n, 2), dtype=complex),
    lambda n: np.full((n, 2), np.nan),
    lambda n: np.array([["a", "b"]] * n),
    lambda n: np.array([[None, 1]] * n, dtype=object),
    lambda n: np.zeros((n, 2), dtype="datetime64[s]"),
    lambda n: np.zeros(n, dtype=[("a", float)]),
    lambda n: np.zeros((n, 0)),
    lambda n: np.zeros((0, 2)),
    lambda n: np.float64(3),
    lambda n: np.zeros((n, 2, 2)),
]


@st.composite
def activation_files(draw: Draw) -> tuple[str, bytes, bytes, bool]:
    """The suffix and the bytes of an array file, those of a table, and whether groups are asked for."""
    n = draw(st.sampled_from([20, 20, 24]))
    suffix = draw(st.sampled_from([".npz", ".npz", ".safetensors"]))
    kinds = st.sampled_from(ARRAYS[:4]) | st.sampled_from(ARRAYS)
    arrays = {name: draw(kinds)(20) for name in draw(st.sampled_from([("h",), ("h", "g"), ("x",), ()]))}
    buffer = io.BytesIO()
    if suffix == ".npz":
        way = draw(st.sampled_from([np.savez, np.savez, np.savez_compressed, "npy"]))
        if way == "npy":
            np.save(buffer, draw(kinds)(20))
        else:
            way(buffer, **arrays)
    else:
        dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
        made = {name: torch.ones(20, 2).to(draw(st.sampled_from(dtypes))) for name in arrays}
        meta = draw(st.sampled_from([None, {"heldout": "{}"}, {"heldout": "[1]"}, {"heldout": "{"}]))
        buffer.write(tensors_file(made, meta))
    table = pd.DataFrame({"kind": ["a", "b"] * (n // 2), "who": range(n)}).to_csv(index=False).encode()
    data = buffer.getvalue()
    return (
        suffix,
        draw(spoiled(data)) if draw(st.booleans()) else data,
        draw(st.just(table) | spoiled(table)),
        draw(st.booleans()),
    )


def tensors_file(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> bytes:
    from safetensors.torch import save

    return save(tensors, metadata)


def check_activations(files: tuple[str, bytes, bytes, bool], folder: Path) -> None:
    suffix, arrays, table, grouped = files
    (folder / f"a{suffix}").write_bytes(arrays)
    (folder / "a.csv").write_bytes(table)
    spec = SplitSpec(role="test", activations=f"a{suffix}", table="a.csv")
    groups = "who" if grouped else None
    rows, fine = accepted(
        lambda: rows_of_files("id", spec, Features(sites=("h",), groups=groups), folder),
        "'id'",
        "splits.id",
        "safetensors",
    )
    if fine:
        assert rows.x["h"].ndim == 2
        assert rows.x["h"].isfinite().all()
        assert all(len(column) == len(rows.x["h"]) for column in rows.table.values())
    alike = Similarity(sites=("h",), groups=groups)
    found, fine = accepted(
        lambda: rows_alike("id", spec, alike, ("h",), folder, seed=0), "'id'", "splits.id", "safetensors"
    )
    if fine:
        assert np.isfinite(found["h"]).all()


KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]] = {
    "tables": (st.tuples(sheets(), st.booleans()), lambda e, p: check_table(*e, p / "t.csv")),
    "splits": (sheets(), lambda e, p: check_split(e, p / "t.csv")),
    "answers": (spoiled(ANSWERS.encode()), lambda e, p: check_predictions(e, p / "p.csv")),
    "masses": (spoiled(MASSES.encode(), head=len(MASSES)), lambda e, p: check_masses(e, p / "mass.txt")),
    "radii": (spoiled(RADII.encode()), lambda e, p: check_radii(e, p / "radii.csv")),
    "pictures": (picture_folders(), lambda e, p: check_pictures(e, p / "pictures")),
    "activations": (activation_files(), check_activations),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files(kind: str, tmp_path: Path) -> None:
    strategy, check = KINDS[kind]
    fuzz(lambda example: check(example, tmp_path), strategy, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_files(kind: str, tmp_path: Path) -> None:
    strategy, check = KINDS[kind]
    fuzz(lambda example: check(example, tmp_path), strategy, SLOW)


# ---- what was found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m,y\n1,2,\n2,3,\n", "3 cells where the header has 2"),  # every value moved to the column before
        ("m,y\n1,2\n2\n", "1 cells where the header has 2"),
        ("m,y,y\n1,2,3\n", "'y' twice"),
        ("m,y\n1\0,2\n", "byte 0"),
    ],
)
def test_cells_that_would_move_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_table(path)
    with pytest.raises(HeldoutError, match=words):
        read_split("id", "test", path, Columns(inputs=["m"], targets="y"))
    np.savez(tmp_path / "a.npz", h=np.ones((2, 2)))
    spec = SplitSpec(role="test", activations="a.npz", table="t.csv")
    with pytest.raises(ConfigError, match=words):
        rows_of_files("id", spec, Features(sites=("h",)), tmp_path)


@pytest.mark.parametrize("cells", [[True, False], [b"1", b"2"], [2**53, 2**53 + 1], [[1], [2]]])
def test_cells_of_other_kinds_are_no_numbers(cells: list[Any], tmp_path: Path) -> None:
    pd.DataFrame({"z": cells, "n": [1, 2], "radius": [1.0, 1.0]}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(ConfigError, match="row 1, column 'z'"):
        read_radii(tmp_path / "r.parquet")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("  0.000013", "       nan"), "'nan' is no number"),
        (("  0.000013", " -0.000013"), "negative"),
        (("   7288.971064", "           inf"), "'inf' is no number"),
        ((LAYOUT, "a1,999999999i3"), "no line has"),
    ],
)
def test_masses_that_were_accepted_before(change: tuple[str, str], words: str) -> None:
    assert change[0] in MASSES
    with pytest.raises(ConfigError, match=words):
        parse_mass_table(MASSES.replace(*change, 1), "mass.txt")


def test_a_layout_ends() -> None:
    with pytest.raises(ConfigError, match="no line has"):
        fields_of("a1,i99999999999")


def test_radii_that_were_accepted_before(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for row, words in (("1,1000,1,", "at most 999"), ("1,0,1,-0.1", "negative"), ("1_0,0,1,", "'1_0'")):
        path.write_text(f"z,n,radius,uncertainty\n{row}\n")
        with pytest.raises(ConfigError, match=words):
            read_radii(path)


def test_a_gap_beside_text_is_no_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,who\n1,a\n2,\n")
    with pytest.raises(HeldoutError, match="column 'who': item 1 is missing"):
        read_split("id", "test", path, Columns(inputs="x", units="who"))


def test_numbers_beyond_single_precision_do_not_become_infinite(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("z,n,radius,x\n1,1,1e40,1e40\n")
    with pytest.raises(ConfigError, match="row 1, column 'radius'"):
        read_radii(path)
    with pytest.raises(HeldoutError, match=r"column 'x': 1e\+40 is beyond single precision"):
        read_split("id", "test", path, Columns(inputs="x"))


def test_text_where_numbers_are_needed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,a\n2,b\n")
    for columns in (Columns(inputs="x", targets="y"), Columns(inputs="y"), Columns(inputs="x", strata={"y": "y"})):
        with pytest.raises(HeldoutError, match=r"column 'y' holds .*; numbers are needed"):
            read_split("id", "test", path, columns)


def test_damaged_arrays_are_refused_in_words(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", h=np.ones((20, 2)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.csv").write_text("kind\n" + "a\nb\n" * 10)
    spec = SplitSpec(role="test", activations="a.npz", table="a.csv")
    single = io.BytesIO()
    np.save(single, np.ones((20, 2)))
    for data in (whole[:-30], whole[:100], b"PK\x03\x04", b"", single.getvalue()):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(ConfigError, match=r"splits.id.activations: .*a.npz cannot be read as arrays"):
            rows_of_files("id", spec, Features(sites=("h",)), tmp_path)
    for array, words in (
        (np.array([["a"]] * 20), "real numbers"),
        (np.full((20, 2), np.nan), "NaN"),
        (np.ones(20), "shape"),
    ):
        np.savez(tmp_path / "a.npz", h=array)
        with pytest.raises(HeldoutError, match=words):
            rows_of_files("id", spec, Features(sites=("h",)), tmp_path)


def test_complex_tensors_keep_no_real_part(tmp_path: Path) -> None:
    save_file({"h": torch.ones(4, 2, dtype=torch.complex64)}, tmp_path / "a.safetensors")
    (tmp_path / "a.csv").write_text("kind\na\nb\na\nb\n")
    spec = SplitSpec(role="test", activations="a.safetensors", table="a.csv")
    with pytest.raises(ConfigError, match="complex64; real numbers"):
        rows_of_files("id", spec, Features(sites=("h",)), tmp_path)
