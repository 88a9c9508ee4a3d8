"""A study of thousands of tiny runs: the overhead of a run, and costs that grow with the number of runs.

    python bench/study.py                # 2,000 runs, some 10 minutes on 2 cores
    python bench/study.py --runs 200

The study grows in one folder from an eighth of its runs to all of them, as with more and more seeds. Overhead is the
time of a worker from the end of one run to the end of the next, minus training (without checkpoints) and measuring. It
is measured on the clock, which includes waiting for the disk and for other processes, and in CPU time, which does not.
The CPU time of the parent leaves out its reading of earlier runs; its memory is the peak so far.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from timing import parser_of, table

import analysis.engine.whole_study
import analysis.run.one_run
import analysis.run.training
import ncsam.training
from analysis import store
from analysis.engine import Resources
from analysis.plan import final_runs, read_study

ROOT = Path(__file__).resolve().parents[1]
SEEDS_OF_2000 = 100
STUDY = ROOT / "bench" / "study.toml"


class Stopwatch:
    """Seconds on the clock and of CPU, added up over calls, minus those of calls that are left out."""

    def __init__(self) -> None:
        self.spent = np.zeros(2)

    def around(self, owner: Any, name: str, sign: int = 1) -> None:
        """From now on times every call of a function."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            start = now()
            try:
                return function(*arguments, **options)
            finally:
                self.spent += sign * (now() - start)

        setattr(owner, name, timed)


def now() -> np.ndarray:
    """The time on the clock, and the CPU time of this process."""
    return np.array([time.perf_counter(), time.process_time()])


@functools.cache
def stopwatch() -> Stopwatch:
    """The stopwatch of this worker's training (without checkpoints) and measuring."""
    watch = Stopwatch()
    watch.around(analysis.run.training.Training, "fit")
    watch.around(ncsam.training, "save_checkpoint", sign=-1)
    watch.around(analysis.run.one_run, "measure")
    return watch


last_end: np.ndarray | None = None


def execute_watched(*arguments: Any, log: Path, **options: Any) -> Any:
    """Executes a run and records its overhead. The first run of a worker, which imports and loads all, is left out."""
    global last_end
    watch = stopwatch()
    watch.spent[:] = 0
    record = analysis.run.one_run.execute(*arguments, **options)
    end = now()
    if last_end is not None:
        with (log / str(os.getpid())).open("a") as file:
            print(*(end - last_end - watch.spent), *watch.spent, file=file)
    last_end = end
    return record


def bring_to(count: int, folder: Path, workers: int) -> list[str]:
    """Lets the study in the folder grow to a number of runs, and returns the measurements as a row of the table."""
    seeds = list(range(max(1, count * SEEDS_OF_2000 // 2000)))
    path = folder / "study.toml"
    path.write_text(STUDY.read_text().replace("seeds = [0]", f"seeds = {seeds}"))
    study, log = read_study(path), folder / f"log-{count}"
    log.mkdir()
    analysis.engine.whole_study.execute = functools.partial(execute_watched, log=log)
    there = len(list((folder / "out").rglob("seed*.h5")))
    reading = Stopwatch()
    reading.around(store, "open_folder")
    before, start = time.process_time(), time.perf_counter()
    outcome = analysis.engine.whole_study.run_study(
        study,
        folder / "out",
        Resources("processes", workers, threads=1),
        console=Console(stderr=True),
    )
    assert not outcome.failed
    wall, parent = time.perf_counter() - start, time.process_time() - before - reading.spent[1]
    rows = np.concatenate([np.loadtxt(file, ndmin=2) for file in log.iterdir()])
    overhead, overhead_cpu, useful, useful_cpu = 1e3 * rows.mean(axis=0)
    runs = len(outcome.table)
    return [
        f"{runs:,}",
        f"{overhead:.0f}",
        f"{overhead_cpu:.0f}",
        f"{useful:.0f}",
        f"{useful_cpu:.0f}",
        f"{1e3 * parent / (runs - there):.1f}",
        f"{wall:.0f}",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
    ]


def seconds_of(task: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of CPU in this process and in processes for which it waited."""

    def cpu() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    start, before = time.perf_counter(), cpu()
    task()
    return time.perf_counter() - start, cpu() - before


def judge(out: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "analysis.cli", "claims", str(out)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="a multiple of 160 (default: 2000)")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [bring_to(args.runs // part, folder, args.workers) for part in (8, 4, 2, 1)]
        header = ["runs", "overhead, ms", "of CPU", "training and measuring, ms", "of CPU"]
        table(
            f"{args.workers} workers, one thread each, torch {torch.__version__}",
            [*header, "parent's CPU, ms a run", "s in all", "parent's memory, MiB"],
            rows,
        )
        out = folder / "out"
        runs = final_runs(read_study(folder / "study.toml"))
        records: dict[str, store.Record] = {}
        tasks: dict[str, Callable[[], Any]] = {
            "read and check every file, as a resumed study does": lambda: records.update(
                {run.path: store.read_record(out / run.path) for run in runs}
            ),
            "write the index": lambda: store.write_index(out, runs, records),
            "read the index": lambda: store.read_table(out),
            "`ncsam claims`, with the start of Python": lambda: judge(out),
        }
        seconds = {name: seconds_of(task) for name, task in tasks.items()}
        table(
            f"{len(runs):,} finished runs",
            ["what", "s", "of CPU"],
            [[name, f"{wall:.1f}", f"{cpu:.1f}"] for name, (wall, cpu) in seconds.items()],
        )
        sizes = [(out / run.path).stat().st_size for run in runs]
        index = (out / "study.h5").stat().st_size
        print(f"A run's file: {np.mean(sizes) / 1024:.0f} KiB; the index: {index / 1024:.0f} KiB.")


if __name__ == "__main__":
    main()
