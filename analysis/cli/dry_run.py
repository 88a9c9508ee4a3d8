"""What a study would do: its runs, how many are done, what they cost."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.text import Text

from analysis import store
from analysis.engine.time_left import in_words, time_left
from analysis.engine.work import kind_of
from analysis.plan import Run, Study, final_runs, selection_runs
from analysis.wording import percent


def print_plan(study: Study, root: Path, workers: int, console: Console) -> None:
    """Prints the grid of a checked study, its trainings and their cost; reads no data and writes nothing.

    Args:
        study: what would be done.
        root: its folder, which need not be there.
        workers: that would share the work.
        console: where to.
    """
    finals = final_runs(study)
    trials = list({trial.path: trial for run in finals for trial in selection_runs(study, run)}.values())
    left = [run for run in finals + trials if not (root / run.path).is_file()]
    lines = [
        f"study: {study.name}; dataset {study.dataset}; model {study.model.name}",
        f"noise: {study.noise.kind}, rates {' '.join(map(percent, study.noise.rates))}",
        f"seeds: {' '.join(map(str, study.seeds))}",
        *(f"method: {method.title}{_candidates(study.candidates(method))}" for method in study.methods),
        f"trainings: {len(finals)} to judge and {len(trials)} to choose hyper-parameters; {len(left)} are left",
        f"epochs left: {sum(run.config.training.epochs for run in left):,}",
        f"time left with {workers} workers: {_time(root, finals + trials, left, workers)}",
    ]
    for line in lines:
        console.print(Text(line))


def _candidates(candidates: list[dict[str, object]]) -> str:
    return f" (the best of {len(candidates)} candidates)" if len(candidates) > 1 else ""


def _time(root: Path, runs: list[Run], left: list[Run], workers: int) -> str:
    """From the seconds of training in the runs that are there."""
    if not left:
        return "none"
    seconds: dict[str, list[float]] = {}
    for run in runs:
        path = root / run.path
        if path.is_file():
            spent = float(store.read_history(path)["seconds"].iloc[-1])
            if math.isfinite(spent):
                seconds.setdefault(kind_of(run), []).append(spent)
    if not seconds:
        return "not known before a run is done"
    estimate = time_left(seconds, Counter(kind_of(run) for run in left), [], workers)
    return f"{in_words(estimate)}, measurements apart"
