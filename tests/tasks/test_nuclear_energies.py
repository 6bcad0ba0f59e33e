"""Energies that follow from masses: the evaluations' own figures, identities, gaps."""

from __future__ import annotations

import numpy as np
import pytest

from heldout.errors import ConfigError
from heldout.tasks.nuclear import CONTROLS, ENERGIES, REACTIONS, derive, masses

# As the evaluations' reaction tables list them: vintage, energy, Z, N, keV (binding per nucleon; electron capture is
# the beta decay of the daughter, backwards).
LISTED = [
    (2020, "binding", 66, 84, 8189.1495),
    (2020, "binding", 70, 89, 8078.0428),
    (2020, "binding", 78, 92, 7808.2365),
    (2020, "binding", 84, 106, 7749.4526),
    (2020, "binding", 86, 134, 7717.2552),
    (2020, "binding", 88, 146, 7576.5439),
    (2020, "sn", 6, 3, 14224.616),
    (2020, "sn", 19, 33, 2693.4898),
    (2020, "sn", 59, 76, 10479.1904),
    (2020, "sn", 78, 123, 5212.8457),
    (2020, "sn", 91, 122, 10013.6467),
    (2020, "sn", 88, 136, 6478.7305),
    (2020, "sp", 38, 46, 8867.9119),
    (2020, "sp", 44, 45, 3988.0935),
    (2020, "sp", 50, 52, 3678.9653),
    (2020, "sp", 55, 69, 3781.7738),
    (2020, "sp", 75, 103, 3240.6977),
    (2020, "sp", 100, 156, 5893.4116),
    (2020, "qa", 43, 60, -4693.4923),
    (2020, "qa", 69, 90, 3044.4789),
    (2020, "qa", 76, 98, 4870.5053),
    (2020, "qa", 83, 111, 5918.2999),
    (2020, "qa", 78, 120, 106.2426),
    (2020, "qa", 101, 157, 7271.2827),
    (2020, "qbm", 12, 10, -18601),
    (2020, "qbm", 13, 12, -12743.2956),
    (2020, "qbm", 20, 27, 1992.177),
    (2020, "qbm", 49, 74, 4385.6489),
    (2020, "qbm", 67, 88, -3830.6268),
    (2020, "qbm", 83, 126, -1892.5741),
    (2020, "qbm_n", 38, 48, -14752.2866),
    (2020, "qbm_n", 52, 70, -12138.9508),
    (2020, "qbm_n", 56, 81, -9755.2312),
    (2020, "qbm_n", 65, 93, -8117.5322),
    (2020, "qbm_n", 86, 113, -19208.8627),
    (2020, "qbm_n", 86, 139, -3285.7893),
    (2020, "qec", 21, 21, 6426.2904),
    (2020, "qec", 29, 40, -5757.565),
    (2020, "qec", 33, 38, 2013.4),
    (2020, "qec", 74, 98, 2232.7914),
    (2020, "qec", 92, 123, 7084.7747),
    (2020, "qec", 96, 148, -1427.3),
    (2016, "binding", 84, 118, 7834.805),
    (2016, "sn", 69, 97, 7030.07),
    (2016, "sp", 29, 28, 690.32),
    (2016, "qa", 57, 85, 437.79),
    (2016, "qbm", 41, 45, -5023.81),
    (2016, "qbm_n", 98, 142, -13636),
    (2016, "qec", 87, 127, 3361.035),
    (2012, "binding", 33, 34, 8530.568),
    (2012, "sn", 60, 77, 8456.6),
    (2012, "sp", 94, 137, 4239.65),
    (2012, "qa", 80, 127, 714),
    (2012, "qbm", 77, 96, -8325.155),
    (2012, "qbm_n", 65, 95, -6740.59),
    (2012, "qec", 9, 16, -15984.21),
    (2003, "binding", 58, 72, 8333.216),
    (2003, "binding", 73, 109, 8012.647),
    (2003, "sn", 34, 46, 9913.65),
    (2003, "sn", 60, 83, 6123.57),
    (2003, "sp", 62, 74, 4122.33),
    (2003, "sp", 69, 87, 1913.33),
    (2003, "qa", 42, 65, -6995.76),
    (2003, "qa", 69, 102, 646.04),
    (2003, "qbm", 22, 21, -11297),
    (2003, "qbm", 61, 91, 3506.488),
    (2003, "qbm_n", 47, 65, -5438.26),
    (2003, "qbm_n", 71, 92, -13689.62),
    (2003, "qec", 37, 38, 7101.947),
    (2003, "qec", 38, 61, -11306.807),
]


@pytest.mark.parametrize("vintage", [2003, 2012, 2016, 2020])
def test_energies_are_those_that_the_evaluations_list(vintage: int) -> None:
    table = masses(vintage)
    found = {e: derive(table, e, include_estimated=True, per_nucleon=True).value for e in ENERGIES}
    measured = {e: np.isfinite(derive(table, e).value) for e in ENERGIES}
    rows = [row for row in LISTED if row[0] == vintage]
    assert {row[1] for row in rows} == set(ENERGIES)
    for _, energy, z, n, listed in rows:
        row = table.row_of(z, n)
        # What involves an estimate is listed in whole keV, and so is every part of it.
        allowed = 0.01 if measured[energy][row] else 1.5
        assert found[energy][row] == pytest.approx(listed, abs=allowed), (energy, z, n)


def test_a_strongly_negative_alpha_decay_energy_keeps_its_sign() -> None:
    table = masses(2020)
    assert derive(table, "qa", include_estimated=True).value[table.row_of(7, 16)] == pytest.approx(-25474.7, abs=0.1)


def test_what_is_separated_adds_up() -> None:
    """B(Z, N) - B(Z, N - 1) is the separation energy of the neutron, and so on round every loop."""
    table = masses(2020)
    values = {e: derive(table, e, include_estimated=True).value for e in ENERGIES}
    b, neutron, proton = values["binding"], table.find(table.keys - 1), table.find(table.keys - 1000)
    at = neutron >= 0
    assert b[at] - b[neutron[at]] == pytest.approx(values["sn"][at], abs=1e-6)
    at = proton >= 0
    assert b[at] - b[proton[at]] == pytest.approx(values["sp"][at], abs=1e-6)
    daughter = table.find(table.keys + 1000 - 1)
    at = daughter >= 0
    assert values["qbm"][at] == pytest.approx(-values["qec"][daughter[at]], abs=1e-9)
    alpha = b[table.row_of(2, 2)]
    daughter = table.find(table.keys - 2002)
    at = np.isfinite(values["qa"])
    assert values["qa"][at] == pytest.approx(b[daughter[at]] + alpha - b[at], abs=1e-6)


def test_a_gap_is_where_a_partner_is_missing_and_only_there() -> None:
    table = masses(2020)
    everyone = {(z, n) for z, n in zip(table.z.tolist(), table.n.tolist(), strict=True)}
    for energy, reaction in REACTIONS.items():
        dz, dn = reaction.partner
        expected = [(z + dz, n + dn) in everyone for z, n in zip(table.z.tolist(), table.n.tolist(), strict=True)]
        assert np.isfinite(derive(table, energy, include_estimated=True).value).tolist() == expected


def test_an_energy_counts_as_measured_where_its_parts_are() -> None:
    table = masses(2020)
    status = dict(zip(table.keys.tolist(), table.measured.tolist(), strict=True))
    for energy, reaction in REACTIONS.items():
        step = reaction.partner[0] * 1000 + reaction.partner[1]
        expected = [ok and status.get(key + step, False) for key, ok in status.items()]
        derived = derive(table, energy)
        assert np.isfinite(derived.value).tolist() == expected
        assert np.isfinite(derived.uncertainty).tolist() == expected
    assert np.isfinite(derive(table, "binding").value).sum() == 2550


def test_binding_alone_is_per_nucleon() -> None:
    table = masses(2020)
    whole, each = (derive(table, "binding", per_nucleon=p) for p in (False, True))
    at = np.isfinite(whole.value)
    assert each.value[at] * table.a[at] == pytest.approx(whole.value[at], rel=1e-12)
    assert each.uncertainty[at] * table.a[at] == pytest.approx(table.uncertainty[at], rel=1e-12)
    assert np.array_equal(derive(table, "sn").value, derive(table, "sn", per_nucleon=True).value, equal_nan=True)
    assert each.value[table.row_of(28, 34)] == pytest.approx(8794.5, abs=0.1)  # Ni-62, the most tightly bound
    assert int(np.nanargmax(each.value)) == table.row_of(28, 34)


def test_other_energies_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown energy 's_n'"):
        derive(masses(2020), "s_n")
    with pytest.raises(ConfigError, match="Z=0, N=1 is not listed"):
        derive(masses(2020).only(masses(2020).z > 5), "sn")


@pytest.mark.parametrize(("vintage", "nuclei", "expected"), [(2003, 293, 452), (2012, 112, 289), (2016, 69, 213)])
def test_the_evaluators_own_estimates_against_what_was_measured_later(vintage: int, nuclei: int, expected: int) -> None:
    old, new = masses(vintage), masses(2020)
    guessed = old.only(~old.measured & (old.z >= 8) & (old.n >= 8))
    row = new.find(guessed.keys)
    at = (row >= 0) & new.measured[row]
    assert at.sum() == nuclei
    off = guessed.mass_excess[at] - new.mass_excess[row[at]]
    assert np.sqrt(np.mean(off**2)) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(("vintage", "expected"), [(2003, 126), (2016, 37)])
def test_how_far_measured_masses_moved(vintage: int, expected: int) -> None:
    old, new = masses(vintage), masses(2020)
    row = new.find(old.keys)
    at = old.measured & (row >= 0) & new.measured[row] & (old.z >= 8) & (old.n >= 8)
    moved = old.mass_excess[at] - new.mass_excess[row[at]]
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(expected, abs=0.5)


def test_controls_belong_to_a_nucleus_and_not_to_a_row() -> None:
    z, n = np.array([8, 50, 82]), np.array([8, 70, 126])
    for name, control in CONTROLS.items():
        assert np.array_equal(control(z, n)[::-1], control(z[::-1], n[::-1])), name
    noise = CONTROLS["control"](masses(2020).z, masses(2020).n)
    assert abs(noise.mean()) < 0.06
    assert noise.std() == pytest.approx(1, abs=0.04)
