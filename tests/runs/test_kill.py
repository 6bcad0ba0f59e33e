"""Kill -9 at random moments: the same command goes on and ends with the evidence of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dummy_study
import numpy as np
import pytest
from dummy_study import evidence, steps

from heldout.errors import HeldoutError
from heldout.runs import Run, Step, execute
from heldout.runs.run import LOSSES

PAUSE = 0.2  # seconds a step; with the start of two workers the study takes about one and a half
REPEATS = 20
# A test run in the background of a shell ignores Ctrl-C, and hands that down; a driver at a terminal does not.
DRIVER = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, dummy_study; dummy_study.main(*sys.argv[1:])
"""


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DRIVER, str(out), str(PAUSE)]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE, start_new_session=True)


def finish(driver: subprocess.Popen[bytes]) -> None:
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == 0, said.decode()


def workers(driver: int) -> list[int]:
    """The spawned workers of a driver, without the tracker that Python starts beside them."""
    children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(out))
    return evidence(Run.open(out))


def kill_driver(out: Path, moment: float) -> None:
    driver = start(out)
    time.sleep(moment)
    family = workers(driver.pid) if driver.poll() is None else []
    driver.kill()
    driver.communicate()
    wait_until(lambda: all(map(gone, family)), seconds=3)
    finish(start(out))


def kill_worker(out: Path, moment: float, rng: np.random.Generator) -> None:
    driver = start(out)
    time.sleep(moment)
    family = workers(driver.pid) if driver.poll() is None else []
    if family:
        os.kill(int(rng.choice(family)), signal.SIGKILL)
    finish(driver)


def check(out: Path, undisturbed: dict[str, Any]) -> None:
    run = Run.open(out)
    assert evidence(run) == undisturbed
    assert run.manifest["status"] == "done"
    assert list((run.store.root / ".tmp").iterdir()) == []


def test_a_killed_driver_takes_its_workers_along_and_is_resumed(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    kill_driver(tmp_path / "run", 0.7)
    check(tmp_path / "run", undisturbed)


def test_a_killed_worker_is_replaced(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    driver = start(tmp_path / "run")
    wait_until(lambda: len(workers(driver.pid)) == 2)
    os.kill(workers(driver.pid)[0], signal.SIGKILL)
    finish(driver)
    assert '"event": "lost"' in (tmp_path / "run" / "events.jsonl").read_text()
    finish(start(tmp_path / "run"))  # the next start removes what the dead worker left
    check(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_ctrl_c_stops_driver_and_workers_at_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    driver = start(tmp_path / "run")
    wait_until(lambda: len(list((tmp_path / "store" / ".tmp").glob("*"))) == 2)  # both workers are at a step
    family = workers(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to all of them
    _, said = driver.communicate(timeout=3)
    assert said.count(b"KeyboardInterrupt") == 1
    wait_until(lambda: all(map(gone, family)), seconds=3)
    finish(start(tmp_path / "run"))
    check(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(REPEATS))
def test_a_driver_killed_at_any_moment(tmp_path: Path, undisturbed: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng([1, seed])
    kill_driver(tmp_path / "run", rng.uniform(0.1, 1.5))
    check(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(REPEATS))
def test_a_worker_killed_at_any_moment(tmp_path: Path, undisturbed: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng([2, seed])
    kill_worker(tmp_path / "run", rng.uniform(0.2, 1.3), rng)
    finish(start(tmp_path / "run"))
    check(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_driver_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    for _ in range(4):
        driver = start(tmp_path / "run")
        time.sleep(rng.uniform(0.1, 1.2))
        driver.kill()
        driver.communicate()
    finish(start(tmp_path / "run"))
    check(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("times", [LOSSES - 1, LOSSES])
def test_a_step_that_loses_its_worker_is_tried_three_times(tmp_path: Path, times: int) -> None:
    counter = tmp_path / "counter"
    doomed = Step("doomed", dummy_study.suicide, {"counter": str(counter), "times": times})
    study = [*steps()[:2], doomed]
    heard: list[Any] = []

    def go() -> Run:
        return execute("dummy", study, out=tmp_path / "run", workers=2, progress=heard.append)

    if times < LOSSES:
        assert go().output("doomed").is_dir()
    else:
        with pytest.raises(HeldoutError, match=r"step 'doomed' lost its worker 3 times.*out of memory"):
            go()
        assert Run.open(tmp_path / "run").output("sample-1").is_dir()
        assert go().output("doomed").is_dir()  # nothing kills it any more: the same call goes on
    assert [event["step"] for event in heard if event["event"] == "lost"] == ["doomed"] * times
