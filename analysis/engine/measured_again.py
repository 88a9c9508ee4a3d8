"""Measures a study's finished runs again, without training: with other settings, or a later version of a measure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis import store
from analysis.engine import IN_THIS_PROCESS, Resources, open_engine
from analysis.engine.progress import Planned, RunsProgress
from analysis.engine.work import Outcome, Work, check_data_of_finished, kind_of, load_checked_data
from analysis.plan import Run, Study, final_runs, read_study
from analysis.plan.consistency import check_consistency
from analysis.plan.errors import check_known
from analysis.plan.own_parts import loaded
from analysis.plan.run_config import first_difference
from analysis.plan.study import MeasureSettings
from analysis.printable import say
from analysis.run.context import RunContext
from analysis.run.measured_again import measure_again
from analysis.run.measurements import MEASURES
from ncsam.options import quoted

MAY_DIFFER = {"measure", "seeds", "methods", "claims", "own_parts"}
"""Keys that may differ in another study file, besides the noise rates, because only its `measure` is read."""


def measure_study(
    root: Path,
    names: Sequence[str] = (),
    *,
    resources: Resources = IN_THIS_PROCESS,
    study: Study | None = None,
    console: Console | None = None,
) -> Outcome:
    """Measures the stored weights of a study's finished runs again.

    A run is left alone if it was already measured with the same settings and the same version of each measure. After a
    kill, the same call continues. The index holds the runs that are measured as asked: a run that fails keeps its file,
    and has no row until the call is repeated.

    Args:
        root: the study folder.
        names: names of `MEASURES` that are measured; all if empty.
        resources: engine, workers, device and data files.
        study: a study with the `measure` settings; for None the study of the folder.
        console: where progress is shown; the terminal if not given.

    Raises:
        StoreError: the folder is no study's or is in use, no run has finished, or the runs had other data or settings.
        ValueError: a measure is unknown, or the settings do not fit the study or the other measures.
        EngineError: the engine does not exist here, or is gone.
    """
    console = console or Console()
    tell = partial(say, console, style="yellow")
    data_dir = resources.data_dir
    for name in names:
        check_known(name, MEASURES, "--only")
    names = list(names) or list(MEASURES)
    store.check_is_study(root)
    with (
        store.locked(root, tell),
        open_engine(resources) as engine,
    ):
        store.remove_temporary_files(root)
        kept = read_study(root / "study.toml")
        if not kept.measured:
            raise store.StoreError(
                f"results: the study in {root} has measured = false, and its runs are not measured; to measure, run it "
                "without that key into another --out"
            )
        asked = _with_settings(kept, study or kept, names, root)
        finals, own_parts = final_runs(asked), loaded(asked.own_parts)
        records, outdated, failed = _looked_at(root, finals, names, tell)
        if not records and not failed:
            raise store.StoreError(f"results: no run of {root} has finished")
        data = ""
        if outdated:
            data = load_checked_data(root, finals[0], data_dir, records)[1]
        else:
            check_data_of_finished(root, finals[0], data_dir, records, tell)
        # written before the first run, so that after a kill the study of the folder has the new settings
        store.write_study(root, asked)
        planned = {run.path: Planned(run.title, kind_of(run)) for run in finals if run.path in records}
        # what an outdated run holds is not what is asked for: if measuring it fails, it has no row
        for run in outdated:
            del records[run.path]
        with RunsProgress(
            console, planned, set(records), lambda: engine.workers, "measured as asked"
        ) as shown:
            work = Work(root, engine, shown, records, failed)
            context = RunContext(
                root.absolute(), data_dir and data_dir.absolute(), resources.device, data, own_parts
            )
            again = partial(measure_again, context=context)
            work.do([(run.path, partial(again, run, names)) for run in outdated])
        failed.update(_with_old_settings(root, finals, records))
        as_asked = {path: record for path, record in records.items() if path not in failed}
        return Outcome(store.write_index(root, finals, as_asked), failed)


def _with_old_settings(root: Path, finals: Sequence[Run], records: dict[str, store.Record]) -> dict[str, str]:
    """Path -> error of each run that still has old settings for measures that are not named now."""
    return {
        run.path: f"StoreError: {store.other_settings(root, run)}"
        for run in finals
        if run.path in records and records[run.path].fingerprint != run.fingerprint
    }


def _with_settings(kept: Study, asked: Study, names: Collection[str], root: Path) -> Study:
    """The folder's study, with the settings of the named measures as another study file gives them."""
    before, now = _unchangeable(kept), _unchangeable(asked)
    if before != now:
        field, there, here = first_difference(before, now)
        raise store.StoreError(
            f"--study: is another study than the one in {root} ({field}: {quoted(there)} there, {quoted(here)} in the "
            "file); only its [measure] may differ"
        )
    loaded(kept.own_parts)
    study = kept.model_copy(update={"measure": merged(kept.measure, asked.measure, names)})
    check_consistency(study, has_results=True)
    return study


def _unchangeable(study: Study) -> dict[str, Any]:
    """The settings that must be those of the study in the folder."""
    settings = {key: value for key, value in study.whole().items() if key not in MAY_DIFFER}
    return {**settings, "noise": {key: value for key, value in settings["noise"].items() if key != "rates"}}


def merged(kept: MeasureSettings, asked: MeasureSettings, names: Collection[str]) -> MeasureSettings:
    """Settings in which some measures have new values and the others keep theirs.

    Raises:
        ValueError: a measure that is not named depends on a setting that differs. Its numbers would be those of the old
            setting, while the file would name the new one.
    """
    changed: dict[str, Any] = {}
    for name in names:
        for field in MEASURES[name].settings:
            if getattr(kept, field) != getattr(asked, field):
                changed[field] = getattr(asked, field)
    for field in changed:
        left_out = [m.name for m in MEASURES.values() if field in m.settings and m.name not in names]
        if left_out:
            others = ", ".join(left_out)
            depend = f"{others} {'depends' if len(left_out) == 1 else 'depend'}"
            raise ValueError(
                f"measure.{field} has changed, and {depend} on it too: {others} would keep numbers made with the old "
                f"value; add {others} to --only"
            )
    return kept.model_copy(update=changed)


def _looked_at(
    root: Path, finals: Sequence[Run], names: Collection[str], tell: Any
) -> tuple[dict[str, store.Record], list[Run], dict[str, str]]:
    """Checks the file of each finished run.

    Returns:
        Path -> record of each finished run; the runs that must be measured, with their new settings; path -> error of
        each broken file.
    """
    records: dict[str, store.Record] = {}
    outdated: list[Run] = []
    failed: dict[str, str] = {}
    for run in finals:
        path = root / run.path
        if not path.exists():
            continue
        try:
            with store.opened(path) as file:
                stored, record = store.config_of(file), store.record_of(file)
        except store.BrokenFileError as error:
            tell(str(error))
            failed[run.path] = f"BrokenFileError: {error}"
            continue
        target = _target(root, run, stored, names)
        records[run.path] = record
        if target.config != stored.config or not _is_by_this_version(stored, names):
            outdated.append(target)
    return records, outdated, failed


def _target(root: Path, run: Run, stored: store.StoredRun, names: Collection[str]) -> Run:
    """The run with its new settings: new values for the named measures, old values for the others."""
    if stored.config.measure is None or run.config.measure is None:
        raise store.StoreError(
            f"results: {root / run.path} is of a run that is not measured, and the study measures its runs; delete the "
            "file and run the study again"
        )
    settings = merged(stored.config.measure, run.config.measure, names)
    config = stored.config.model_copy(update={"measure": settings})
    planned = run.config.model_copy(update={"measure": stored.config.measure})
    if planned.training_fingerprint != stored.config.training_fingerprint:
        raise store.StoreError(store.other_settings(root, run))
    if config.training_fingerprint != stored.config.training_fingerprint:
        raise store.StoreError(
            f"measure.sharpness_rho: {root / run.path} probed the sharpness in training with the radius "
            f"{stored.config.measure.sharpness_rho}; keep that, or train anew into another --out"
        )
    return Run(config, run.path)


def _is_by_this_version(stored: store.StoredRun, names: Collection[str]) -> bool:
    unknown = store.MeasuredBy(version=1)
    return all(stored.measured_by.get(name, unknown).version == MEASURES[name].version for name in names)
