"""Engines that execute runs: in this process, in a pool of local processes, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from analysis.engine.cluster import Cluster
from analysis.engine.jobs import Engine, EngineError, Event, Job, run_jobs
from analysis.engine.processes import Processes, cores
from analysis.engine.resources import IN_THIS_PROCESS, Resources
from analysis.engine.serial import Serial
from analysis.plan.errors import check_known

ENGINES = ("serial", "processes", "dask")

__all__ = [
    "ENGINES",
    "IN_THIS_PROCESS",
    "Engine",
    "EngineError",
    "Event",
    "Job",
    "Resources",
    "cores",
    "open_engine",
    "run_jobs",
]


@contextmanager
def open_engine(resources: Resources) -> Iterator[Engine]:
    """The engine for these resources. Its workers end with the context.

    Raises:
        EngineError: the engine is unknown, Dask is not installed, or the scheduler does not answer.
    """
    check_known(resources.engine, ENGINES, "engine", EngineError)
    engine: Engine
    if resources.engine == "serial":
        engine = Serial(resources.threads)
    elif resources.engine == "processes":
        engine = Processes(resources)
    else:
        engine = Cluster(resources)
    try:
        yield engine
    except BaseException:
        # such as Ctrl-C; the runs of the workers are in their checkpoints
        engine.close(at_once=True)
        raise
    else:
        engine.close(at_once=False)
