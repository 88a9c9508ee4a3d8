"""Executes runs: hands them to an engine, shows their progress, and keeps their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis import store
from analysis.engine.jobs import Engine, run_jobs
from analysis.engine.progress import RunsProgress
from analysis.plan import Run
from analysis.plan.data import check_label_files, data_digest, load_data
from analysis.plan.own_parts import keeping_lines, told
from ncsam import Dataset

if TYPE_CHECKING:
    import pandas as pd

Task = tuple[str, Callable[..., store.Record]]
"""(path of a run's file, function that writes the file). The function takes `report(doing, done, total)`."""


@dataclass(frozen=True)
class Outcome:
    """The result of work in a study's folder.

    Attributes:
        table: one row for each finished run.
        failed: path -> error of each run that failed.
    """

    table: pd.DataFrame
    failed: dict[str, str]


@dataclass(frozen=True)
class Work:
    """Work on the runs of a study's folder.

    Attributes:
        root: the folder.
        engine: executes the runs.
        shown: shows the progress.
        records: path -> record of each run that has finished so far.
        failed: path -> error of each run that has failed so far.
    """

    root: Path
    engine: Engine
    shown: RunsProgress
    records: dict[str, store.Record]
    failed: dict[str, str]

    def do(self, tasks: Iterable[Task]) -> None:
        """Executes all tasks. A task that fails does not stop the others, unless the disk is full or read-only.

        Raises:
            EngineError: the engine has ended.
            OSError: a task met a full or read-only disk.
            StoreError: the folder can no longer be written.
        """
        jobs = [(path, partial(timed, function)) for path, function in tasks]
        run_jobs(self.engine, jobs, self.shown.update, self._done)

    def _done(self, path: str, result: Timed | None, error: BaseException | None) -> None:
        self.shown.finish(path, result.seconds if result else None, error)
        if result is not None:
            self.records[path] = result.record
        if error is None:
            return
        # on a full disk every other run would fail too, after all of its work
        if store.is_of_the_disk(error):
            raise error
        self.failed[path] = told(error)
        store.check_writable(self.root)
        store.write_failure(self.root / path, self.failed[path])


class Timed(NamedTuple):
    """The record of a run, and the seconds that it took."""

    record: store.Record
    seconds: float


def timed(function: Callable[..., store.Record], *arguments: Any, **options: Any) -> Timed:
    """Calls the function and measures its time, in the worker. An error keeps the line of the user's file."""
    start = time.perf_counter()
    with keeping_lines():
        record = function(*arguments, **options)
    return Timed(record, time.perf_counter() - start)


def kind_of(run: Run) -> str:
    """The kind of a run: its method, whether it is a trial, and whether it has surfaces."""
    method = run.config.method.label
    if run.config.purpose == "selection":
        return f"{method}, to choose"
    return f"{method}, with surfaces" if run.config.has_surfaces else method


def check_data_of_finished(
    root: Path,
    run: Run,
    data_dir: Path | None,
    records: dict[str, store.Record],
    tell: Callable[[str], None],
) -> None:
    """Compares the data with those of finished runs, where nothing is left to do that needs the data.

    Args:
        root, run, data_dir, records: as for `load_checked_data`.
        tell: called with a line if files are missing. Results are shown without them too.

    Raises:
        StoreError: a finished run had other data.
    """
    try:
        check_label_files(run.config, data_dir)
        load_checked_data(root, run, data_dir, records)
    except FileNotFoundError as error:
        tell(f"data: {error}; so it is not checked whether they are still those of the finished runs")


def load_checked_data(
    root: Path, run: Run, data_dir: Path | None, records: dict[str, store.Record]
) -> tuple[Dataset, str]:
    """The data set of a study and its digest.

    Raises:
        StoreError: a finished run had other data.
        FileNotFoundError, ValueError: as for `load_dataset`.
    """
    dataset = load_data(run.config, data_dir)
    digest = data_digest(run.config, dataset, data_dir)
    for path, record in records.items():
        if record.data not in ("", digest):
            raise store.StoreError(
                f"out: {root / path} was trained on other data than there are now; choose another --out, or give back "
                "the files that --data-dir and noise name"
            )
    return dataset, digest
