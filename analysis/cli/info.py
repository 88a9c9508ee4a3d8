"""The content of a results folder, its index or a run file, for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import store
from analysis.cli.info_of_run import print_run
from analysis.plan import read_study
from analysis.printable import printable, say
from analysis.report.unfinished import print_unfinished
from landscape.results.wording import listed
from ncsam import METRICS
from ncsam.evaluation import LOSS_METRICS, unit_of_stored_loss

INDEX = "study.h5"
SHARPNESS = re.compile(r"sharpness(_elementwise|_filter|_one_step)?_(observed|clean)")
"""Columns that hold a rise of the cross-entropy, which is the measured loss in studies."""


def print_info(path: Path, parts: Sequence[str], console: Console) -> None:
    """Prints the content of a study's folder, its `study.h5` or the file of one of its runs.

    Args:
        path: folder or file.
        parts: of a run file those of `print_run`; of `study.h5` texts, one of which is in each column's name.
        console: where it is printed.

    Raises:
        FileNotFoundError: the path does not exist, or the folder is no study's.
        StoreError: no run has finished, or the file is not a run's.
        ValueError: the file is a study file, or has no such part.
    """
    if path.suffix == ".toml" and path.is_file():
        raise ValueError(f"path: {path} is a study file; name its folder: ncsam info {path.parent}")
    if path.is_dir():
        if parts:
            raise ValueError(f"part: {parts[0]!r} is for a file; name {path / INDEX} or that of a run")
        _print_folder(path, console)
    elif path.name == INDEX:
        _print_index(path.parent, parts, console)
    else:
        print_run(path, parts, console)


def _print_folder(root: Path, console: Console) -> None:
    store.check_is_study(root)
    study, state = read_study(root / "study.toml"), store.unfinished(root)
    failed = f", {len(state.failed)} failed" if state.failed else ""
    lines = [
        f"{root}: study {study.name}",
        f"data: {study.dataset}; {study.noise.kind} noise, rates {listed(study.noise.rates)}",
        f"model: {study.model.name}; seeds {' '.join(map(str, study.seeds))}",
        f"methods: {'; '.join(method.title for method in study.methods)}",
        f"runs: {len(state.finished)} of {len(state.planned)} finished{failed}",
    ]
    for line in lines:
        say(console, line)
    print_unfinished([root], console)
    if (root / INDEX).is_file():
        say(console, f"index: ncsam info {root / INDEX} lists its columns")
    if state.finished:
        say(console, f"a run: ncsam info {root / state.finished[0].path}")


def _print_index(root: Path, parts: Sequence[str], console: Console) -> None:
    table = store.read_table(root)
    columns = [name for name in map(str, table.columns) if not parts or any(part in name for part in parts)]
    if not columns:
        raise ValueError(f"part: no column of {root / INDEX} has {' or '.join(parts)} in its name")
    say(console, f"{root / INDEX}: a table of {len(table)} runs and {len(table.columns)} columns")
    view = Table(box=None, pad_edge=False)
    for name in ("column", "type", "unit", "values"):
        view.add_column(name, overflow="fold")
    for name in columns:
        values = Text(printable(_range_of(table[name])))
        view.add_row(Text(name), str(table[name].dtype), _unit_of(name, set(table["loss"])), values)
    console.print(view)


def _unit_of(column: str, losses: set[str]) -> str:
    """The unit of a column, if it has one. Shares, cosines, curvatures and counts are plain numbers.

    Training losses are in nat if all methods train with log-likelihoods.
    """
    if column in LOSS_METRICS and not all(map(unit_of_stored_loss, losses)):
        return ""
    if SHARPNESS.fullmatch(column):
        return "nat"
    return METRICS[column][0] if column in METRICS else ""


def _range_of(values: pd.Series) -> str:
    if values.dtype.kind not in "iuf":
        several = values.astype(str).unique()
        return f"{several[0]}, ... ({len(several)} different)" if len(several) > 3 else ", ".join(several)
    if values.isna().all():
        return "not measured"
    low, high = values.min(), values.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
