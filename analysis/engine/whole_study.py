"""A whole study: chooses hyper-parameters, trains and measures every run, and resumes earlier work."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from analysis import store
from analysis.engine import IN_THIS_PROCESS, Resources, open_engine
from analysis.engine.jobs import Engine, no_listener, run_jobs
from analysis.engine.progress import Planned, RunsProgress
from analysis.engine.selection import check_choice, choose, only_choice
from analysis.engine.work import Outcome, Work, check_data_of_finished, kind_of, load_checked_data
from analysis.plan import Choice, Run, Study, all_trials, final_runs
from analysis.plan.against_data import check_against_data
from analysis.plan.errors import StudyError
from analysis.plan.own_parts import loaded, told
from analysis.printable import say
from analysis.run.context import RunContext
from analysis.run.one_run import execute
from analysis.run.own_measures_tried import try_own_measures


def run_study(
    study: Study, root: Path, resources: Resources = IN_THIS_PROCESS, *, console: Console | None = None
) -> Outcome:
    """Executes all runs of a study that are not finished.

    Args:
        study: the study.
        root: the study folder.
        resources: engine, workers, device and data files.
        console: where progress is shown; the terminal if not given.

    Raises:
        StoreError: the folder belongs to another study or is in use, or its runs had other data or another choice.
        StudyError: a measure of the user's fails on an untrained model.
        EngineError: the engine does not exist here, or is gone.
        FileNotFoundError, ValueError: the data set is missing or broken.
    """
    console = console or Console()
    tell = partial(say, console, style="yellow")
    data_dir, own_parts = resources.data_dir, loaded(study.own_parts)
    finals, trials = final_runs(study), all_trials(study)
    with (
        store.locked(root, tell),
        open_engine(resources) as engine,
    ):
        records = store.open_folder(root, study, finals + trials, tell)
        data = ""
        if all(run.path in records for run in finals + trials):
            check_data_of_finished(root, finals[0], data_dir, records, tell)
        else:
            dataset, data = load_checked_data(root, finals[0], data_dir, records)
            # faults are found here once, rather than by every worker
            check_against_data(study, dataset, data_dir)
        # an absolute path, because workers of a cluster may have been started in another folder
        context = RunContext(
            root.absolute(), data_dir and data_dir.absolute(), resources.device, data, own_parts
        )
        if own_parts and study.measured and any(run.path not in records for run in finals):
            _try_own_measures(engine, finals[0], context)
        train = partial(execute, context=context)
        planned = {run.path: Planned(run.title, kind_of(run)) for run in trials + finals}
        with RunsProgress(console, planned, records, lambda: engine.workers) as shown:
            work = Work(root, engine, shown, records, {})
            missing = [trial for trial in trials if trial.path not in records]
            work.do([(trial.path, partial(train, trial, only_choice(trial))) for trial in missing])
            decided = _decided(study, work, finals)
            work.do([(run.path, partial(train, run, choice)) for run, choice in decided])
        return Outcome(store.write_index(root, finals, records), work.failed)


def _try_own_measures(engine: Engine, run: Run, context: RunContext) -> None:
    """Raises StudyError if one of the user's measures fails on an untrained model, in a worker."""

    def done(_path: str, _result: object, error: BaseException | None) -> None:
        if error is not None:
            raise StudyError(
                f"--with: {told(error)}; each measure of your own is called before the first run, on an untrained model"
            ) from error

    run_jobs(engine, [("own measures", partial(try_own_measures, run, context))], no_listener, done)


def _decided(study: Study, work: Work, finals: list[Run]) -> list[tuple[Run, Choice]]:
    """The final runs that are not finished, with the hyper-parameters that their trials chose."""
    decided = []
    for run in finals:
        choice = choose(study, run, work.records)
        if choice is not None:
            check_choice(work.root, run, work.records, choice)
            if run.path not in work.records:
                decided.append((run, choice))
        elif run.path not in work.records:
            work.failed[run.path] = store.OF_SELECTION
            work.shown.leave_out(run.path)
    return decided
