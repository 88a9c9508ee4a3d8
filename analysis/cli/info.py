"""The content of a results folder, its index or a run file, for the terminal."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analysis import store
from analysis.plan import read_study
from analysis.printable import printable, say
from analysis.report.unfinished import print_unfinished
from landscape.results.wording import listed
from ncsam import METRICS
from ncsam.evaluation import LOSS_METRICS, unit_of_stored_loss

INDEX = "study.h5"
SHARPNESS = re.compile(r"sharpness(_elementwise|_filter|_one_step)?_(observed|clean)")
"""Columns that hold a rise of the cross-entropy, which is the measured loss in studies."""
NO_COORDINATES = b"This is a netCDF dimension but not a netCDF variable."


def print_info(path: Path, console: Console) -> None:
    """Prints the content of a study's folder, its `study.h5` or the file of one of its runs.

    Raises:
        FileNotFoundError: the path does not exist, or the folder is no study's.
        StoreError: no run has finished, or the file is not a run's.
        ValueError: the file is a study file.
    """
    if path.suffix == ".toml" and path.is_file():
        raise ValueError(f"path: {path} is a study file; name its folder: ncsam info {path.parent}")
    if path.is_dir():
        _print_folder(path, console)
    elif path.name == INDEX:
        _print_index(path.parent, console)
    else:
        _print_run(path, console)


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


def _print_index(root: Path, console: Console) -> None:
    table = store.read_table(root)
    say(console, f"{root / INDEX}: a table of {len(table)} runs and {len(table.columns)} columns")
    view = Table(box=None, pad_edge=False)
    for name in ("column", "type", "unit", "values"):
        view.add_column(name, overflow="fold")
    for name in map(str, table.columns):
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


def _print_run(path: Path, console: Console) -> None:
    with store.opened(path) as file:
        stored, row, groups = store.config_of(file), store.record_of(file).row, _groups_of(file)
    say(console, f"{path}: run {stored.config.fingerprint[:12]}, trained on {stored.device}")
    settings = {
        "hyperparameters": stored.hyperparameters,
        **stored.config.as_plain(),
        "versions": stored.versions,
    }
    for name, value in _dotted(settings):
        say(console, f"  {name}: {json.dumps(value)}")
    console.print(Text("results"), style="bold")
    for name, value in row.items():
        if not (isinstance(value, float) and math.isnan(value)):
            shown = f"  {name}: {value:.6g}" if isinstance(value, float) else f"  {name}: {value}"
            say(console, shown)
    for group, lines in groups.items():
        console.print(Text(printable(f"/{group}")), style="bold")
        for line in lines:
            console.print(Padding(Text(printable(line)), (0, 0, 0, 2)))


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings within settings by names such as `training.epochs`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _groups_of(file: h5py.File) -> dict[str, list[str]]:
    """Group -> a line for each of its data sets: name, shape of an array, unit and description."""
    groups: dict[str, list[str]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        name_of_scale = item.attrs.get("NAME")
        if isinstance(name_of_scale, bytes) and name_of_scale.startswith(NO_COORDINATES):
            return
        group, _, last = name.rpartition("/")
        unit, meaning = _about(item)
        of_array = ", ".join(filter(None, ("x".join(map(str, item.shape)), unit)))
        about = f" ({of_array})" if of_array else ""
        groups.setdefault(group, []).append(f"{last}{about}: {meaning}".removesuffix(": "))

    file.visititems(visit)
    return groups


def _about(item: h5py.Dataset) -> tuple[str, str]:
    return str(item.attrs.get("units", "")), str(item.attrs.get("description", ""))
