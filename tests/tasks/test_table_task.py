"""A table of one's own: vocabularies, gaps, groups, editions, and what is refused, by row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Rectangular
from heldout.tasks.table import Table, TableSettings

SETTINGS = TableSettings(tokens=("metal", "site"), targets=("hardness",), train=0.6, select=0.2)


def frame(n: int = 12) -> pd.DataFrame:
    metals = ["copper", "tin", "zinc", "iron"]
    rows = [
        {
            "metal": m,
            "site": s,
            "hardness": 10.0 * i + s,
            "cost": float(s) if s % 3 else np.nan,
            "error": 0.5,
            "lab": (i + s) % 5,
        }
        for i, m in enumerate(metals)
        for s in range(2, 2 + n)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0).reset_index(drop=True)


def write(path: Path, table: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def inputs(task: Table, split: str) -> np.ndarray:
    found = task.splits[split].items
    assert isinstance(found, Rectangular)
    return np.asarray(found.inputs.numpy())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tokens_and_values_come_back_as_they_stand(tmp_path: Path, suffix: str) -> None:
    table = frame()
    task = Table.read(write(tmp_path / f"table{suffix}", table), SETTINGS, seed=1)
    assert task.vocabularies == {"metal": ("copper", "iron", "tin", "zinc"), "site": tuple(range(2, 14))}
    assert task.sizes == (4, 12)
    written = {(r.metal, r.site): r.hardness for r in table.itertuples()}
    seen = []
    for name in ("train", "select", "id"):
        for (metal, site), value in zip(inputs(task, name).tolist(), task.rows[name].value, strict=True):
            this = (task.vocabularies["metal"][metal], task.vocabularies["site"][site])
            assert written[this] == value
            seen.append(this)
    assert len(seen) + sum(map(len, task.unscorable.values())) == len(set(seen)) + sum(
        map(len, task.unscorable.values())
    )
    assert len(seen) + sum(map(len, task.unscorable.values())) == len(table)


def test_gaps_are_left_out_and_uncertainties_kept(tmp_path: Path) -> None:
    table = frame()
    settings = TableSettings(
        tokens=("metal", "site"), targets=("hardness", "cost"), uncertainty={"cost": "error"}, train=0.6, select=0.2
    )
    task = Table.read(write(tmp_path / "table.csv", table), settings)
    rows = [*task.rows.values(), *task.unscorable.values()]
    counts = np.bincount(np.concatenate([r.target for r in rows]))
    assert counts.tolist() == [len(table), int(table["cost"].notna().sum())]
    for r in rows:
        assert (r.uncertainty[r.target == 1] == 0.5).all()
        assert np.isnan(r.uncertainty[r.target == 0]).all()
    assert task.sizes == (4, 12, 2)
    assert inputs(task, "id").shape[1] == 3
    assert set(inputs(task, "id")[:, 2].tolist()) == {0, 1}


def test_a_group_is_in_one_split_and_one_unit(tmp_path: Path) -> None:
    settings = TableSettings(tokens=("metal", "site"), targets=("hardness",), group="lab", train=0.5, select=0.25)
    task = Table.read(write(tmp_path / "table.csv", frame()), settings, seed=3)
    every = {name: [task.rows[name], task.unscorable[name]] for name in task.splits}
    order = [["copper", "tin", "zinc", "iron"].index(m) for m in task.vocabularies["metal"]]
    groups = {name: set(np.concatenate([r.unit for r in parts]).tolist()) for name, parts in every.items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 5
    for parts in every.values():
        for r in parts:
            assert np.array_equal(r.unit, (np.array(order)[r.tokens[:, 0]] + r.tokens[:, 1] + 2) % 5)


def test_rows_with_a_token_that_was_not_trained_are_counted(tmp_path: Path) -> None:
    table = pd.concat(
        [
            frame(),
            pd.DataFrame(
                [{"metal": "lead", "site": 2, "hardness": 1.0}, {"metal": "gold", "site": 99, "hardness": 2.0}]
            ),
        ]
    )
    seeds = [Table.read(write(tmp_path / "table.csv", table), SETTINGS, seed=s) for s in range(6)]
    assert any(sum(map(len, t.unscorable.values())) for t in seeds)
    for task in seeds:
        total = sum(len(task.rows[n]) + len(task.unscorable[n]) for n in task.rows)
        assert total == len(table)
        assert len(task.unscorable["train"]) == 0
        for name in ("select", "id"):
            assert np.isin(task.rows[name].tokens[:, 0], task.tokens["metal"]).all()
            left = task.unscorable[name].tokens
            assert not (np.isin(left[:, 0], task.tokens["metal"]) & np.isin(left[:, 1], task.tokens["site"])).any()


def editions(*rows: tuple[str, int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["metal", "site", "year", "hardness"])


def by_year(until: float | None = None) -> TableSettings:
    return TableSettings(("metal", "site"), ("hardness",), vintage="year", until=until, train=0.7, select=0.1)


def test_a_later_edition_is_tested_on_what_it_has_first(tmp_path: Path) -> None:
    old = [(m, s, 2003, 1.0 * s) for m in ("tin", "zinc") for s in range(10) if (m, s) != ("zinc", 5)]
    revised = [("tin", s, 2012, 100.0 + s) for s in range(4)]
    first = [("zinc", 5, 2012, 7.5), ("tin", 10, 2012, 3.5), ("zinc", 10, 2020, 5.5), ("iron", 4, 2020, 6.5)]
    again = [("tin", 3, 2020, -1.0), ("tin", 9, 2020, -1.0)]
    path = write(tmp_path / "table.csv", editions(*again, *old, *revised, *first))

    def values(task: Table, *names: str) -> list[float]:
        parts = [r.value for name in names for r in (task.rows[name], task.unscorable[name])]
        return sorted(np.concatenate(parts).tolist())

    seeds = range(20)
    task = next(t for s in seeds if 10 in (t := Table.read(path, by_year(2012), s)).rows["train"].tokens[:, 1])
    assert (task.superseded, task.revised) == (4, 2)
    expected = [100.0, 101, 102, 103, *range(4, 10), *range(5), *range(6, 10), 7.5, 3.5]
    assert values(task, "train", "select", "id") == sorted(expected)
    assert values(task, "new") == [5.5, 6.5]
    assert task.unscorable["new"].value.tolist() == [6.5]  # iron was never trained
    assert Table.read(path, by_year(), task.seed).until == 2012

    earlier = Table.read(path, by_year(2003), seed=4)
    assert (earlier.superseded, earlier.revised) == (0, 6)
    assert values(earlier, "new") == [3.5, 5.5, 6.5, 7.5]
    assert earlier.rows["new"].value.tolist() == [7.5]
    for until, use in ((2020, "test"), (1999, "train")):
        with pytest.raises(
            ConfigError, match=f"until={until} leaves no edition of column 'year' to {use} on; there are 2003"
        ):
            Table.read(path, by_year(until))


def test_values_of_ones_own_are_encoded_or_refused_by_row(tmp_path: Path) -> None:
    task = Table.read(write(tmp_path / "table.csv", frame()), SETTINGS)
    assert task.encode({"metal": ["tin", "copper"], "site": [2, 13]}).tolist() == [[2, 0], [0, 11]]
    with pytest.raises(ConfigError, match=r"row 2, column 'metal': 'tim' is not known; .*tin"):
        task.encode({"metal": ["tin", "tim"], "site": [2, 3]})
    with pytest.raises(ConfigError, match="column 'site' is missing"):
        task.encode({"metal": ["tin"]})
    lone = pd.concat([frame(), pd.DataFrame([{"metal": "lead", "site": 2, "hardness": 1.0}])])
    tasks = (Table.read(write(tmp_path / "lone.csv", lone), SETTINGS, seed=s) for s in range(20))
    untrained = next(t for t in tasks if sum(map(len, t.unscorable.values())))
    with pytest.raises(
        ConfigError, match="row 1, column 'metal': no training row has lead; trained are 4 tokens from copper"
    ):
        untrained.encode({"metal": ["lead"], "site": [2]})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "copper,3,1.5",
            "copper,3,soft",
            "row 1, column 'hardness': 'soft' is not accepted; a finite number, or nothing",
        ),
        ("copper,3,1.5", "copper,3,inf", "row 1, column 'hardness': 'inf'"),
        ("copper,3,1.5", ",3,1.5", "row 1, column 'metal' is empty"),
        ("copper,3,1.5", "copper,3.5,1.5", "row 1, column 'site': 3.5 is not accepted; a whole number"),
        ("tin,4", "copper,3", "rows 1 and 2 are both metal=copper, site=3; give each once"),
        ("metal,", "mettal,", "no column 'metal'; choose from mettal"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("metal,site,hardness\ncopper,3,1.5\ntin,4,2.5\n".replace(old, new))
    with pytest.raises(ConfigError, match=message):
        Table.read(path, SETTINGS)


def test_files_and_splits_that_are_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Table.read(tmp_path / "none.csv", SETTINGS)
    with pytest.raises(ConfigError, match=r"accepted are \.csv and \.parquet"):
        Table.read(tmp_path / "table.pkl", SETTINGS)
    (tmp_path / "head.csv").write_text("metal,site,hardness\n")
    with pytest.raises(ConfigError, match="no row below its header"):
        Table.read(tmp_path / "head.csv", SETTINGS)
    table = frame()
    table["hardness"] = np.where(np.arange(len(table)) == 0, table["hardness"], np.nan)
    with pytest.raises(SplitError, match="has no row of target 'hardness'"):
        Table.read(write(tmp_path / "gaps.csv", table), SETTINGS)
    table = frame().assign(error=-1.0)
    with pytest.raises(
        ConfigError, match="row 1, column 'error': -1 is not accepted; a standard deviation of at least 0"
    ):
        Table.read(
            write(tmp_path / "negative.csv", table),
            TableSettings(tokens=("metal", "site"), targets=("hardness",), uncertainty={"hardness": "error"}),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": ()}, "tokens must name at least one column"),
        ({"targets": ("metal",)}, "column 'metal' is named twice"),
        ({"tokens": ("target",)}, "cannot be called 'target'"),
        ({"uncertainty": {"cost": "error"}}, "'cost', which is no target"),
        ({"until": 2003.0}, "until=2003 needs vintage"),
        ({"select": 0.5}, "add up to less than 1"),
    ],
)
def test_settings_of_a_table_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableSettings(**{"tokens": ("metal", "site"), "targets": ("hardness",), **settings})
