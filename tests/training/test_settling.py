"""When training may end."""

from __future__ import annotations

from heldout.training.history import History
from heldout.training.settling import settled


def test_training_ends_when_what_was_set_aside_has_been_right_for_long_enough() -> None:
    until = settled(200, "aside/accuracy", least=0.999)
    assert until is not None
    history = History()
    for step, right in ((100, 0.5), (200, 0.9995), (300, 0.98), (399, 1.0)):
        history.add(step, {"aside/accuracy": right, "id/accuracy": 1.0})
        assert not until(history)
    history.add(400, {"aside/accuracy": 0.7})
    assert until(history)


def test_a_dip_is_no_place_to_end() -> None:
    patient = settled(200, "aside/accuracy", least=0.999, right_at_end=True)
    assert patient is not None
    history = History()
    for step, right in ((200, 1.0), (300, 1.0), (400, 0.7)):
        history.add(step, {"aside/accuracy": right})
        assert not patient(history)
    history.add(500, {"aside/accuracy": 1.0})
    assert patient(history)


def test_what_need_not_settle_does_not_end() -> None:
    assert settled(None, "aside/accuracy", least=1.0) is None
