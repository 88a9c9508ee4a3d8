"""The plan of a study: its runs, how many are finished, and what the others cost."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from analysis import store
from analysis.engine import Resources
from analysis.engine.processes import threads_of_each, torch_threads
from analysis.engine.selection import check_choice, choose
from analysis.engine.time_left import in_words, time_left
from analysis.engine.work import kind_of, load_checked_data
from analysis.plan import Run, Study, all_trials, final_runs
from analysis.plan.against_data import check_against_data, memory_of_a_run
from analysis.printable import say
from analysis.run import RunContext
from analysis.run.forecast import seconds_of_training
from landscape.results.wording import listed


def print_plan(study: Study, root: Path, resources: Resources, console: Console) -> None:
    """Prints the grid of a checked study, its trainings, and the memory and time that they need. Writes nothing.

    Args:
        study: the study. If its data exist, it is checked against them too.
        root: its folder, which need not exist.
        resources: engine, workers, device and data files.
        console: where the plan is printed.

    Raises:
        StudyError: the study is impossible on its data.
        StoreError: the study itself would refuse the folder: it holds something else, another study, or runs of this
            study with other settings, other data or another choice of hyper-parameters.
    """
    finals, trials = final_runs(study), all_trials(study)
    records = store.look_into_folder(root, study, finals + trials, partial(say, console, style="yellow"))
    for run in finals:
        if choice := choose(study, run, records):
            check_choice(root, run, records, choice)
    left = [run for run in finals + trials if run.path not in records]
    lines = [
        f"study: {study.name}; dataset {study.dataset}; model {study.model.name}",
        f"noise: {study.noise.kind}, rates {listed(study.noise.rates)}",
        f"seeds: {' '.join(map(str, study.seeds))}",
        *(f"method: {method.title}{_candidates(study.candidates(method))}" for method in study.methods),
        f"trainings: {len(finals)} to judge and {len(trials)} to choose hyper-parameters; {len(left)} are left",
        f"epochs left: {sum(run.config.training.epochs for run in left):,}",
        *_cost(study, root, finals + trials, records, resources),
    ]
    for line in lines:
        console.print(Text(line))


def _cost(
    study: Study, root: Path, runs: list[Run], records: dict[str, store.Record], resources: Resources
) -> list[str]:
    """Memory and time. Without the data, the memory is unknown, and only finished runs tell the time."""
    missing = ""
    memory = "memory of a run: "
    try:
        dataset, _ = load_checked_data(root, runs[0], resources.data_dir, records)
    except FileNotFoundError as error:
        missing = str(error)
        memory += f"not known without the data ({error})"
    else:
        check_against_data(study, dataset, resources.data_dir)
        needed = memory_of_a_run(study, dataset)
        memory += (
            f"{needed.bytes / 2**20:,.0f} MiB for the data and the vectors of {needed.parameters:,} parameters, "
            "beside libraries and activations"
        )
    workers = f"time left with {resources.workers} workers: "
    return [memory, workers + _time(root, runs, records, resources, can_be_tried=not missing)]


def _candidates(candidates: list[dict[str, object]]) -> str:
    return f" (the best of {len(candidates)} candidates)" if len(candidates) > 1 else ""


def _time(
    root: Path, runs: list[Run], records: dict[str, store.Record], resources: Resources, *, can_be_tried: bool
) -> str:
    """The time left, from the seconds of finished runs, and for other kinds of runs from a step that is timed now."""
    left = [run for run in runs if run.path not in records]
    if not left:
        return "none"
    seconds: dict[str, list[float]] = {}
    for run in runs:
        if run.path in records:
            spent = float(records[run.path].row["seconds"])
            if math.isfinite(spent):
                seconds.setdefault(kind_of(run), []).append(spent)
    said = "without measurements, whose time a first run tells"
    untimed = {kind_of(run): run for run in left if kind_of(run) not in seconds}
    if untimed and can_be_tried:
        said = f"by a step of each method, {said}"
        context = RunContext(root, resources.data_dir, resources.device)
        with torch_threads(resources.threads or threads_of_each(resources.workers)):
            for kind, run in untimed.items():
                seconds[kind] = [seconds_of_training(run, context)]
    if not seconds:
        return "not known before a run is done"
    estimate = time_left(seconds, Counter(kind_of(run) for run in left), [], resources.workers)
    return f"{in_words(estimate)}, {said}"
