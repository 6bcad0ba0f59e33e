"""The engine `ray`: the same evidence as `local`, lost workers, loopback only, and shards that merge on either engine."""

from __future__ import annotations

import builtins
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dummy_study
import pytest
import ray_steps
import torch
from dummy_study import evidence

from heldout import cli
from heldout.activations.accumulators import Moments
from heldout.errors import ConfigError, HeldoutError, StoreError
from heldout.runs import Step, Store, execute
from heldout.runs.engine import THREADS, Engine, make_engine

REPEATED = 3  # how often a step is tried


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A Ray of two workers; engines that are made while it is there use it."""
    if importlib.util.find_spec("ray") is None:  # imported by the engine, which has something to set before
        pytest.skip("ray is not installed")
    with make_engine("ray", 2) as engine:
        yield engine


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= family(int(child))
    return found


def listening(pids: set[int]) -> set[tuple[str, str]]:
    """(who, address) of the TCP sockets that these processes listen at."""
    sockets = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            name = str(descriptor.readlink()) if descriptor.is_symlink() else ""
            if name.startswith("socket:["):
                sockets[name[8:-1]] = Path(f"/proc/{pid}/comm").read_text().strip()
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in sockets:
                words = bytes.fromhex(local.partition(":")[0])
                raw = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add((sockets[inode], str(ip_address(raw))))
    return found


def wait_for(place: Path, pids: int = 1) -> list[int]:
    """The process ids that a watched call has written."""
    deadline = time.monotonic() + 120
    while not place.exists() or len(place.read_text().split()) < pids:
        assert time.monotonic() < deadline, "the call did not begin"
        time.sleep(0.02)
    return [int(pid) for pid in place.read_text().split()]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_it_maps_in_order_passes_exceptions_on_and_has_one_thread_a_worker(engine: Engine) -> None:
    assert engine.workers == 2
    assert list(engine.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    assert isinstance(engine.submit(int, "x").exception(), ValueError)
    told = engine.submit(ray_steps.surroundings).result()
    assert {name: told[name] for name in THREADS} == dict.fromkeys(THREADS, "1")
    assert told["torch"] == 1
    assert (told["http_proxy"], told["gpus"] or "") == (os.environ.get("http_proxy", ""), "")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_a_ray_that_is_started_here_listens_on_loopback_only(engine: Engine) -> None:
    heard = listening(family(os.getpid()))
    assert {"raylet", "gcs_server"} <= {who for who, _ in heard}
    addresses = [ip_address(at) for _, at in heard]
    assert all((getattr(at, "ipv4_mapped", None) or at).is_loopback for at in addresses), heard


def test_it_leaves_the_evidence_of_local_workers(engine: Engine, tmp_path: Path) -> None:
    study = [*dummy_study.steps(), *(Step(f"train-{s}", ray_steps.train, {"seed": s}) for s in range(2))]
    heard: list[Any] = []
    runs = [
        execute("dummy", study, out=tmp_path / name / "run", engine=name, workers=2, progress=heard.append)
        for name in ("ray", "local")
    ]
    assert evidence(runs[0]) == evidence(runs[1])
    assert len(evidence(runs[0])) == (6 + 2) * 2 + 3
    assert [run.manifest["engine"] for run in runs] == ["ray", "local"]
    assert not list((tmp_path / "ray" / "store" / ".tmp").iterdir())


def test_running_steps_report_their_progress(engine: Engine, tmp_path: Path) -> None:
    heard: list[Any] = []
    slow = Step("slow", dummy_study.sample, {"seed": 0, "size": 3, "pause": 1.0})
    execute("dummy", [slow], out=tmp_path / "run", engine="ray", workers=1, progress=heard.append)
    reports = [e for e in heard if e["event"] == "progress"]
    assert {(e["step"], e["total"], e["note"]) for e in reports} == {("slow", 10, "lingering")}


def test_losing_a_worker_breaks_its_own_call_and_no_other(engine: Engine, tmp_path: Path) -> None:
    doomed = engine.submit(ray_steps.hold, tmp_path / "pid")
    other = engine.submit(time.sleep, 1.0)
    os.kill(wait_for(tmp_path / "pid")[0], signal.SIGKILL)
    assert isinstance(doomed.exception(timeout=60), BrokenExecutor)
    assert other.exception(timeout=60) is None
    assert engine.submit(abs, -1).result() == 1


def test_a_step_whose_worker_is_killed_is_submitted_again(engine: Engine, tmp_path: Path) -> None:
    place, heard = tmp_path / "pids", list[Any]()

    def kill() -> None:
        for n in range(1, REPEATED):
            os.kill(wait_for(place, n)[-1], signal.SIGKILL)

    watched = Step("watched", ray_steps.watched, {"place": str(place), "times": REPEATED - 1})
    killer = threading.Thread(target=kill)
    killer.start()
    study = [watched, *dummy_study.steps()]
    run = execute("dummy", study, out=tmp_path / "run", engine="ray", workers=2, progress=heard.append)
    killer.join()
    assert [event["losses"] for event in heard if event["event"] == "lost"] == list(range(1, REPEATED))
    assert (run.output("watched") / "answer.bin").read_bytes() == b"42"


def test_a_step_that_loses_every_worker_is_given_up(engine: Engine, tmp_path: Path) -> None:
    doomed = Step("doomed", dummy_study.suicide, {"counter": str(tmp_path / "counter"), "times": REPEATED})
    with pytest.raises(HeldoutError, match=f"step 'doomed' lost its worker {REPEATED} times"):
        execute("dummy", [doomed], out=tmp_path / "run", engine="ray", workers=2, progress=None)
    assert len((tmp_path / "counter").read_bytes()) == REPEATED


def test_an_abandoned_engine_kills_its_own_workers_and_leaves_ray_to_its_owner(engine: Engine, tmp_path: Path) -> None:
    another = make_engine("ray", 1)
    running, waiting = (another.submit(ray_steps.hold, tmp_path / name) for name in ("running", "waiting"))
    [pid] = wait_for(tmp_path / "running")
    another.shutdown(wait=False, cancel_futures=True)
    assert isinstance(running.exception(timeout=60), BrokenExecutor)
    assert waiting.cancelled()
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline, "the worker did not leave"
        time.sleep(0.02)
    assert engine.submit(abs, -1).result() == 1


def test_nodes_that_do_not_see_the_store_are_named_before_the_work_begins(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "begin", lambda store, key: store.root / ".tmp" / "elsewhere")
    host, out = socket.gethostname(), tmp_path / "run"
    with pytest.raises(
        StoreError, match=rf"node {host} of the cluster cannot write to {tmp_path}/store \(No such file"
    ):
        execute("dummy", dummy_study.steps(), out=out, engine="ray", workers=2, progress=None)
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name[0] != "."] == ["store.json"]


@pytest.mark.parametrize("name", ["local", "ray"])
def test_accumulators_over_shards_merge_to_one_stream(name: str, request: pytest.FixtureRequest) -> None:
    shards = [(0, 137), (137, 600), (600, 1000)]
    if name == "ray":
        request.getfixturevalue("engine")
    with make_engine(name, 2) as pool:
        moments, *others = pool.map(ray_steps.moments_of, shards)
        gram, *grams = pool.map(ray_steps.jacobian_gram_of, shards)
    for m, g in zip(others, grams, strict=True):
        moments.merge(m)
        gram.merge(g)
    x = ray_steps.rows()
    one = Moments()
    one.update(x)
    assert moments.mean is not None
    torch.testing.assert_close(moments.mean, x.mean(dim=0), rtol=1e-12, atol=0)
    for centred in (True, False):
        torch.testing.assert_close(
            moments.scatter(centred=centred), one.scatter(centred=centred), rtol=1e-12, atol=1e-9
        )
    torch.testing.assert_close(moments.scatter(), x.T.cov(correction=0) * len(x), rtol=1e-12, atol=1e-9)
    whole = ray_steps.jacobian_gram_of((0, 1000))
    torch.testing.assert_close(gram.matrix(), whole.matrix(), rtol=1e-12, atol=1e-15)
    assert (gram.items, gram.positions) == (whole.items, whole.positions) == (1000, 1000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "local", "address": "10.0.0.1:6379"}, "engine 'local' has no address"),
        ({"name": "ray", "device": "cuda:1"}, "say --device cuda"),
        ({"name": "ray", "address": "10.0.0.1:6379"}, "runs in this process already"),
        ({"name": "ray", "device": "cuda"}, "no node with a GPU"),
    ],
)
def test_engines_that_are_not_accepted(engine: Engine, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_engine(**options)


def test_without_ray_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_ray(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    arguments = ["run", "digits", "--preset", "smoke", "--device", "cpu", "--engine", "ray", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert 'pip install "heldout[ray]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_imports_ray_before_it_is_asked_for() -> None:
    code = "import sys, heldout, heldout.cli, heldout.runs, heldout.studies.running; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
