from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import comb

import numpy as np
import pytest

from heldout.errors import ConfigError
from heldout.tasks.features.complexity import (
    _folds,
    circuit_depth,
    complexity,
    fourier_coefficients,
    fourier_degree,
    sensitivities,
)
from heldout.tasks.features.library import KINDS, Feature, feature, patterns

SOME = [
    "bit",
    "or:3",
    "and:4",
    "majority:5",
    "threshold:4,2",
    "parity:3",
    "xor_of_xors",
    "match:2",
    "lookup:4",
    "lookup:5,3",
]
MANY = ["mod_sum:3,5", "word:3", "xor_word:2"]

DEFINITIONS: dict[str, Callable[[tuple[int, ...]], int]] = {
    "bit": lambda x: x[0],
    "or:3": lambda x: int(any(x)),
    "and:4": lambda x: int(all(x)),
    "majority:5": lambda x: int(2 * sum(x) > 5),
    "threshold:4,2": lambda x: int(sum(x) >= 2),
    "parity:3": lambda x: x[0] ^ x[1] ^ x[2],
    "xor_of_xors": lambda x: (x[0] ^ x[1]) ^ (x[2] ^ x[3]),
    "match:2": lambda x: int(x[:2] == x[2:]),
    "mod_sum:3,5": lambda x: sum(x) % 3,
    "word:3": lambda x: x[0] + 2 * x[1] + 4 * x[2],
    "xor_word:2": lambda x: (x[0] ^ x[1]) + 2 * (x[2] ^ x[3]),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_feature_is_its_definition_on_every_row(name: str) -> None:
    one = feature(name)
    rows = np.array(list(product((0, 1), repeat=one.inputs)), dtype=np.uint8)
    assert one.of(rows).tolist() == [DEFINITIONS[name](tuple(map(int, row))) for row in rows]
    assert set(one.table) == set(range(one.classes))


def test_every_kind_is_tried() -> None:
    assert {name.split(":")[0] for name in SOME + MANY} == set(KINDS)


def test_a_random_table_is_half_ones_and_named_by_its_number() -> None:
    tables = [feature(f"lookup:4,{n}").table for n in range(6)]
    assert all(table.sum() == 8 for table in tables)
    assert len({table.tobytes() for table in tables}) == 6
    assert np.array_equal(feature("lookup:4").table, tables[0])


def test_parts_are_the_values_inside_the_circuit() -> None:
    rows = patterns(4)
    parts = feature("xor_of_xors").parts_of(rows)
    assert set(parts) == {"x0", "x1", "x2", "x3", "and", "or", "left", "right"}
    assert np.array_equal(parts["left"] ^ parts["right"], feature("xor_of_xors").of(rows))
    xor = feature("parity:2").parts_of(patterns(2))
    assert np.array_equal(xor["only_x0"] + xor["only_x1"], feature("parity:2").table)
    assert np.array_equal(xor["or"] - xor["and"], feature("parity:2").table)
    match = feature("match:2").parts_of(rows)
    assert np.array_equal(match["equal0"] & match["equal1"], feature("match:2").table)
    assert set(feature("bit").parts) == {"x0"}


@pytest.mark.parametrize("name", SOME)
def test_fourier_coefficients_are_correlations_with_parities(name: str) -> None:
    one = feature(name)
    found = fourier_coefficients(one.table)
    rows = patterns(one.inputs)
    for s in range(len(found)):
        chosen = rows[:, [j for j in range(one.inputs) if s >> j & 1]]
        assert found[s] == np.mean((1 - 2 * one.table) * (1 - 2 * (chosen.sum(1) % 2).astype(int)))
    assert np.sum(found**2) == pytest.approx(1, abs=1e-12)  # Parseval
    # Total influence twice: by flipping inputs, and as the sum of |S| times the squared coefficient of S.
    sizes = np.array([s.bit_count() for s in range(len(found))])
    assert complexity(one).average_sensitivity == pytest.approx(float(np.sum(sizes * found**2)), abs=1e-12)


@pytest.mark.parametrize("k", range(2, 9))
def test_known_complexities(k: int) -> None:
    parity, conjunction = complexity(feature(f"parity:{k}")), complexity(feature(f"and:{k}"))
    depth = (k - 1).bit_length()
    assert (parity.fan_in, parity.fourier_degree, parity.average_sensitivity, parity.circuit_depth) == (k, k, k, depth)
    assert (conjunction.fan_in, conjunction.fourier_degree, conjunction.circuit_depth) == (k, k, depth)
    assert conjunction.average_sensitivity == k / 2 ** (k - 1)
    assert conjunction.rarest == 1 / 2**k
    if k % 2:  # each input of a majority decides when the others are tied
        majority = complexity(feature(f"majority:{k}"))
        assert majority.average_sensitivity == k * comb(k - 1, (k - 1) // 2) / 2 ** (k - 1)
        assert majority.rarest == 0.5


def test_inputs_that_do_not_matter_do_not_count() -> None:
    rows = patterns(5)
    table = (rows[:, 1] ^ rows[:, 4]).astype(np.int64)
    found = complexity(Feature("made", 5, 2, table, {}))
    assert (found.fan_in, found.fourier_degree, found.average_sensitivity, found.circuit_depth) == (2, 2, 2.0, 1)
    assert sensitivities(table).tolist() == [0, 1, 0, 0, 1]
    assert fourier_degree(np.ones(8)) == 0


def test_circuit_depth_of_a_known_multiplexer_and_majority() -> None:
    rows = patterns(3)
    assert circuit_depth(np.where(rows[:, 0], rows[:, 1], rows[:, 2])) == 2  # (x0 & x1) ^ (not x0 & x2)
    assert circuit_depth(feature("majority:3").table) == 3
    assert complexity(feature("majority:5")).circuit_depth is None
    assert complexity(feature("mod_sum:3,5")).circuit_depth is None
    assert complexity(feature("match:8")).circuit_depth == 4


@pytest.mark.parametrize("name", ["lookup:4", "lookup:4,1", "threshold:4,2", "match:2"])
def test_circuit_depth_does_not_depend_on_names_or_negations(name: str) -> None:
    cube = feature(name).table.reshape((2,) * 4)
    depth = circuit_depth(cube.reshape(-1))
    assert depth is not None
    assert depth >= 2
    assert circuit_depth(1 - cube.reshape(-1)) == depth
    assert circuit_depth(cube.transpose(2, 0, 3, 1).reshape(-1)) == depth
    assert circuit_depth(cube[::-1, :, ::-1].reshape(-1)) == depth


def test_folding_agrees_with_enumeration_where_both_apply() -> None:
    draw = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(120):
        a, b, c = (draw.integers(2, size=(2, 2)) for _ in range(3))
        rows = patterns(4)
        folded = c[a[rows[:, 0], rows[:, 2]], b[rows[:, 1], rows[:, 3]]]
        for table in (folded, draw.integers(2, size=16)):
            if (sensitivities(table) > 0).all():
                assert _folds(table, 2) == (circuit_depth(table) == 2)
                seen[_folds(table, 2)] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("partiy:2", "unknown feature 'partiy'; nearest: parity"),
        ("parity", "parity:k with k from 2"),
        ("majority:4", "k odd"),
        ("threshold:3,4", "t from 1 to k"),
        ("mod_sum:9,4", "m from 2 to k"),
        ("parity:99", "has 99 inputs; at most 16"),
        ("parity:-1", "not of the form"),
        ("bit:1", "written bit"),
    ],
)
def test_what_is_not_in_the_library_is_named(written: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        feature(written)
