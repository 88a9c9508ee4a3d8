"""A whole study: choose hyper-parameters, train and measure every run, resuming what is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from analysis import store
from analysis.engine import open_engine, run_jobs
from analysis.engine.progress import Planned, RunsProgress
from analysis.engine.selection import check_choice, choose, only_choice
from analysis.plan import Choice, Run, Study, final_runs, selection_runs
from analysis.plan.against_data import check_against_data
from analysis.plan.data import data_digest, load_data
from analysis.printable import printable
from analysis.run.one_run import execute, has_surfaces


@dataclass(frozen=True)
class Outcome:
    """What a study's call did.

    Attributes:
        table: one row a finished run.
        failed: title of each run that failed -> its error.
    """

    table: pd.DataFrame
    failed: dict[str, str]


def run_study(
    study: Study,
    root: Path,
    *,
    engine: str,
    workers: int,
    device: str,
    data_dir: Path | None,
    console: Console,
    threads: int | None = None,
    scheduler: str | None = None,
) -> Outcome:
    """Brings the study folder to completion.

    Args:
        study: what to do.
        root: the study folder.
        engine: one of `ENGINES`, with `workers`, `threads` and `scheduler` as `open_engine` takes them.
        workers: how many.
        device: where to train and measure.
        data_dir: where data files are.
        console: where progress is shown.
        threads: of torch in each run; results are the same bit for bit only with the same number.
        scheduler: of Dask.

    Raises:
        StoreError: the folder is another study's, or in use, or its runs had other data or another choice.
        EngineError: no such engine here, or it is gone.
        FileNotFoundError, ValueError: the data set is not there, or broken.
    """
    finals = final_runs(study)
    trials = [trial for run in finals for trial in selection_runs(study, run)]
    # the seeds of a method and rate share their trials
    trials = list({trial.path: trial for trial in trials}.values())
    failed: dict[str, str] = {}

    def tell(line: str) -> None:
        console.print(printable(line), style="yellow", markup=False, highlight=False)

    with (
        store.locked(root, tell),
        open_engine(engine, workers, threads=threads, device=device, scheduler=scheduler) as executor,
    ):
        records = store.open_folder(root, study, finals + trials, tell)
        data = ""
        if not all(run.path in records for run in finals + trials):
            # what does not fit the data is better found here than by every worker
            dataset = load_data(finals[0].config, data_dir)
            check_against_data(study, dataset, data_dir)
            data = data_digest(finals[0].config, dataset, data_dir)
            _check_data(root, records, data)

        planned = {run.path: Planned(run.title, kind_of(run)) for run in trials + finals}
        with RunsProgress(console, planned, records, lambda: executor.workers) as shown:

            def done(path: str, result: Timed | None, error: BaseException | None) -> None:
                shown.finish(path, result.seconds if result else None, error)
                if result is not None:
                    records[path] = result.record
                    return
                failed[path] = f"{type(error).__name__}: {error}"
                # on a full disk every other run would fail as well, each after its training
                store.check_writable(root)
                store.write_failure(root / path, failed[path])

            def bring_about(runs: list[tuple[Run, Choice]]) -> None:
                jobs = [
                    # workers of a cluster may have been started in another folder
                    (
                        run.path,
                        partial(
                            timed,
                            execute,
                            run,
                            choice,
                            root.absolute(),
                            data_dir=data_dir and data_dir.absolute(),
                            device=device,
                            expected_data=data,
                        ),
                    )
                    for run, choice in runs
                    if run.path not in records
                ]
                run_jobs(executor, jobs, shown.update, done)

            bring_about([(trial, only_choice(trial)) for trial in trials])
            decided = []
            for run in finals:
                choice = choose(study, run, records)
                if choice is not None:
                    check_choice(root, run, records, choice)
                    decided.append((run, choice))
                elif run.path not in records:
                    failed[run.path] = "a run of its selection failed"
                    shown.leave_out(run.path)
            bring_about(decided)
        table = store.write_index(root, finals, records)
    return Outcome(table, failed)


def _check_data(root: Path, records: dict[str, store.Record], data: str) -> None:
    """Raises StoreError if a finished run had other data than the runs to come."""
    for path, record in records.items():
        if record.data not in ("", data):
            raise store.StoreError(
                f"out: {root / path} was trained on other data than there are now; choose another --out, or give back "
                "the files that --data-dir and noise name"
            )


class Timed(NamedTuple):
    """What a run left, and the seconds that it took."""

    record: store.Record
    seconds: float


def timed(function: Callable[..., store.Record], *arguments: Any, **options: Any) -> Timed:
    """Calls the function where the run is done, and looks at the clock there."""
    start = time.perf_counter()
    record = function(*arguments, **options)
    return Timed(record, time.perf_counter() - start)


def kind_of(run: Run) -> str:
    """Runs that take about the same time: of one method, trials apart, and those apart that compute surfaces."""
    method = run.config["method"]["label"]
    if run.config["purpose"] == "selection":
        return f"{method}, to choose"
    return f"{method}, with surfaces" if has_surfaces(run.config) else method
