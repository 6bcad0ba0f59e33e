"""The engine `ray`: calls as tasks of a Ray that is started here and for this engine alone, or of a running cluster.

Ray is an extra (``pip install "heldout[ray]"``) and imported only where an engine is made.
"""

from __future__ import annotations

import os
import pickle
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from heldout.errors import ConfigError, StoreError
from heldout.runs.engine import THREADS, Engine, available_cpus
from heldout.runs.store import Store

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0  # seconds that a network file system may take to show a worker a folder that was just made
ANSWER = 120.0  # seconds that a node may take to start a worker and answer
REACH = 10.0  # seconds that a cluster's address may take to answer at all; Ray itself waits for minutes

# The name is old: off, it is what makes a Ray that is started here listen on loopback only. Read when ray is imported.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
# Ray asks the cloud's metadata service where it runs, also with usage reports off. Its daemons find a closed door.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost,::1"}
INHERITED = ("CUBLAS_WORKSPACE_CONFIG", *OFFLINE)  # what a worker takes from this process, wherever it is


class RayEngine(Engine):
    """Worker processes of one compute thread each, on this machine or on the nodes of a Ray cluster.

    - `workers`: calls at a time; where None one for each processor, of the cluster where there is one (with a CUDA
      device one for each GPU).
    - `address`: ``host:port`` of a running cluster, or ``auto`` for the one that this machine belongs to. None starts a
      Ray of this machine, which listens on loopback only, has no dashboard, and ends with the engine. A Ray that this
      process has started already is used as it is and left running.
    - `device`: with ``cuda`` every call is given one GPU of its own.

    A lost worker breaks the future that it was working on and no other; Ray itself repeats nothing. Raises ConfigError
    where Ray is missing, cannot be started or reached, or has not what is asked for.
    """

    def __init__(self, workers: int | None = None, *, address: str | None = None, device: str = "cpu") -> None:
        if device.startswith("cuda") and device != "cuda":
            raise ConfigError(f"device {device!r}: Ray gives each step a GPU of its own, so say --device cuda")
        self._held = ExitStack()
        with ExitStack() as started:
            self._ray, self._own = started.enter_context(_connected(address, workers))
            unit, resources = ("GPU", {"num_gpus": 1}) if device == "cuda" else ("CPU", {})
            self._nodes = [n for n in self._ray.nodes() if n["Alive"] and n["Resources"].get(unit, 0) >= 1]
            if not self._nodes:
                raise ConfigError(f"Ray has no node with a {unit}; start one, or choose another --device")
            self.workers = workers or int(sum(n["Resources"][unit] for n in self._nodes))
            self._held = started.pop_all()
        variables = dict.fromkeys(THREADS, "1") | {k: os.environ.get(k, "") for k in INHERITED}
        self._remote = self._ray.remote(max_retries=0, runtime_env={"env_vars": variables})(_call)
        self._task = self._remote.options(num_cpus=1, **resources)
        self._mark: str | None = None
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="heldout-ray")
        self._lock = threading.Lock()
        self._running: set[Any] | None = set()  # None once calls are no longer handed to Ray

    def share(self, store: Store) -> None:
        """Ask every node whether it can write to `store`; later ones are asked before their first call. StoreError."""
        if self._own:
            return
        mark = store.begin("workers")
        self._held.callback(shutil.rmtree, mark, ignore_errors=True)
        self._mark = str(mark)
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = [  # no mapping by name: two nodes may be of one machine
            self._remote.options(num_cpus=0, scheduling_strategy=near(node["NodeID"], soft=False)).remote(
                *self._sent(int)
            )
            for node in self._nodes
        ]
        for node, answer in zip(self._nodes, asked, strict=True):
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                self._ray.get(answer, timeout=ANSWER)
            except self._ray.exceptions.RayError as error:
                if isinstance(cause := getattr(error, "cause", None), StoreError):
                    raise cause from None
                said = str(cause or error).strip().splitlines()[-1]
                raise StoreError(
                    f"node {name} of the cluster cannot run a step: {said}. Every node needs the same Python, heldout "
                    "and Ray as this process"
                ) from error

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `wait`, let running calls finish. Without, their workers are killed and running calls are lost."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures or not wait)
        if not wait:
            with self._lock:
                lost, self._running = self._running or set(), None
            for answer in lost:
                self._ray.cancel(answer, force=True)
        self._threads.shutdown(wait=True)
        self._held.close()

    def _sent(
        self, fn: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> tuple[str | None, list[str], bytes]:
        """The arguments of `_call`; modules are looked for where this process does, as multiprocessing does it."""
        path = [str(Path(place).resolve()) for place in sys.path]
        return self._mark, path, self._ray.cloudpickle.dumps((fn, args, kwargs or {}))

    def _run(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        with self._lock:
            if self._running is None:
                raise BrokenExecutor("the engine was abandoned")
            answer = self._task.remote(*self._sent(fn, args, kwargs))
            self._running.add(answer)
        try:
            result: T = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise BrokenExecutor(str(error)) from error
        finally:
            with self._lock:
                if self._running is not None:
                    self._running.remove(answer)
        return result


def _call(mark: str | None, path: list[str], pickled: bytes) -> Any:
    """What runs in a worker: the call is read only when its modules can be found and the store was seen."""
    sys.path += [place for place in path if place not in sys.path]
    if mark is not None:
        _see(mark)
    fn, args, kwargs = pickle.loads(pickled)  # of the driver's own making, as in multiprocessing; no file is unpickled
    return fn(*args, **kwargs)


@cache
def _see(mark: str) -> None:
    """Raise StoreError where this process cannot write into the folder that the driver made in its store."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with tempfile.TemporaryDirectory(dir=mark):
                return
        except OSError as error:
            if isinstance(error, FileNotFoundError) and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise StoreError(
                f"node {socket.gethostname()} of the cluster cannot write to {Path(mark).parents[1]} "
                f"({error.strerror}). Steps leave their files there, so every node needs it at this path; choose --runs "
                "on a file system that they share"
            ) from None


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[tuple[ModuleType, bool]]:
    """Ray, and whether it was started here; what was started or connected ends with the context."""
    with ExitStack() as stack:
        stack.enter_context(_environment(QUIET | (LOOPBACK if address is None else {})))
        ray = _import_ray()
        if ray.is_initialized():
            if address is not None:
                raise ConfigError("Ray runs in this process already: end it with ray.shutdown(), or give no address")
            yield ray, False
            return
        if address is not None and "://" in address:
            raise ConfigError(
                f"address {address!r} is not accepted; give host:port or auto, on a machine that belongs to the cluster"
            )
        stack.enter_context(_sigterm_kept())
        options: dict[str, Any] = {"address": address}
        if address is None:
            folder = tempfile.mkdtemp(prefix="heldout-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cpus = workers or available_cpus()
            options = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "_temp_dir": folder}
            stack.enter_context(_environment({"RAY_AUTH_TOKEN": _token()}, "RAY_AUTH_MODE"))
        stack.callback(ray.shutdown)
        try:
            if address is not None:
                _knock(address)
            with _environment(OFFLINE if address is None else {}):
                ray.init(**options, logging_level="error")
        except Exception as error:  # Ray raises that very class where it waits in vain
            what = "be started" if address is None else f"be reached at {address!r}"
            raise ConfigError(f"Ray cannot {what}: {str(error).strip().splitlines()[0]}") from error
        if address is None and not ip_address(at := ray.util.get_node_ip_address()).is_loopback:
            raise ConfigError(
                f"Ray would listen on {at} and not on loopback only; make the engine before anything imports ray, or set "
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
            )
        yield ray, address is None


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens at ``host:port``; ``auto`` and the like are Ray's to find."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError(f"engine 'ray' needs the extra: pip install \"heldout[ray]\" ({error})") from None
    return ray


@cache
def _token() -> str:
    """What the processes of a Ray started here know each other by; Ray reads it once a process."""
    return secrets.token_hex(32)


@contextmanager
def _environment(variables: Mapping[str, str], *others: str) -> Iterator[None]:
    """Variables of this process's environment set, and put back together with `others`, which Ray sets."""
    before = {name: os.environ.get(name) for name in (*variables, *others)}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what SIGTERM does: Ray replaces it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
