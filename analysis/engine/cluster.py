"""A Dask cluster: the workers of a scheduler, or workers that are started on this machine."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import multiprocessing
import queue
import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import analysis
import landscape
import ncsam
from analysis.engine.jobs import EngineError, Event, Job, OnEvent, no_listener
from analysis.engine.processes import (
    gpus_of_workers,
    kill_children,
    threads_of_each,
    torch_threads,
    wait_passively,
)
from analysis.engine.resources import Resources

IN_HAND = 1000
"""Jobs that are submitted at a time: many enough for a cluster that grows with them, few enough for the memory."""
SECONDS_TO_ANSWER = 5
"""With the start of Python, an error is then shown within ten seconds."""


class Cluster:
    """Jobs as Dask tasks. Dask itself gives the job of a dead worker to another, until several workers have died."""

    slots = IN_HAND
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, resources: Resources) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise EngineError("--engine: 'dask' needs pip install 'ncsam[cluster]'") from error
        self.on_event: OnEvent = no_listener
        workers, threads, scheduler = resources.workers, resources.threads, resources.scheduler
        # Dask itself would wait for half a minute and end with a traceback
        if scheduler is not None and not re.fullmatch(r"((tcp|tls)://)?[^/]+:\d+", scheduler):
            raise EngineError(f"--scheduler: must look like tcp://host:8786, got {scheduler!r}")
        is_gpu = torch.device(resources.device).type == "cuda"
        self._cluster = None
        self._gpus: list[int] = []
        self._threads = threads
        self._others = multiprocessing.active_children()
        if scheduler is None:
            wait_passively()
            self._threads = threads or threads_of_each(workers)
            self._gpus = gpus_of_workers(workers, resources.device)
            self._cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                # an address by the machine's own name may pass a firewall
                host="127.0.0.1",
                # without certificates, anybody who knows the address of a cluster can execute code in it
                security=_certificates(),
                resources={"GPU": 1} if is_gpu else None,
            )
        if scheduler is not None:
            _expect_an_answer(scheduler)
        self._client = Client(self._cluster or scheduler, timeout=SECONDS_TO_ANSWER, set_as_default=False)
        if scheduler is not None:
            self._wait_for_a_worker(scheduler)
        self._executor = self._client.get_executor(
            pure=False, **({"resources": {"GPU": 1}} if is_gpu else {})
        )
        self._topic = f"ncsam-{secrets.token_hex(6)}"
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._client.subscribe_topic(self._topic, lambda event: self._events.put(tuple(event[1])))

    def _wait_for_a_worker(self, scheduler: str) -> None:
        try:
            self._client.wait_for_workers(1, timeout=SECONDS_TO_ANSWER / 2)
        except TimeoutError as error:
            self._client.close(timeout=1)
            raise EngineError(
                f"--scheduler: {scheduler} has no worker; start some by 'dask worker {scheduler}'"
            ) from error

    @property
    def workers(self) -> int:
        """The number of workers that the scheduler now knows; 0 if the scheduler is gone."""
        try:
            return len(self._client.nthreads())
        except OSError:
            return 0

    def submit(self, job: Job) -> Future[Any]:
        """Hands a job to the scheduler."""
        future: Future[Any] = self._executor.submit(
            _work, job, self._topic, self._threads, self._gpus, code_digest()
        )
        return future

    def deliver(self) -> None:
        """Passes on the events that the workers have logged."""
        while not self._events.empty():
            self.on_event(self._events.get())

    def renew(self) -> None:
        """Does nothing, because Dask itself replaces its workers."""

    def close(self, *, at_once: bool) -> None:
        """Gives up the jobs, and ends the workers if they were started here."""
        if at_once:
            with _dask_silenced():
                self._end_at_once()
            return
        self._executor.shutdown()
        self._client.close(timeout=SECONDS_TO_ANSWER)
        if self._cluster is not None:
            self._cluster.close(timeout=SECONDS_TO_ANSWER)

    def _end_at_once(self) -> None:
        """Ends the workers in the middle of their jobs, for which Dask itself would wait."""
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():
                nanny.auto_restart = False
            kill_children(besides=self._others)
        self._executor.shutdown(wait=False)
        for part in (self._client, self._cluster):
            # a worker that no longer answers is gone
            with suppress(Exception):
                if part is not None:
                    part.close(timeout=1)


_ONE_AT_A_TIME = threading.Lock()
"""Held by one job of a worker at a time, because its threads share torch's random state and number of threads."""


@functools.cache
def code_digest() -> str:
    """SHA-256 of the source files of all packages that a run uses."""
    digest = hashlib.sha256()
    for package in (analysis, landscape, ncsam):
        root = Path(next(iter(package.__path__)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _dask_silenced() -> Iterator[None]:
    """Inside the block nothing is logged. Dask would log tracebacks about workers that are ended at once."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _certificates() -> Any:
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise EngineError("--engine: 'dask' needs pip install 'ncsam[cluster]' (cryptography)") from error


def _expect_an_answer(scheduler: str) -> None:
    """Greets the scheduler as Dask does, but with a time limit. Dask's client waits without end for a silent port."""
    from distributed.comm import connect
    from distributed.security import Security

    async def greet() -> None:
        comm = await connect(scheduler, timeout=SECONDS_TO_ANSWER, **Security().get_connection_args("client"))
        comm.abort()

    async def greet_in_time() -> None:
        await asyncio.wait_for(greet(), SECONDS_TO_ANSWER)

    try:
        # in a thread of its own, because the thread of a notebook has a running loop
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(greet_in_time())).result()
    except Exception as error:  # another server, or one with other certificates, may cause any error
        hint = "; tls:// needs the certificates in Dask's configuration" if "tls://" in scheduler else ""
        raise EngineError(f"--scheduler: no Dask scheduler answers at {scheduler!r}{hint}") from error


def _work(job: Job, topic: str, threads: int | None, gpus: list[int], expected_code: str) -> Any:
    from distributed import get_worker

    worker: Any = get_worker()
    if code_digest() != expected_code:
        raise EngineError(
            f"--scheduler: the worker {worker.address} has other code of ncsam than the study; install the same there, "
            "and start the worker anew"
        )
    identity, function = job
    # the worker of a scheduler may have other tasks than these
    with _ONE_AT_A_TIME, torch_threads(threads):
        if gpus:
            torch.cuda.set_device(gpus[int(worker.name)])
        return function(report=lambda *event: worker.log_event(topic, (identity, *event)))
