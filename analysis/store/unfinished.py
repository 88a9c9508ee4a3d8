"""What the table of a study's folder lacks: planned runs without a row, and files of runs that are not planned.

A run that failed is lost to every comparison: whether a run fails may depend on what it would have shown. A run that is
not done yet is only missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.plan.grid import Run, final_runs, selection_runs
from analysis.plan.reading import read_study
from analysis.plan.study import Study
from analysis.store.failures import failure_path, read_failure
from analysis.store.files import StoreError
from analysis.store.table import read_index, run_paths

if TYPE_CHECKING:
    import pandas as pd

OF_METHOD = (
    *("method_name", "loss", "label_smoothing", "mixup", "candidates", "hyperparameters", "tuned", "changed"),
    *("classes", "weight_count"),
)
"""Columns that the runs of one method share, or nearly so. They tell which method a run without numbers is of."""
OF_SELECTION = "a run of its selection failed"


@dataclass(frozen=True)
class Unfinished:
    """The planned runs of a study that have no row, and what no row is made of.

    Attributes:
        planned: all planned runs.
        finished: those that have a row.
        failed: each run that failed, with its error.
        unusable: runs whose file is there, but is broken or has other settings than the study.
        missing: runs that are not done yet.
        foreign: paths of run files that belong to no planned run, such as those of seeds that the study had before.
    """

    planned: list[Run]
    finished: list[Run]
    failed: list[tuple[Run, str]]
    unusable: list[Run]
    missing: list[Run]
    foreign: list[str]


def unfinished(root: Path) -> Unfinished:
    """The planned runs of the study in a folder that have no row. Where no run file is whole, none has one.

    Raises:
        FileNotFoundError: the folder is no study's.
        ValueError: the folder's `study.toml` is no study.
    """
    study = read_study(root / "study.toml")
    planned, rows = final_runs(study), _rows_of(root)
    foreign = sorted(set(run_paths(root)) - {run.path for run in planned})
    found = Unfinished(planned, [], [], [], [], foreign)
    for run in planned:
        if run.path in rows:
            found.finished.append(run)
            continue
        error = failure_of(root, study, run)
        if error:
            found.failed.append((run, error))
        elif (root / run.path).exists():
            found.unusable.append(run)
        else:
            found.missing.append(run)
    return found


def _rows_of(root: Path) -> set[str]:
    """The paths of the runs in the table."""
    try:
        return set(read_index(root).runs)
    except StoreError:
        return set()


def failure_of(root: Path, study: Study, run: Run) -> str:
    """The error with which a run, or a run of its selection, failed; empty if none did."""
    path = failure_path(root / run.path)
    if path.is_file():
        return read_failure(path) or "failed"
    for trial in selection_runs(study, run):
        file = root / trial.path
        if failure_path(file).is_file() and not file.exists():
            return OF_SELECTION
    return ""


def with_failed(table: pd.DataFrame, studies: Sequence[Unfinished]) -> pd.DataFrame:
    """The table of several studies, with a row of NaN for each run that failed, and the column `failed`.

    Args:
        table: the table of the studies' finished runs, with the column `study`: the position in `studies`.
        studies: the runs of each study that have no row.
    """
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    rows = [
        _row(run, table[table["study"] == number], number)
        for number, state in enumerate(studies)
        for run, _ in state.failed
    ]
    joined = pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if rows else table
    return joined.assign(failed=[False] * len(table) + [True] * len(rows))


def _row(run: Run, finished: pd.DataFrame, study: int) -> dict[str, Any]:
    """The row of a run without numbers: who it is, and the settings of its method, as a finished run of it has them."""
    identity = run.config.identity._asdict()
    own = {**identity, "study": study, "diverged": False}
    kin = finished[finished["method"] == identity["method"]]
    same_noise = kin[kin["noise_rate"] == identity["noise_rate"]]
    for runs in (same_noise, kin):
        if len(runs):
            return own | {name: runs[name].iloc[0] for name in OF_METHOD if name in runs}
    method = run.config.method
    first = method.candidates[0]
    return own | {
        "method_name": method.name,
        "loss": method.loss.name,
        "label_smoothing": float(method.loss_options(first).get("label_smoothing", 0.0)),
        "mixup": method.mixup or 0.0,
        "candidates": len(method.candidates),
        "hyperparameters": json.dumps(first, sort_keys=True),
        "tuned": json.dumps(method.tuned),
        "changed": json.dumps(method.changed),
        "classes": finished["classes"].iloc[0],
    }
