"""Ray at its edges: a cluster by address, a node without the store, Ctrl-C, kill -9, GPUs, and what leaves the machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dummy_study
import pytest
from dummy_study import evidence
from test_ray_engine import family, gone

from heldout.runs import Run, execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc"),
]
HERE = Path(__file__).parent
RAY = str(Path(sys.executable).with_name("ray"))
# A test run in the background of a shell ignores Ctrl-C, and hands that down; a driver at a terminal does not.
DRIVER = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import sys; from pathlib import Path; import dummy_study as d; from heldout.runs import execute
from heldout.errors import HeldoutError
out, pause, address = sys.argv[1:]
try:
    execute("dummy", d.steps(float(pause)), out=Path(out), engine="ray", workers=2, address=address or None, progress=None)
except HeldoutError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def drive(out: Path, pause: float = 0.0, address: str = "", wrapped: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapped, sys.executable, "-c", DRIVER, str(out), str(pause), address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=HERE, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def at_work(out: Path) -> bool:
    """Whether two steps are being computed."""
    return len(list((out.parent / "store" / ".tmp").glob("*/progress.json"))) == 2


def folders() -> set[Path]:
    return set(Path("/tmp").glob("heldout-ray-*"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return evidence(execute("dummy", dummy_study.steps(2.0), out=out, engine="local", workers=2, progress=None))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Address, process and environment of a cluster of one node with two processors, on loopback, that runs already."""
    environment = os.environ | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # there is nowhere for its work to go
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost",
    }
    said = tmp_path_factory.mktemp("r") / "said"
    short = Path("/tmp") / f"ray-test-{os.getpid()}"  # a socket's path has to be short
    address = short / "ray_current_cluster"  # written when it is up; a head on loopback does not print it
    command = [RAY, "start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--block"]
    with said.open("w") as file:
        node = subprocess.Popen(
            [*command, f"--temp-dir={short}"], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_until(lambda: "will now block" in said.read_text() or node.poll() is not None)
        assert address.exists(), said.read_text()
        yield address.read_text(), node.pid, environment
    finally:
        everybody = family(node.pid)
        node.terminate()
        node.wait(60)
        for pid in everybody:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(short, ignore_errors=True)


def test_ctrl_c_leaves_no_process_and_no_folder(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    before = folders()
    driver = drive(tmp_path / "run", 2.0)
    wait_until(lambda: at_work(tmp_path / "run"))
    everybody = family(driver.pid)
    assert len(everybody) > 5
    os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to all of them
    _, said = driver.communicate(timeout=60)
    assert said.count("KeyboardInterrupt") == 1
    wait_until(lambda: all(map(gone, everybody)), 30)
    assert folders() == before
    again = drive(tmp_path / "run", 2.0)
    assert again.communicate(timeout=300)[1] == ""
    assert evidence(Run.open(tmp_path / "run")) == undisturbed


def test_a_killed_driver_takes_its_ray_along(tmp_path: Path) -> None:
    before = folders()
    driver = drive(tmp_path / "run", 2.0)
    wait_until(lambda: at_work(tmp_path / "run"))
    everybody = family(driver.pid)
    driver.kill()
    driver.communicate()
    wait_until(
        lambda: all(map(gone, everybody)), 180
    )  # Ray looks for its driver now and then, on a busy machine rarely
    for folder in folders() - before:
        shutil.rmtree(folder)


def test_nothing_but_loopback_is_ever_called(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    driver = drive(tmp_path / "run", wrapped=("strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace)))
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    called = set(re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', trace.read_text()))
    assert called
    assert {(four or six).removeprefix("::ffff:").partition(".")[0] for four, six in called} <= {"127", "::1"}, called


def test_a_cluster_by_address_leaves_the_same_evidence_and_goes_on(
    tmp_path: Path,
    cluster: tuple[str, int, dict[str, str]],
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, node, environment = cluster
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, environment[name])
    driver = drive(tmp_path / "run", 2.0, address)
    wait_until(lambda: at_work(tmp_path / "run"))
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=60)
    assert not gone(node)
    again = drive(tmp_path / "run", 2.0, address)
    assert again.communicate(timeout=300)[1] == ""
    assert not gone(node)
    assert evidence(Run.open(tmp_path / "run")) == undisturbed


def nodes(address: str, environment: dict[str, str]) -> int:
    """How many nodes of the cluster are known with what they have."""
    script = f"import ray; ray.init({address!r}, logging_level='error'); "
    script += "print(sum(n['Alive'] and n['Resources'].get('CPU', 0) >= 1 for n in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    return int(done.stdout) if done.returncode == 0 else 0


# What `ray` does, but for its refusal to join a cluster on loopback: two nodes of one machine can.
JOIN = """
import types; import ray.scripts.scripts as s
s.ray_constants = types.SimpleNamespace(**vars(s.ray_constants) | {"ENABLE_RAY_CLUSTER": True}); s.main()
"""


def test_a_node_that_does_not_see_the_store_is_named(
    tmp_path: Path, cluster: tuple[str, int, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts here (unshare is missing or not permitted)")
    address, _, environment = cluster
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, environment[name])
    shared = tmp_path / "shared"
    shared.mkdir()
    join = [sys.executable, "-c", JOIN, "start", f"--address={address}", "--num-cpus=1", "--block"]
    other = subprocess.Popen(
        [*private, "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(shared), *join],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: nodes(address, environment) == 2)
        _, said = drive(shared / "run", 0.0, address).communicate(timeout=300)
        assert re.search(rf"StoreError: node \S+ of the cluster cannot write to {shared}/store \(No such file", said), (
            said
        )
        assert not list((shared / "store").glob("[0-9a-f]*"))
    finally:
        everybody = family(other.pid)
        other.terminate()
        other.wait(60)
        for pid in everybody:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_an_address_where_nobody_answers(tmp_path: Path) -> None:
    _, said = drive(tmp_path / "run", 0.0, "127.0.0.1:9").communicate(timeout=300)
    assert "ConfigError: Ray cannot be reached at '127.0.0.1:9'" in said
    assert not (tmp_path / "run").exists()


GPUS = """
import json, ray, ray_steps
from heldout.runs.engine import make_engine
ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="error", _temp_dir=TEMP)
with make_engine("ray", device="cuda") as engine:
    print(json.dumps([engine.workers, engine.submit(ray_steps.surroundings).result()["gpus"]]))
ray.shutdown()
"""


def test_with_cuda_each_call_has_one_gpu_of_its_own() -> None:
    short = f"/tmp/heldout-gpu-{os.getpid()}"
    environment = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "http_proxy": "http://127.0.0.1:9"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"TEMP = {short!r}\n{GPUS}"],
            env=environment,
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [1, "0"]
