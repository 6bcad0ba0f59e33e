"""Engines: the same interface in this process and in workers; losing one worker loses one call."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest

from heldout.errors import ConfigError
from heldout.runs.engine import available_cpus, make_engine


@pytest.mark.parametrize("name", ["inline", "local"])
def test_engines_map_in_order_and_pass_exceptions_on(name: str) -> None:
    with make_engine(name, 2) as engine:
        assert list(engine.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
        assert isinstance(engine.submit(int, "x").exception(), ValueError)


def test_losing_a_worker_breaks_its_own_call_and_no_other() -> None:
    with make_engine("local", 2) as engine:
        other: Future[int] = engine.submit(os.getpid)
        first = other.result()
        longer = engine.submit(time.sleep, 1.0)
        doomed = engine.submit(os.getpid)
        doomed_pid = doomed.result()
        assert doomed_pid != first
        doomed_sleep = engine.submit(time.sleep, 60)
        os.kill(doomed_pid, signal.SIGKILL)
        assert isinstance(doomed_sleep.exception(timeout=10), BrokenExecutor)
        assert longer.exception(timeout=10) is None
        replacements = {engine.submit(os.getpid).result() for _ in range(2)}
        assert doomed_pid not in replacements


def test_abandoning_an_engine_does_not_wait_for_its_workers() -> None:
    engine = make_engine("local", 1)
    pid = engine.submit(os.getpid).result()
    running = engine.submit(time.sleep, 60)
    while not running.running():
        time.sleep(0.01)
    engine.shutdown(wait=False, cancel_futures=True)
    assert isinstance(running.exception(timeout=10), BrokenExecutor)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the worker did not leave"
        time.sleep(0.02)


def test_engines_that_are_not_accepted() -> None:
    with pytest.raises(ConfigError, match="unknown engine 'lokal'; choose from local, inline"):
        make_engine("lokal")
    with pytest.raises(ConfigError, match="workers is 0"):
        make_engine("local", 0)
    with make_engine("local") as engine:
        assert engine.workers == available_cpus() == len(os.sched_getaffinity(0))
