"""The nuclear task's splits: who is where, what is counted, what leaks, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Rectangular
from heldout.tasks.nuclear import ENERGIES, REGIONS, Nuclear, NuclearSettings, Nuclides, Radii, derive, masses
from heldout.tasks.nuclear.formulas import SEMF
from heldout.tasks.nuclear.leaks import GROUND, determined, ends
from heldout.tasks.rows import Rows


def items(task: Nuclear, split: str) -> Rectangular:
    found = task.splits[split].items
    assert isinstance(found, Rectangular)
    assert found.targets is not None
    return found


def everyone(task: Nuclear, split: str) -> np.ndarray:
    return np.unique(np.concatenate([task.rows[split].key, task.unscorable[split].key]))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_nucleus_is_in_two_splits_and_none_is_lost(seed: int) -> None:
    task = Nuclear(NuclearSettings(), seed)
    keys = [everyone(task, name) for name in task.splits]
    assert sum(map(len, keys)) == len(np.unique(np.concatenate(keys))) == 2457
    assert [len(k) for k in keys] == [1966, 245, 246]
    assert {name: split.role for name, split in task.splits.items()} == {
        "train": "fit",
        "select": "select",
        "id": "test",
    }


def test_items_are_tokens_and_values_as_they_are() -> None:
    task = Nuclear(NuclearSettings(), 3)
    table = masses(2020)
    binding = derive(table, "binding", per_nucleon=True)
    for name, split in task.splits.items():
        found = items(task, name)
        z, n = found.inputs.numpy().T
        assert found.inputs.shape == (len(split), 2)
        assert found.targets is not None
        assert found.targets.shape == (len(split), 1)
        row = table.find(z * 1000 + n)
        assert found.targets.numpy()[:, 0] == pytest.approx(binding.value[row], rel=1e-7)
        assert np.array_equal(task.rows[name].uncertainty, binding.uncertainty[row])
        assert split.keys is not None
        assert np.array_equal(split.keys, z * 1000 + n)
        assert np.array_equal(split.unit_ids(), z)
        assert np.array_equal(found.strata["z"].numpy(), z)
        assert np.array_equal(found.strata["n"].numpy(), n)
        assert table.measured[row].all()
        assert z.min() >= 8
        assert n.min() >= 8
    assert task.unit("binding") == "keV per nucleon"


def test_the_seed_draws_the_splits_and_the_same_ones_again() -> None:
    first, again, other = (Nuclear(NuclearSettings(), seed).rows["train"].key for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_settings_choose_range_total_and_estimates() -> None:
    task = Nuclear(NuclearSettings(per_nucleon=False, above_z=8, above_n=8))
    keys = np.concatenate([everyone(task, name) for name in task.splits])
    assert len(keys) == 2442
    assert keys.min() >= 9009
    at = masses(2020).find(task.rows["id"].key)
    assert task.rows["id"].value == pytest.approx(derive(masses(2020), "binding").value[at])
    assert task.unit("binding") == "keV"
    whole = Nuclear(NuclearSettings(include_estimated=True, above_z=0, above_n=0))
    assert sum(len(everyone(whole, name)) for name in whole.splits) == 3555


@pytest.mark.parametrize(
    ("vintage", "known", "regions", "precise", "dropped"),
    [
        (2003, 2149, (178, 81, 51, 12), 263, 14),
        (2012, 2353, (61, 35, 22, 3), 84, 17),
        (2016, 2408, (33, 20, 15, 3), 51, 22),
    ],
)
def test_vintages_have_the_sizes_that_were_counted_independently(
    vintage: int, known: int, regions: tuple[int, ...], precise: int, dropped: int
) -> None:
    task = Nuclear(NuclearSettings(kind="vintage", vintage=vintage, newer=2020))
    new = everyone(task, "new")
    assert sum(len(everyone(task, name)) for name in ("train", "select", "id")) == known
    assert np.bincount(task.regions(new), minlength=len(REGIONS)).tolist() == [0, *regions]
    assert len(new) == sum(regions)
    assert (masses(2020).uncertainty[masses(2020).find(new)] <= 100).sum() == precise
    assert len(task.dropped) == dropped


def test_a_vintage_is_trained_on_old_values_and_tested_on_new_ones() -> None:
    task = Nuclear(NuclearSettings(kind="vintage", vintage=2003))
    assert task.newer is not None
    assert task.newer.name == "AME2020"
    for name in task.splits:
        table = masses(2020 if name == "new" else 2003)
        expected = derive(table, "binding", per_nucleon=True).value[table.find(task.rows[name].key)]
        assert np.array_equal(task.rows[name].value, expected)
    region = items(task, "new").strata["region"].numpy()
    assert set(region) == {1, 2, 3}  # a new element has no trained token
    assert np.array_equal(region, task.regions(task.rows["new"].key))
    assert set(items(task, "id").strata["region"].tolist()) == {0}


def test_what_no_training_token_reaches_is_counted_and_in_no_split() -> None:
    task = Nuclear(NuclearSettings(kind="vintage", vintage=2003))
    left = task.unscorable["new"]
    assert len(left) + len(task.splits["new"]) == 322
    elements = np.flatnonzero(task.regions(left.key) == REGIONS.index("new element"))
    assert len(elements) == 12
    for name, rows in task.rows.items():
        unseen = ~(np.isin(rows.tokens[:, 0], task.tokens["z"]) & np.isin(rows.tokens[:, 1], task.tokens["n"]))
        assert not unseen.any(), name
    unseen = ~(np.isin(left.tokens[:, 0], task.tokens["z"]) & np.isin(left.tokens[:, 1], task.tokens["n"]))
    assert unseen.all()
    listed = {row["split"]: row for row in task.composition()}
    assert listed["new"]["unscorable"] == len(left)
    assert listed["new"]["nuclei"] == len(task.splits["new"]) == sum(listed["new"]["by_region"].values())
    assert listed["new"]["precise"] < listed["new"]["nuclei"]
    assert listed["id"]["by_region"]["known"] == listed["id"]["nuclei"]
    assert listed["train"]["unscorable"] == 0


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_extrapolation_holds_out_both_ends_of_long_chains(edge: int) -> None:
    task = Nuclear(NuclearSettings(kind="extrapolation", edge=edge))
    outside = set(everyone(task, "extrapolation").tolist())
    table = masses(2020).only(masses(2020).measured & (masses(2020).z >= 8) & (masses(2020).n >= 8))
    expected = set()
    for element in range(28, 119):
        chain = table.n[table.z == element]
        if len(chain) and chain.max() - chain.min() >= 2 * edge:
            expected |= {element * 1000 + n for n in chain if n < chain.min() + edge or n > chain.max() - edge}
    assert outside == expected
    assert len(expected) > 100 * edge
    inside = np.concatenate([everyone(task, name) for name in ("train", "select", "id")])
    assert not outside & set(inside.tolist())
    assert len(inside) + len(outside) == 2457


def test_several_targets_are_named_by_a_last_token() -> None:
    task = Nuclear(NuclearSettings(targets=("binding", "sn", "mass_number")), seed=5)
    found = items(task, "id")
    z, n, target = found.inputs.numpy().T
    assert task.sizes == (119, 178, 3)
    assert np.array_equal(found.strata["target"].numpy(), target)
    assert found.targets is not None
    values = found.targets.numpy()[:, 0]
    assert np.array_equal(values[target == 2], (z + n)[target == 2])
    sn = derive(masses(2020), "sn").value[masses(2020).find(z * 1000 + n)]
    assert values[target == 1] == pytest.approx(sn[target == 1])
    names = [task.rows[name].key for name in task.splits]
    assert not np.intersect1d(names[0], names[1]).size
    assert not np.intersect1d(names[0], names[2]).size
    assert task.encode(z[:2], n[:2], "sn").tolist() == [[z[0], n[0], 1], [z[1], n[1], 1]]
    with pytest.raises(ConfigError, match="say which target, one of binding, sn, mass_number"):
        task.encode(z, n)


@pytest.mark.parametrize("kind", ["random", "extrapolation", "vintage"])
def test_no_held_out_value_follows_from_training_values(kind: Any) -> None:
    vintage = 2012 if kind == "vintage" else 2020
    task = Nuclear(NuclearSettings(targets=ENERGIES, kind=kind, vintage=vintage))
    assert all(count == 0 for counts in task.leaking().values() for count in counts.values())
    assert len(task.removed) > 1000
    kept = Nuclear(NuclearSettings(targets=ENERGIES, kind=kind, vintage=vintage, leaks="keep"))
    assert len(kept.rows["train"]) == len(task.rows["train"]) + len(task.removed)
    given_away = kept.leaking()["id"]
    assert given_away["binding"] > 0.9 * len(np.unique(kept.rows["id"].key))


@pytest.mark.parametrize("energy", ENERGIES)
def test_one_energy_alone_gives_nothing_away(energy: str) -> None:
    task = Nuclear(NuclearSettings(targets=(energy, "control")), seed=2)
    assert len(task.removed) == 0
    assert set(task.leaking()["id"].values()) == {0}


def equations(rows: Rows, targets: tuple[str, ...], nuclei: dict[int, int]) -> np.ndarray:
    """(N, M): the coefficient of every nucleus's mass excess in each row's energy, up to its sign."""
    out = np.zeros((len(rows), len(nuclei)))
    for i, (one, other) in enumerate(ends(rows, targets).tolist()):
        if one != GROUND:
            out[i, nuclei[one]] += 1
        if other != GROUND:
            out[i, nuclei[other]] -= 1
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_the_graph_agrees_with_linear_algebra(seed: int) -> None:
    """A value is determined exactly where its equation is a combination of the training rows' equations."""
    task = Nuclear(NuclearSettings(targets=("qa", "binding", "sp", "qbm"), leaks="keep", train=0.5, select=0.2), seed)
    rng = np.random.default_rng(seed)

    def few(rows: Rows) -> Rows:
        light = np.flatnonzero((rows.key // 1000 < 20) & (rng.random(len(rows)) < 0.7))
        return rows.take(light)

    train, test = few(task.rows["train"]), few(task.rows["id"])
    train = train.take((train.target != 1) | (rng.random(len(train)) < 0.1))  # few anchors
    known = np.unique(np.concatenate([ends(train, task.targets), ends(test, task.targets)]))
    nuclei = {key: i for i, key in enumerate(known[known != GROUND].tolist())}
    given, asked = equations(train, task.targets, nuclei), equations(test, task.targets, nuclei)
    residual = asked - asked @ np.linalg.pinv(given) @ given
    follows = np.abs(residual).max(axis=1) < 1e-9
    found = determined(test, train, task.targets)
    assert np.array_equal(found, follows)
    assert 0 < found.sum() < len(found)


def test_controls_and_radii_fill_their_place() -> None:
    table = masses(2020)
    radii = Radii(table.z[::2], table.n[::2], 1.2 * table.a[::2] ** (1 / 3), np.full(len(table.z[::2]), 0.01))
    task = Nuclear(NuclearSettings(targets=("radius", "semf")), radii=radii)
    rows = task.rows["train"]
    at = rows.target == 0
    assert 0 < at.sum() < (~at).sum()
    assert rows.value[at] == pytest.approx(1.2 * rows.tokens[at].sum(1) ** (1 / 3))
    assert (rows.uncertainty[at] == 0.01).all()
    z, n = rows.tokens[~at].T
    assert rows.value[~at] == pytest.approx(SEMF.binding(z, n) / (z + n))
    assert (task.unit("radius"), task.unit("semf"), task.leaking()["id"]) == (
        "fm",
        "keV per nucleon",
        {"radius": 0, "semf": 0},
    )
    with pytest.raises(ConfigError, match="'radius' needs radii, as read_radii gives them"):
        Nuclear(NuclearSettings(targets=("radius",)))


def test_an_evaluation_of_ones_own_is_the_newer_one() -> None:
    old = masses(2020)
    mine = Nuclides(old.z, old.n, old.mass_excess + 1.0, old.uncertainty, old.measured | (old.z % 7 == 0), "AME2099")
    task = Nuclear(NuclearSettings(kind="vintage", vintage=2020), evaluations={2099: mine})
    assert set((everyone(task, "new") // 1000 % 7).tolist()) == {0}
    assert "measured in AME2099 and not in AME2020" in task.splits["new"].note
    in_mev = Nuclides(old.z, old.n, old.mass_excess / 1000, old.uncertainty, old.measured, "AME2099")
    with pytest.raises(ConfigError, match="look like MeV"):
        Nuclear(NuclearSettings(kind="vintage", vintage=2020), evaluations={2099: in_mev})


def test_a_token_that_was_not_trained_is_refused_by_row() -> None:
    task = Nuclear(NuclearSettings())
    assert task.encode(np.array([50]), np.array([70])).tolist() == [[50, 70]]
    with pytest.raises(ConfigError, match=r"row 2, column 'z': no training row has 119; trained are .* from 8 to"):
        task.encode(np.array([50, 119]), np.array([70, 170]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ("bindin",)}, "unknown target 'bindin'.*binding"),
        ({"targets": ()}, "at least one target"),
        ({"targets": ("sn", "sn")}, "every target once"),
        ({"kind": "vintages"}, "unknown kind of split 'vintages'.*vintage"),
        ({"leaks": "no"}, "unknown way with leaks"),
        ({"train": 0.9, "select": 0.1}, "add up to less than 1"),
        ({"edge": 0}, "edge must be at least 1"),
        ({"above_z": -1}, "above_z and above_n must be at least 0"),
        ({"kind": "vintage", "vintage": 2003, "include_estimated": True}, "takes include_estimated=False"),
        ({"newer": 2020, "vintage": 2003}, "newer=2020 is for kind 'vintage'"),
        ({"kind": "vintage", "vintage": 2012, "newer": 2003}, "must be later than .*2012.* got 2003"),
        ({"kind": "vintage"}, "none is later. There are those of 2003, 2012, 2016, 2020; choose an earlier"),
        ({"vintage": 1999}, "no mass evaluation of 1999"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nuclear(NuclearSettings(**settings))


def test_splits_without_a_value_are_refused() -> None:
    with pytest.raises(SplitError, match="no nucleus of more than 130 protons"):
        Nuclear(NuclearSettings(above_z=130))
    one = Radii(np.array([50]), np.array([70]), np.array([4.6]), np.array([np.nan]))
    with pytest.raises(SplitError, match="has no row of target 'radius' that can be scored"):
        Nuclear(NuclearSettings(targets=("binding", "radius")), radii=one)
