"""Random studies on random engines: every step ends once, after its inputs, beside its companions, and nothing hangs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import dummy_study
import pytest

from heldout.runs import run
from heldout.runs.steps import Step, check_steps, companions


class Depot:
    """A store that has the outputs of some steps."""

    def __init__(self, have: set[str]) -> None:
        self.have = have

    def open(self, key: str, **_: Any) -> object:
        return key in self.have or None

    def record(self, key: str) -> dict[str, Any]:
        return {}

    def progress(self, key: str) -> None:
        return None


class Pool:
    """An engine whose calls end after random times, and of which some lose their worker."""

    def __init__(self, rng: random.Random, depot: Depot) -> None:
        self.workers, self.rng, self.depot = rng.randint(1, 3), rng, depot
        self.active = 0
        self.kept: Counter[str] = Counter()
        self.groups: list[list[str]] = []

    def submit(self, function: Any, *jobs: Any) -> Future[dict[str, Any]]:
        self.active += 1
        assert self.active <= self.workers
        self.groups.append([job["name"] for job in jobs])
        future: Future[dict[str, Any]] = Future()
        lost, pause = self.rng.random() < 0.2, self.rng.random() * 0.004

        def go() -> None:
            time.sleep(pause)
            self.active -= 1
            if lost:
                future.set_exception(BrokenExecutor())
                return
            kept = [job["name"] for job in jobs if job["keep"]]
            self.kept.update(kept)
            self.depot.have.update(kept)
            future.set_result({"outcomes": dict.fromkeys(kept, "stored"), "wall_seconds": 0.0})

        threading.Thread(target=go).start()
        return future


def study(rng: random.Random) -> list[Step]:
    steps: list[Step] = []
    for i in range(rng.randint(2, 14)):
        inputs = {f"i{k}": rng.choice(steps).name for k in range(rng.randint(0, 2))} if steps else {}
        together = dummy_study.samples if rng.random() < 0.8 else None
        steps.append(Step(f"s{i}", dummy_study.sample, {"seed": i, "g": rng.randint(0, 1)}, inputs, together=together))
    rng.shuffle(steps)
    return check_steps(steps)


@pytest.mark.parametrize("seed", range(60))
def test_every_step_ends_once_after_its_inputs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "POLL", 0.002)
    monkeypatch.setattr(run, "LOSSES", 10**6)
    rng = random.Random(seed)
    order = study(rng)
    jobs: Any = {s.name: {"name": s.name, "key": s.name, "replace": rng.random() < 0.2} for s in order}
    had = {step.name for step in order if rng.random() < 0.3}
    depot = Depot(set(had))
    pool, beside, inputs = Pool(rng, depot), companions(order), {s.name: set(s.inputs.values()) for s in order}
    ended: list[str] = []

    def emit(event: str, **details: Any) -> None:
        if event == "submitted":
            assert inputs[details["step"]] <= set(ended)
        elif event in ("finished", "reused"):
            ended.append(details["step"])

    driver = threading.Thread(target=run._drive, args=(order, jobs, beside, pool, depot, False, emit), daemon=True)
    driver.start()
    driver.join(20)
    assert not driver.is_alive()
    assert sorted(ended) == sorted(inputs)
    computed = {name for name, job in jobs.items() if job["replace"] or name not in had}
    assert pool.kept == dict.fromkeys(computed, 1)
    assert all(tuple(group) == beside[group[0]] for group in pool.groups)
