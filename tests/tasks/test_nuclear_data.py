"""The package's mass table, an evaluation's own text, radii, and what is refused in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heldout.errors import ConfigError
from heldout.tasks.nuclear import VINTAGES, Nuclides, masses, nucleus_keys, read_mass_table, read_radii
from heldout.tasks.nuclear.nuclides import check_keV

OLD = "format    :  a1,i3,i5,i5,i5,1x,a3,a4,1x,f13.5,f11.5,f11.3,f9.3"
NEW = "format    :  a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6,f15.5,f11.5"
HEADING = "1N-Z    N    Z   A  EL    O     MASS EXCESS           BINDING ENERGY/A\n                      (keV)"
OLD_LINES = """\
0  1    1    0    1  n         8071.31710    0.00053      0.0      0.0   B-    782.347    0.001
  -1    0    1    1 H          7288.97050    0.00011      0.0      0.0   B-      *
  -3    0    3    3 Li  -pp   28667#      2000#       -2267#     667#    B-      *"""
NEW_LINES = """\
0  1    1    0    1  n         8071.31806     0.00044       0.0        0.0     B-    782.3470     0.0004
  -1    0    1    1 H          7288.971064    0.000013      0.0        0.0     B-      *
  -3    0    3    3 Li  -pp   28667#       2000#        -2267#       667#      B-      *"""


def write(path: Path, layout: str, lines: str) -> Path:
    path.write_text("\n".join(["a title", layout, HEADING, lines, ""]), newline="\r\n")
    return path


@pytest.mark.parametrize(
    ("vintage", "measured", "estimated"), [(2003, 2228, 951), (2012, 2438, 915), (2016, 2498, 938), (2020, 2550, 1008)]
)
def test_as_many_nuclides_as_the_evaluations_list(vintage: int, measured: int, estimated: int) -> None:
    table = masses(vintage)
    assert (table.measured.sum(), (~table.measured).sum()) == (measured, estimated)
    assert len(np.unique(table.keys)) == len(table)
    assert np.isfinite(table.mass_excess).all()
    assert (table.uncertainty >= 0).all()
    check_keV(table)


def test_values_are_those_of_the_source_to_the_last_digit() -> None:
    table = masses(2020)
    row = table.row_of(1, 0)
    assert (table.mass_excess[row], table.uncertainty[row], table.measured[row]) == (7288.971064, 0.000013, True)
    row = table.row_of(118, 177)
    assert (table.mass_excess[row], table.uncertainty[row], table.measured[row]) == (201369.0, 655.0, False)
    assert masses(2003).mass_excess[masses(2003).row_of(2, 1)] == 14931.21475
    carbon = table.row_of(6, 6)
    assert table.mass_excess[carbon] == table.uncertainty[carbon] == 0  # by definition


def test_the_table_cannot_be_changed_by_its_users() -> None:
    table = masses(2020)
    before = table.mass_excess.copy()
    table.mass_excess[:] = 0  # a copy of theirs
    assert np.array_equal(masses(2020).mass_excess, before)


def test_nuclides_are_found_by_key() -> None:
    table = masses(2016).only(masses(2016).z > 100)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table.only(order)
    assert np.array_equal(shuffled.find(table.keys), np.argsort(order))
    assert shuffled.find(nucleus_keys(np.array([6, 200]), np.array([6, 399]))).tolist() == [-1, -1]
    with pytest.raises(ConfigError, match="Z=6, N=6 is not listed"):
        table.row_of(6, 6)


def test_another_vintage_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"of 2010 .*2003, 2012, 2016, 2020"):
        masses(2010)
    assert VINTAGES == (2003, 2012, 2016, 2020)


@pytest.mark.parametrize(("layout", "lines"), [(OLD, OLD_LINES), (NEW, NEW_LINES)])
def test_an_evaluations_text_is_read_by_the_format_in_its_header(tmp_path: Path, layout: str, lines: str) -> None:
    table = read_mass_table(write(tmp_path / "mass.txt", layout, lines))
    assert list(zip(table.z.tolist(), table.n.tolist(), strict=True)) == [(0, 1), (1, 0), (3, 0)]
    assert table.measured.tolist() == [True, True, False]
    assert table.mass_excess.tolist() == pytest.approx([8071.317, 7288.971, 28667], abs=2e-3)
    assert table.uncertainty.tolist() == pytest.approx([0.0005, 0.00006, 2000], abs=1e-4)
    told = read_mass_table(
        write(tmp_path / "told.txt", "no format here", lines), layout=layout.split(":")[1].strip(), name="mine"
    )
    assert told.name == "mine"
    assert np.array_equal(told.mass_excess, table.mass_excess)


def test_pages_of_a_text_are_read_one_after_another(tmp_path: Path) -> None:
    first, *rest = NEW_LINES.splitlines()
    table = read_mass_table(write(tmp_path / "mass.txt", NEW, "\n".join([first, "", HEADING, *rest])))
    assert len(table) == 3


@pytest.mark.parametrize(
    ("layout", "old", "new", "message"),
    [
        (NEW, "  -1    0    1    1", "  -1    0    1    2", "line 6: N=0 and Z=1 do not add up to A=2"),
        (NEW, "  -1    0    1    1", "  -1    0    x    1", "line 6, column 'Z' .*'x' is no whole number"),
        (NEW, "7288.971064", "7288.97l064", "line 6, column 'mass excess' .*'7288.97l064' is no number"),
        (NEW, "0.000013 ", "*        ", "line 6, column 'uncertainty' .*no number"),
        (OLD, "zzz", "zzz", "line 5, column 'uncertainty' .*goes on beyond"),
        ("no format", "zzz", "zzz", "gives the format"),
        ("format : a1,i3,z5", "zzz", "zzz", "'z5' is no Fortran edit"),
        ("format : a1,i3", "zzz", "zzz", "has 2 fields; at least 9"),
        (NEW, "  -3    0    3    3", "  -1    0    1    1", "line 6 and line 7 are both Z=1, N=0"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, layout: str, old: str, new: str, message: str) -> None:
    path = write(tmp_path / "mass.txt", layout, NEW_LINES.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_mass_table(path)


def test_files_that_are_no_mass_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_mass_table(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not ASCII"):
        read_mass_table(tmp_path / "b.txt")
    with pytest.raises(ConfigError, match="no line of data"):
        read_mass_table(write(tmp_path / "empty.txt", NEW, ""))


def scaled(table: Nuclides, by: float, rows: slice = slice(None)) -> Nuclides:
    mass_excess = table.mass_excess.copy()
    mass_excess[rows] *= by
    return Nuclides(table.z, table.n, mass_excess, table.uncertainty, table.measured, "mine")


def test_masses_in_another_unit_are_seen() -> None:
    with pytest.raises(ConfigError, match="look like MeV; give keV"):
        check_keV(scaled(masses(2020), 1e-3))
    with pytest.raises(ConfigError, match="look like eV; give keV"):
        check_keV(scaled(masses(2020), 1e3))
    row = masses(2020).row_of(50, 70)
    for by in (1e-3, 1e3):
        with pytest.raises(ConfigError, match=f"row {row}: .* for Z=50, N=70 is beyond anything known"):
            check_keV(scaled(masses(2020), by, slice(row, row + 1)))


def test_a_nucleus_given_twice_is_refused() -> None:
    one = np.array([8, 8])
    with pytest.raises(ConfigError, match="Z=8, N=8 stands in rows 0 and 1"):
        Nuclides(one, one, one * 0.0, one * 0.0, one > 0)
    with pytest.raises(ConfigError, match="equally long"):
        Nuclides(one, one[:1], one * 0.0, one * 0.0, one > 0)


def test_radii_are_read_and_judged(tmp_path: Path) -> None:
    path = tmp_path / "radii.csv"
    path.write_text("z,n,radius,uncertainty\n1,0,0.8783,0.0086\n2,2,1.6755,\n")
    radii = read_radii(path)
    assert radii.radius.tolist() == [0.8783, 1.6755]
    assert np.isnan(radii.uncertainty).tolist() == [False, True]
    for text, message in [
        ("z,n,radius\n1,0,878.3\n", "row 1, column 'radius': 878.3 is outside 0.5 to 10 fm"),
        ("z,n,radius\n1,0,0.88\n1,0,0.89\n", "row 1 and row 2 are both Z=1, N=0"),
        ("z,n,radius\n1,0,\n", "row 1, column 'radius': '' is not accepted"),
        ("z,n,radius\n1,-1,2\n", "row 1, column 'n': -1 is not accepted; a whole number of at least 0 is"),
        ("z,n,r\n1,0,2\n", "no column 'radius'"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_radii(path)
