"""When training may end: once a network has been right for a while."""

from __future__ import annotations

from heldout.training.history import History
from heldout.training.loop import Until


def settled(after: int | None, on: str, *, least: float, right_at_end: bool = False) -> Until | None:
    """Whether it is `after` updates since what `on` names was first at `least`; None where `after` is, which never ends.

    With `right_at_end` it must also be so now: at a constant rate accuracy dips now and then, and a dip is no place to end.
    """
    if after is None:
        return None
    updates = after

    def until(history: History) -> bool:
        right = [step for step, value in history.curve(on) if value >= least]
        now = history.rows[-1][0]
        return bool(right) and now >= right[0] + updates and (right[-1] == now or not right_at_end)

    return until
