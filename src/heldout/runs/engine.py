"""Engines: where steps run. An engine is a `concurrent.futures.Executor`; a new one is a case of `make_engine`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from heldout.errors import ConfigError, unknown
from heldout.runs.store import Store

P = ParamSpec("P")
T = TypeVar("T")

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Engine(Executor):
    """An executor that says how many calls it runs at a time (`workers`)."""

    workers: int

    def share(self, store: Store) -> None:
        """Raise StoreError where a worker cannot write to `store`; workers on this machine can where it can."""
        return


class InlineEngine(Engine):
    """Runs each call at once in this process: for debugging, and for tests. It keeps this process's threads."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalEngine(Engine):
    """Worker processes of one compute thread each.

    Every worker is a pool of its own, so that losing one (killed, out of memory) breaks the future that it was
    working on and no other. The next call that falls to it gets a new worker.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")
        # Workers hold the reading end. It closes when this process dies, however it dies, and they leave.
        self._leash, self._hand = self._context.Pipe(duplex=False)
        self._pools = [self._new_pool() for _ in range(workers)]
        self._futures: list[list[Future[Any]]] = [[] for _ in range(workers)]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self._futures = [[f for f in futures if not f.done()] for futures in self._futures]
        slot = min(range(self.workers), key=lambda i: len(self._futures[i]))
        try:
            future = self._pools[slot].submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pools[slot] = self._new_pool()
            future = self._pools[slot].submit(fn, *args, **kwargs)
        self._futures[slot].append(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `wait`, let running calls finish. Without, workers leave at once and running calls are lost."""
        if not wait:
            self._hand.close()
        for pool in self._pools:
            # Waiting is short where workers leave at once, and keeps their pools from being closed twice at exit.
            pool.shutdown(wait=True, cancel_futures=cancel_futures or not wait)
        self._hand.close()
        self._leash.close()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_start_worker, initargs=(self._leash,))


def _start_worker(leash: Connection) -> None:
    """One compute thread, deaf to Ctrl-C (the driver decides), gone when the driver is."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if "torch" in sys.modules:  # the driver's script imports it at its top: too late for the environment
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        leash.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


ENGINES = ("local", "inline", "ray")


def available_cpus() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_engine(name: str, workers: int | None = None, *, address: str | None = None, device: str = "cpu") -> Engine:
    """An engine by its name; `workers` is one for each processor where None. Raises ConfigError.

    `address` (of a running cluster) and `device` (where the calls will compute) matter to ``ray`` only.
    """
    if name not in ENGINES:
        raise ConfigError(unknown("engine", name, ENGINES))
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; at least 1 is needed")
    if address is not None and name != "ray":
        raise ConfigError(f"engine {name!r} has no address ({address!r}); a cluster's is for engine 'ray'")
    if name == "inline":
        return InlineEngine()
    if name == "local":
        return LocalEngine(workers or available_cpus())
    from heldout.runs.ray_engine import RayEngine

    return RayEngine(workers, address=address, device=device)
