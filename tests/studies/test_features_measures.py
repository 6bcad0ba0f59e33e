"""What the features study measures of one network, on networks whose penultimate layer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from heldout.networks.mlp import MLP, Hidden
from heldout.studies.features_conditions import Condition, find_condition
from heldout.studies.features_measure import values_of
from heldout.studies.features_measured import Measured, Measuring, Value
from heldout.studies.features_reading import control_types, readable, readable_inputs
from heldout.studies.features_shares import WITHIN, effects, few, together
from heldout.tasks.features import Features, FeaturesSettings

SETTINGS: dict[str, Any] = {
    "density_draws": 19,
    "row_draws": 5,
    "band_draws": 3,
    "probe_rows": 400,
    "probe_strengths": (0.1, 10.0),
    "data_seed": 0,
}
BIT, PARITY, BOTH = "bit", "parity:2", "bit x parity:2"


def _layer(*, bit: float = 0.0, parity: float = 0.0, both: float = 0.0, noise: float = 0.0) -> MLP:
    """A network whose penultimate units are multiples of the two features, of their conjunction and of a bit that no
    feature reads."""
    network = MLP((32, 4, 4, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first, second = (layer.linear for layer in network.hidden if isinstance(layer, Hidden))
        # bit, sum of the parity's inputs, its excess over 1, and the unread bit
        first.weight[0, 0] = first.weight[3, 5] = 1
        first.weight[1:3, 16:18] = 1
        first.bias[2] = -1
        second.weight[0, 0] = bit
        second.weight[1, 1:3] = torch.tensor([parity, -2 * parity])
        second.weight[2, :3] = both * torch.tensor([1.0, 1.0, -2.0])
        second.bias[2] = -both
        second.weight[3, 3] = noise
    return network.eval()


def _measuring(rows: int = 4096, **changed: Any) -> Measuring:
    condition = Condition("here", "", FeaturesSettings(train=200, val=rows, test=rows), hidden=(4, 4), batch=200)
    return Measuring(condition, Features(condition.task, seed=3), SETTINGS | changed)


def _measured(network: MLP, rows: int = 4096, **changed: Any) -> Measured:
    return _measuring(rows, **changed).network(network, 0)


def _found(values: Any) -> dict[str, float | None]:
    return {v.quantity: v.value for v in values}


def test_effects_are_those_of_the_layer_and_sum_to_one() -> None:
    # In signs a and b a feature is (1 + a) / 2 and the conjunction (1 + a + b + a b) / 4.
    found = _found(effects(_measured(_layer(bit=3, parity=1, both=2))))
    total = 2.5 + 0.5 + 0.25
    expected = {BIT: 2.5, PARITY: 0.5, BOTH: 0.25, WITHIN: 0.0}
    assert found == {f"effect:{name}": pytest.approx(v / total, abs=1e-6) for name, v in expected.items()}


def test_what_no_feature_explains_varies_within_cells() -> None:
    found = _found(effects(_measured(_layer(bit=1, parity=1, noise=2))))
    assert sum(v for v in found.values() if v is not None) == pytest.approx(1, abs=1e-12)
    assert found[f"effect:{WITHIN}"] == pytest.approx(4 / 6, abs=0.01)
    assert found[f"effect:{BOTH}"] == pytest.approx(0, abs=0.01)


def test_unique_and_shared_parts_add_up() -> None:
    m = _measured(_layer(bit=3, parity=1))
    found = _found(together(m))
    # Independent features share nothing: each one's share is its own.
    for name, share in ((BIT, 0.9), (PARITY, 0.1)):
        assert found[f"unique:{name}"] == pytest.approx(share, abs=0.01)
        assert found[f"shared:{name}"] == pytest.approx(0, abs=0.01)
    assert found[f"common:{BOTH}"] == pytest.approx(found[f"shared:{BIT}"])
    assert found["explained_together"] == pytest.approx(1, abs=1e-6)
    parts = [found[f"unique:{BIT}"], found[f"unique:{PARITY}"], found[f"common:{BOTH}"]]
    assert sum(p for p in parts if p is not None) == pytest.approx(1, abs=1e-6)


def test_features_that_go_together_share() -> None:
    task = FeaturesSettings(train=200, val=4096, test=4096, predictivity=(1.0, 0.9))
    condition = Condition("here", "", task, hidden=(4, 4), batch=200)
    m = Measuring(condition, Features(task, seed=3), SETTINGS).network(_layer(parity=1), 0)
    found = _found(together(m))
    # Only the second is represented, and the first agrees with it in 9 rows of 10: a correlation of .8.
    assert found[f"shared:{PARITY}"] == pytest.approx(0.64, abs=0.03)
    assert found[f"unique:{BIT}"] == pytest.approx(0, abs=1e-6)
    # The decomposition by cells weighs all combinations alike, so there the first has no effect.
    assert _found(effects(m))[f"effect:{BIT}"] == pytest.approx(0, abs=1e-6)


def test_few_features_are_two_to_four() -> None:
    sizes = {"headline": True, "features-4": True, "graded": False, "features-16": False}
    for name, there in sizes.items():
        condition = find_condition(name).shortened(1.0, train=300, val=300, test=300)
        here = Measuring(condition, Features(condition.task, seed=0), SETTINGS)
        network = MLP((32, 4, condition.task.heads().width))
        assert few(here.network(network, 0)) is there, name


def test_probes_read_what_is_represented_and_not_what_is_not() -> None:
    m = _measured(_layer(bit=3, parity=0.1))
    found = _found(readable(m))
    for name in (BIT, PARITY):  # one is 900 times as loud
        assert found[f"decoded:{name}"] == 1
        saved, compression = found[f"code_saved:{name}"], found[f"compression:{name}"]
        assert saved is not None
        assert saved > 0.8
        assert saved == pytest.approx(1 - 1 / compression)  # type: ignore[operator]
        difference = found[f"decoded:{name}"] - found[f"decoded_control:{name}"]  # type: ignore[operator]
        assert found[f"selectivity:{name}"] == pytest.approx(difference)
        assert 0.5 <= found[f"decoded_majority:{name}"] < 0.6  # type: ignore[operator]
    quiet = _found(readable(_measured(_layer(bit=3, noise=1))))
    assert quiet[f"decoded:{PARITY}"] == pytest.approx(0.5, abs=0.1)
    assert quiet[f"code_saved:{PARITY}"] < 0.05  # type: ignore[operator]


def test_from_the_inputs_a_bit_is_read_and_a_parity_is_not() -> None:
    found = _found(readable_inputs(_measuring()))
    assert found["decoded_inputs:bit"] == 1
    assert found["decoded_inputs:parity:2"] == pytest.approx(0.5, abs=0.1)
    assert found["code_saved_inputs:parity:2"] < 0  # type: ignore[operator]


def test_too_few_rows_for_a_probe_give_the_reason() -> None:
    values = list(readable(_measured(_layer(bit=1, parity=1), probe_rows=12)))
    assert [v.quantity for v in values] == ["decoded:bit", "decoded:parity:2"]
    assert all(v.value is None and "nested folds need 10 of each class" in v.reason for v in values)


def test_a_layer_that_does_not_vary_gives_reasons() -> None:
    values = list(values_of(_measured(_layer(), rows=300)))
    found = {v.quantity: v for v in values}
    for quantity in (f"unique:{BIT}", f"effect:{PARITY}", f"effect:{WITHIN}", f"largest_component:{BIT}"):
        assert found[quantity] == Value(quantity, None, reason=found[quantity].reason)
        assert "do not vary" in found[quantity].reason


@pytest.mark.parametrize("name", ["headline", "xor_of_xors", "graded", "features-16", "overlap-4"])
def test_the_control_gives_labels_to_patterns_of_what_a_feature_reads(name: str) -> None:
    condition = find_condition(name).shortened(1.0, train=300, val=300, test=600)
    here = Measuring(condition, Features(condition.task, seed=0), SETTINGS)
    for planted in here.task.planted:
        types, labels = control_types(here, planted.name), here.test.table[planted.name]
        assert len(np.unique(types)) <= 2 ** max(4, len(planted.bits))
        for pattern in np.unique(types):  # the feature is a function of the pattern
            assert len(np.unique(labels[types == pattern])) == 1
    if name == "headline":
        rows = here.test.bits
        assert np.array_equal(control_types(here, BIT), rows[:, :4].astype(int) @ [1, 2, 4, 8])
        assert np.array_equal(control_types(here, PARITY), rows[:, 16:20].astype(int) @ [1, 2, 4, 8])
