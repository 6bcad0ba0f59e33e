from __future__ import annotations

from typing import Any

import pytest

from heldout.errors import ConfigError
from heldout.training.settings import TrainSettings


def test_warmup_reaches_the_learning_rate_and_the_schedule_ends_at_final() -> None:
    for schedule, end in (("constant", 2.0), ("cosine", 0.2), ("linear", 0.2)):
        s = TrainSettings(steps=101, learning_rate=2.0, schedule=schedule, warmup=10, final=0.1)  # type: ignore[arg-type]
        assert [s.rate(0), s.rate(4), s.rate(9), s.rate(10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
        assert s.rate(100) == pytest.approx(end)


def test_halfway_is_the_mean_of_both_ends_for_cosine_and_linear() -> None:
    for schedule in ("cosine", "linear"):
        s = TrainSettings(steps=101, learning_rate=1.0, schedule=schedule, final=0.5)  # type: ignore[arg-type]
        assert s.rate(50) == pytest.approx(0.75)
        assert all(s.rate(i) > s.rate(i + 1) for i in range(100))


def test_one_step_and_all_warmup_are_accepted() -> None:
    assert TrainSettings(steps=1, learning_rate=1.0).rate(0) == 1.0
    assert TrainSettings(steps=4, learning_rate=1.0, warmup=4).rate(3) == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; choose from constant, cosine, linear"),
        ({"decay": "all"}, "unknown decay 'all'; choose from matrices, linear"),
        ({"warmup": 11}, r"warmup must be from 0 to steps \(10\), got 11"),
        ({"final": 1.5}, "final must be a fraction"),
        ({"betas": (0.9, 1.0)}, "betas must be"),
        ({"clip": 0.0}, "clip must be positive, or None"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_settings_say_which_and_what_is_accepted(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**{"steps": 10, **given})
