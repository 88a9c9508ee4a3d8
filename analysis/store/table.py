"""The table of a study: one row of numbers a run, and the index file that holds all rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

import landscape
from analysis.bound import bound_scalars
from analysis.plan.grid import Run
from analysis.plan.run_config import Identity
from analysis.store.files import StoreError, replace_file
from analysis.store.run_file import config_of, metrics_of, opened, read_history
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.probes import GROUPS
from ncsam.training import METRICS, mean_of_defined


@dataclass(frozen=True)
class Record:
    """What a study needs to know of a finished run.

    Attributes:
        fingerprint: of its configuration.
        measured: name of a measure -> the version that took it; empty in a file that does not say.
        data: digest of its data; empty in a file that was written before there was one.
        row: its scalars.
        trained: number of its training samples.
    """

    fingerprint: str
    measured: dict[str, int]
    data: str
    row: dict[str, Any]
    trained: int


def read_record(path: Path) -> Record:
    """Reads a run file's record.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file.
    """
    with opened(path) as file:
        return record_of(file)


def record_of(file: h5py.File) -> Record:
    """`read_record` of an open file."""
    stored = config_of(file)
    return Record(
        stored.config.fingerprint,
        {name: who.version for name, who in stored.measured_by.items()},
        stored.data,
        scalars_of(file),
        len(file["labels/observed"]),
    )


def scalars(path: Path) -> dict[str, Any]:
    """A run's numbers for the table of all runs."""
    return read_record(path).row


def scalars_of(file: h5py.File) -> dict[str, Any]:
    """One row of the table, from an open run file."""
    stored = config_of(file)
    history = metrics_of(file)
    row: dict[str, Any] = stored.config.identity._asdict()
    method = stored.config.method
    row["method_name"] = method.name
    row["loss"] = method.loss.name
    row["mixup"] = method.mixup or 0.0
    row["candidates"] = len(method.candidates)
    row["diverged"] = stored.diverged
    row["epochs"] = stored.epochs
    row["hyperparameters"] = json.dumps(stored.hyperparameters, sort_keys=True)
    for name in METRICS:
        row[name] = float(history[name][-1])
    accuracy = history["test_accuracy"]
    best = int(np.where(np.isnan(accuracy), -1.0, accuracy).argmax())
    row["best_test_accuracy"] = float(accuracy[best])
    row["best_epoch"] = best + 1
    probed = [name for name in history if name.startswith("probe_")]
    for name in (*ALIGNMENT_METRICS, "perturbation_norm", *probed):
        # NaN: epochs of the warm-up, batches without wrong labels
        row[f"mean_{name}"] = mean_of_defined(history[name])
    for group in GROUPS if probed else ():
        row[f"mean_probe_damping_{group}"] = mean_log_ratio(
            history[f"probe_perturbed_gradient_{group}"], history[f"probe_gradient_{group}"]
        )
    wrong = file["labels/clean"][()] != file["labels/observed"][()]
    row["realised_noise_rate"] = float(wrong.mean())
    row["classes"] = len(file["labels/transition"])
    for loss in ("observed", "clean"):
        row.update(_measured_scalars(file, loss))
    row.update(bound_scalars(file))
    return row


def mean_log_ratio(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over epochs of log10(first / second), over those in which both are positive.

    Not the ratio of their means: those are of different epochs, as nothing is perturbed in a warm-up.
    """
    both = (first > 0) & (second > 0)
    return mean_of_defined(np.log10(first[both] / second[both]))


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
    }
    return {
        f"{name}_{loss}": float(np.ravel(file[f"{group}/{field}"][()])[0])
        if f"{group}/{field}" in file
        else math.nan
        for name, (group, field) in groups.items()
    }


def write_index(root: Path, runs: list[Run], records: dict[str, Record]) -> pd.DataFrame:
    """Writes `study.h5`: a table of all finished runs' scalars, and links to their files. Returns the table.

    Args:
        root: the study folder.
        runs: in the order of the table.
        records: of those that have finished, by path.
    """
    finished = [run.path for run in runs if run.path in records]
    table = pd.DataFrame([records[path].row for path in finished])

    def write_to(beside: Path) -> None:
        with h5py.File(beside, "w", driver="core", backing_store=False) as file:
            columns = file.create_group("table")
            for name in table.columns:
                values = table[name]
                columns[name] = values.to_numpy() if values.dtype.kind in "fiub" else list(map(str, values))
            columns.attrs["order"] = json.dumps(list(table.columns))
            file.attrs["fingerprint"] = _fingerprint_of([records[path] for path in finished])
            # thousands of paths are more than an attribute holds
            file.create_dataset("runs", data=finished, dtype=h5py.string_dtype())
            for path in finished:
                file[f"links/{path.removesuffix('.h5')}"] = h5py.ExternalLink(path, "/")
            file.flush()
            content = file.id.get_file_image()
        beside.write_bytes(content)

    replace_file(root / "study.h5", write_to)
    return table


def read_table(root: str | Path) -> pd.DataFrame:
    """The table of all runs' scalars, one row a run.

    Raises:
        FileNotFoundError: no folder, or no index in it.
        StoreError: no run has finished.
    """
    with _index(Path(root)) as file:
        group = file["table"]
        order = json.loads(group.attrs["order"])
        columns = {
            name: group[name].asstr()[()] if h5py.check_string_dtype(group[name].dtype) else group[name][()]
            for name in order
        }
    if not columns:
        raise StoreError(f"results: no run of {root} has finished")
    return pd.DataFrame(columns)


def run_files(root: Path) -> list[Path]:
    """The files of the runs in the index, in its order.

    Raises:
        FileNotFoundError, StoreError: no index, or a broken one, or one that leads out of the folder.
    """
    with _index(root) as file:
        paths = file["runs"].asstr()[()].tolist() if "runs" in file else json.loads(file.attrs["runs"])
    inside = root.resolve()
    for path in paths:
        if not (root / path).resolve().is_relative_to(inside):
            raise StoreError(
                f"results: {root / 'study.h5'} names {path!r}, which lies outside the study's folder"
            )
    return [root / path for path in paths]


def fingerprint(root: Path) -> str:
    """Of all runs in the index: another one means other results."""
    with _index(root) as file:
        return str(file.attrs["fingerprint"])


def _fingerprint_of(records: list[Record]) -> str:
    # first versions add nothing, as in files that do not name them
    later = [
        record.fingerprint
        + "".join(f" {name} {version}" for name, version in sorted(record.measured.items()) if version > 1)
        for record in records
    ]
    return hashlib.sha256("".join(sorted(later)).encode()).hexdigest()


@contextmanager
def _index(root: Path) -> Iterator[h5py.File]:
    path = root / "study.h5"
    if not path.is_file():
        raise FileNotFoundError(f"results: {root} holds no study.h5; run 'ncsam study' first")
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise StoreError(f"results: {path} is not a whole HDF5 file; run 'ncsam study' again") from error
    with file:
        try:
            yield file
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise StoreError(f"results: {path} is not a study's index; run 'ncsam study' again") from error


def read_histories(root: str | Path) -> pd.DataFrame:
    """All final runs' histories, one row an epoch."""
    return pd.concat([read_history(path) for path in run_files(Path(root))], ignore_index=True)


def read_results(root: Path, name: str) -> list[tuple[Identity, Any]]:
    """(which run, result in the group `name`) of all runs that have it."""
    found = []
    for path in run_files(root):
        with opened(path) as file:
            if name in file:
                found.append((config_of(file).config.identity, landscape.load(file, name)))
    return found
