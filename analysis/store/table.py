"""The table of a study, with one row for each run, and the index file that holds the table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

import landscape
from analysis.bound import bound_scalars
from analysis.plan.grid import Run, final_runs
from analysis.plan.reading import read_study
from analysis.plan.run_config import Identity
from analysis.store.early_columns import early_columns
from analysis.store.files import BrokenFileError, StoreError, check_regular, replace_file
from analysis.store.history_columns import history_columns
from analysis.store.run_file import config_of, metrics_of, opened, read_history
from analysis.store.safe_hdf5 import check_content, check_results, check_trusted, is_sealed
from analysis.store.sample_columns import sample_columns
from analysis.store.stability_edge import edge_columns
from analysis.store.weight_columns import weight_columns
from ncsam.seal import sealed
from ncsam.training import METRICS

TEXTS = ("dataset", "noise_kind", "method", "method_name", "loss", "hyperparameters", "tuned")
"""Columns of the table that hold words."""
COLUMNS = (*TEXTS, *("noise_rate", "seed", "diverged", "epochs", "classes", "label_smoothing"), *METRICS)
"""Columns that every table has."""

PLAIN = (int, float, bool, str, type(None))
"""Types of a hyper-parameter's value."""
OWN_NUMBERS = "own"
"""Group of a run file that holds the numbers of the user's measures."""
PARTS = (
    "jacobian_trace",
    "jacobian_top",
    "uncertainty",
    "gauss_newton_trace",
    "functional_norm",
    "functional_smallest",
)
"""Fields of the decomposed curvature that enter the table."""
NOISE = {
    "gradient_norm": ("gradient_noise/observed", "gradient_norm"),
    "gradient_noise": ("gradient_noise/observed", "value"),
    "gradient_noise_error": ("gradient_noise/observed", "standard_error"),
}
"""Column without its suffix -> (group, field)."""


@dataclass(frozen=True)
class Record:
    """The record of a finished run that its study keeps.

    Attributes:
        fingerprint: fingerprint of its configuration.
        measured: name of a measure -> the version that took it; empty if the file does not say.
        data: digest of its data; empty if the file is older than these digests.
        row: its row of the table.
        trained: number of its training samples.
    """

    fingerprint: str
    measured: dict[str, int]
    data: str
    row: dict[str, Any]
    trained: int


def read_record(path: Path) -> Record:
    """The record of a run file.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is no whole run file.
    """
    with opened(path) as file:
        check_results(file)
        return record_of(file)


def record_of(file: h5py.File) -> Record:
    """The record of an open run file."""
    check_content(file)
    stored = config_of(file)
    return Record(
        stored.config.fingerprint,
        {name: who.version for name, who in stored.measured_by.items()},
        stored.data,
        scalars_of(file),
        len(file["labels/observed"]),
    )


def scalars(path: Path) -> dict[str, Any]:
    """A run's row of the table."""
    return read_record(path).row


def scalars_of(file: h5py.File) -> dict[str, Any]:
    """A run's row of the table, from its open file."""
    stored = config_of(file)
    history = metrics_of(file)
    row: dict[str, Any] = stored.config.identity._asdict()
    method = stored.config.method
    row["method_name"] = method.name
    row["loss"] = method.loss.name
    row["label_smoothing"] = float(method.loss_options(stored.hyperparameters).get("label_smoothing", 0.0))
    row["mixup"] = method.mixup or 0.0
    row["candidates"] = len(method.candidates)
    row["diverged"] = stored.diverged
    row["epochs"] = stored.epochs
    row["hyperparameters"] = json.dumps(stored.hyperparameters, sort_keys=True)
    row["tuned"] = json.dumps(method.tuned)
    row.update(history_columns(history))
    wrong = file["labels/clean"][()] != file["labels/observed"][()]
    row["realised_noise_rate"], row["train_samples"] = float(wrong.mean()), len(wrong)
    row.update(early_columns(history, row["realised_noise_rate"]))
    row["classes"] = len(file["labels/transition"])
    for loss in ("observed", "clean"):
        row.update(_measured_scalars(file, loss))
    for group in ("right", "wrong"):
        row.update(
            _scalars(file, {name: (f"curvature/observed_{group}/parts", name) for name in PARTS}, group)
        )
    row.update(_scalars(file, NOISE, "observed"))
    row.update(edge_columns(stored, row))
    row.update(sample_columns(file))
    row.update(weight_columns(file))
    row.update(bound_scalars(file))
    row.update({name: value for name, value in _own_numbers(file).items() if name not in row})
    for name in TEXTS:
        if not row[name].isprintable():
            raise ValueError(f"{name} holds what cannot be printed")
    _check_settings(row["hyperparameters"], row["tuned"])
    return row


def _check_settings(hyperparameters: str, tuned: str) -> None:
    """Checks the two columns that hold JSON.

    Raises:
        ValueError: not plain values by name, or not names of some of these.
    """
    settings, names = json.loads(hyperparameters), json.loads(tuned)
    if not isinstance(settings, dict) or not all(type(value) in PLAIN for value in settings.values()):
        raise ValueError(f"hyperparameters holds {hyperparameters[:100]!r}")
    if not isinstance(names, list) or not all(name in settings for name in names):
        raise ValueError(f"tuned holds {tuned[:100]!r}")


def _own_numbers(file: h5py.File) -> dict[str, float]:
    """The columns that the user's measures fill."""
    found = {}
    for group in file[OWN_NUMBERS].values() if OWN_NUMBERS in file else ():
        for name, value in zip(group["name"].asstr()[()], group["value"][()], strict=True):
            if not name.isidentifier():
                raise ValueError(f"{group.name} names a column {name!r}")
            found[str(name)] = float(value)
    return found


def _measured_scalars(file: h5py.File, loss: str) -> dict[str, float]:
    groups = {
        "top_eigenvalue": (f"curvature/{loss}/top_eigenvalues", "values"),
        "top_eigenvalue_residual": (f"curvature/{loss}/top_eigenvalues", "residuals"),
        "top_eigenvalue_converged": (f"curvature/{loss}/top_eigenvalues", "converged"),
        "trace": (f"curvature/{loss}/trace", "value"),
        "trace_standard_error": (f"curvature/{loss}/trace", "standard_error"),
        "trace_converged": (f"curvature/{loss}/trace", "converged"),
        "sharpness": (f"sharpness/{loss}", "value"),
        "sharpness_one_step": (f"sharpness/{loss}", "one_step"),
        "sharpness_rho": (f"sharpness/{loss}", "rho"),
        "sharpness_converged": (f"sharpness/{loss}", "converged"),
        "sharpness_spread": (f"sharpness/{loss}", "spread"),
        "sharpness_elementwise": (f"sharpness_elementwise/{loss}", "value"),
        "sharpness_elementwise_converged": (f"sharpness_elementwise/{loss}", "converged"),
        "sharpness_filter": (f"sharpness_filter/{loss}", "value"),
        "sharpness_filter_converged": (f"sharpness_filter/{loss}", "converged"),
        "relative_flatness": (f"flatness/{loss}", "value"),
        "relative_flatness_converged": (f"flatness/{loss}", "converged"),
        "critical_learning_rate": (f"critical_sharpness/{loss}", "learning_rate"),
        "critical_learning_rate_found": (f"critical_sharpness/{loss}", "converged"),
        **{name: (f"curvature/{loss}/parts", name) for name in PARTS},
        **{f"{name}_converged": (f"curvature/{loss}/parts", "converged") for name in PARTS},
    }
    return _scalars(file, groups, loss)


def _scalars(file: h5py.File, fields: dict[str, tuple[str, str]], suffix: str) -> dict[str, float]:
    """Column without its suffix -> (group, field), as numbers; NaN where a file lacks it."""
    return {
        f"{name}_{suffix}": float(np.ravel(file[f"{group}/{field}"][()])[0])
        if f"{group}/{field}" in file
        else math.nan
        for name, (group, field) in fields.items()
    }


@dataclass(frozen=True)
class Index:
    """The content of `study.h5`.

    Attributes:
        table: one row for each finished run.
        runs: paths of the run files in the study folder, in the order of the table.
        fingerprint: fingerprint of all these runs, which changes with any of their results.
    """

    table: pd.DataFrame
    runs: list[str]
    fingerprint: str


def write_index(root: Path, runs: list[Run], records: dict[str, Record]) -> pd.DataFrame:
    """Writes `study.h5`: the table of all finished runs, and links to their files. Returns the table.

    Args:
        root: the study folder.
        runs: the runs, in the order of the table.
        records: path -> record of each run that has finished.
    """
    index = _index_of(runs, records)
    _write(root, index)
    return index.table


def _index_of(runs: list[Run], records: dict[str, Record]) -> Index:
    finished = [run.path for run in runs if run.path in records]
    table = pd.DataFrame([records[path].row for path in finished])
    return Index(table, finished, _fingerprint_of([records[path] for path in finished]))


def _write(root: Path, index: Index) -> None:
    table = index.table

    def write_to(beside: Path) -> None:
        with h5py.File(beside, "w", driver="core", backing_store=False) as file:
            columns = file.create_group("table")
            for name in table.columns:
                values = table[name]
                columns[name] = values.to_numpy() if values.dtype.kind in "fiub" else list(map(str, values))
            columns.attrs["order"] = json.dumps(list(table.columns))
            file.attrs["fingerprint"] = index.fingerprint
            # an attribute cannot hold thousands of paths
            file.create_dataset("runs", data=index.runs, dtype=h5py.string_dtype())
            for path in index.runs:
                file[f"links/{path.removesuffix('.h5')}"] = h5py.ExternalLink(path, "/")
            file.flush()
            content = file.id.get_file_image()
        beside.write_bytes(sealed(content))

    replace_file(root / "study.h5", write_to)


def read_index(root: Path) -> Index:
    """The index of a study folder. A broken or changed index is made anew from the run files.

    Raises:
        FileNotFoundError: the folder or its index does not exist.
        StoreError: the index is broken, and there is no run file from which a new one could be made.
    """
    path = root / "study.h5"
    if not (path.exists() or path.is_symlink()):
        raise FileNotFoundError(f"results: {root} holds no study.h5; run 'ncsam study' first")
    check_regular(root, besides=("study.h5",))
    try:
        return _believed(path)
    except BrokenFileError as doubt:
        return _made_anew(root, doubt)


def _believed(path: Path) -> Index:
    """The content of an index, if the index is sealed, leads nowhere else, and has all columns."""
    if path.is_symlink() or not path.is_file():
        raise BrokenFileError(f"file: {path} is not a regular file")
    if not is_sealed(path):
        raise BrokenFileError(f"file: {path} has no checksum: it was written to, or by an earlier version")
    try:
        with h5py.File(path, "r") as file:
            # not checked: the links to the run files, which are for other programs
            check_trusted(file, path, besides=("links",))
            group, runs = file["table"], file["runs"].asstr()[()].tolist()
            columns = {name: _column(group[name], len(runs)) for name in json.loads(group.attrs["order"])}
            fingerprint = str(file.attrs["fingerprint"])
        for pair in set(zip(columns["hyperparameters"], columns["tuned"], strict=True)) if runs else ():
            _check_settings(*pair)
    except StoreError:
        raise
    except Exception as error:  # a broken file may raise anything
        words = " ".join(str(error).split())
        raise BrokenFileError(f"file: {path} is not a study's index: {words}") from error
    missing = [name for name in COLUMNS if name not in columns] if runs else []
    if missing:
        raise BrokenFileError(f"file: {path} lacks the column {missing[0]!r}")
    inside = path.parent.resolve()
    if not all((path.parent / run).resolve().is_relative_to(inside) for run in runs):
        raise BrokenFileError(f"file: {path} names a run outside of the study's folder")
    return Index(pd.DataFrame(columns), runs, fingerprint)


def _column(item: h5py.Dataset, length: int) -> Any:
    name = item.name.removeprefix("/table/")
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if is_text != (name in TEXTS) or not (is_text or item.dtype.kind in "fiub") or item.shape != (length,):
        raise ValueError(f"{name} holds {item.dtype} of shape {item.shape}")
    values = item.asstr()[()] if is_text else item[()]
    if is_text and not all(map(str.isprintable, values)):
        raise ValueError(f"{name} holds what cannot be printed")
    return values


def _made_anew(root: Path, doubt: BrokenFileError) -> Index:
    """A new index from the whole run files in the folder. It is also written, if the folder is writable."""
    try:
        runs = final_runs(read_study(root / "study.toml"))
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(f"{doubt}; it cannot be made anew, as {error}") from error
    records = {}
    for run in runs:
        with suppress(FileNotFoundError, StoreError):
            record = read_record(root / run.path)
            if record.fingerprint == run.fingerprint:
                records[run.path] = record
    if not records:
        raise StoreError(
            f"{doubt}; it cannot be made anew, as there is no whole run file; run 'ncsam study' again"
        )
    index = _index_of(runs, records)
    with suppress(OSError):
        _write(root, index)
    return index


def read_table(root: str | Path) -> pd.DataFrame:
    """The table of all runs, one row for each run.

    Raises:
        FileNotFoundError: the folder or its index does not exist.
        StoreError: no run has finished.
    """
    table = read_index(Path(root)).table
    if not len(table.columns):
        raise StoreError(f"results: no run of {root} has finished")
    return table


def run_files(root: Path) -> list[Path]:
    """The files of the runs in the index, in the order of the index.

    Raises:
        FileNotFoundError, StoreError: as for `read_index`.
    """
    return [root / path for path in read_index(root).runs]


def fingerprint(root: Path) -> str:
    """The fingerprint of all runs in the index, which changes with any of their results."""
    return read_index(root).fingerprint


def _fingerprint_of(records: list[Record]) -> str:
    # version 1 adds nothing, because files that do not name versions have version 1
    later = [
        record.fingerprint
        + "".join(f" {name} {version}" for name, version in sorted(record.measured.items()) if version > 1)
        for record in records
    ]
    return hashlib.sha256("".join(sorted(later)).encode()).hexdigest()


def read_histories(root: str | Path) -> pd.DataFrame:
    """The histories of all final runs, one row for each epoch."""
    return pd.concat([read_history(path) for path in run_files(Path(root))], ignore_index=True)


def read_results(root: Path, name: str) -> list[tuple[Identity, Any]]:
    """(identity of the run, its result in the group `name`) for all runs that have the result."""
    return read_several_results(root, [name])[name]


def read_several_results(root: Path, names: Sequence[str]) -> dict[str, list[tuple[Identity, Any]]]:
    """What `read_results` returns, for each of several names. Each file is opened and checked once."""
    found: dict[str, list[tuple[Identity, Any]]] = {name: [] for name in names}
    for path in run_files(root) if names else ():
        with opened(path) as file:
            identity = config_of(file).config.identity
            for name in names:
                if name in file:
                    found[name].append((identity, landscape.load(file, name)))
    return found
