"""The study folder: one HDF5 file a run, written whole or not at all, and the index of all runs."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import tomli_w
import torch
from torch import nn

import landscape
from analysis.bound import bound_scalars
from analysis.study import Run, Study
from landscape.storage import write
from ncsam.alignment import ALIGNMENT_METRICS
from ncsam.label_noise import NoisyLabels
from ncsam.training import METRICS, History

if TYPE_CHECKING:
    from analysis.run import Choice

SCHEMA_VERSION = 1


class StoreError(ValueError):
    """A study folder that cannot be used as asked; the message is one line."""


def versions() -> dict[str, str]:
    """Versions of all that computes a result."""
    packages = ("ncsam", "torch", "numpy", "scipy", "h5py", "pyhessian")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """The study folder, made if missing, for this process alone.

    Raises:
        StoreError: another process works in it, or it cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as error:
        raise StoreError(f"out: cannot write to {root}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"out: another 'ncsam study' is at work in {root}; wait for it") from error
        yield


def open_folder(root: Path, study: Study, runs: list[Run]) -> None:
    """Checks that the folder is this study's, and writes down the study in it.

    Raises:
        StoreError: it holds something else, another study, or runs of this one with other settings.
    """
    written = root / "study.toml"
    if written.exists():
        try:
            stored_study = tomllib.loads(written.read_text(encoding="utf-8"))
            name, dataset = stored_study.get("name"), stored_study.get("dataset")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"out: {written} is not a TOML file ({error}); choose another --out") from error
        if name != study.name:
            raise StoreError(
                f"out: {root} holds the study {name!r}, not {study.name!r}; choose another --out"
            )
        if dataset != study.dataset:
            raise StoreError(
                f"out: {root} holds results on {dataset!r}, not {study.dataset!r}; choose another --out"
            )
    elif any(entry.name != ".lock" for entry in root.iterdir()):
        raise StoreError(f"out: {root} is not empty and not a study's folder; choose another --out")
    for run in runs:
        if (root / run.path).exists() and not is_finished(root, run):
            stored = read_config(root / run.path)
            difference = _first_difference(stored["config"], run.config)
            raise StoreError(
                f"out: {root / run.path} has other settings than the study ({difference}); choose another --out, or "
                "delete the folder to run it anew"
            )
    content = {
        **study.model_dump(exclude_none=True),
        "resolved": {"versions": versions(), "schema": SCHEMA_VERSION},
    }
    write_text(written, tomli_w.dumps(content))


def _first_difference(stored: Any, planned: Any, field: str = "") -> str:
    if isinstance(stored, dict) and isinstance(planned, dict):
        for key in sorted(stored.keys() | planned.keys()):
            if stored.get(key) != planned.get(key):
                return _first_difference(stored.get(key), planned.get(key), f"{field}.{key}".strip("."))
    return f"{field}: {stored!r} there, {planned!r} now"


def is_finished(root: Path, run: Run) -> bool:
    """The run's file is there and has the run's configuration."""
    path = root / run.path
    return path.exists() and read_config(path)["fingerprint"] == run.fingerprint


def read_config(path: Path) -> dict[str, Any]:
    """The `/config` of a run file: configuration, fingerprint, versions, device, choice.

    Raises:
        FileNotFoundError: no such file.
        StoreError: not a whole run file.
    """
    with opened(path) as file:
        attributes = dict(file["config"].attrs)
    return {
        **attributes,
        "config": json.loads(attributes["config"]),
        "hyperparameters": json.loads(attributes["hyperparameters"]),
        "versions": json.loads(attributes["versions"]),
    }


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A run file, open for reading.

    Raises:
        FileNotFoundError: no such file.
        StoreError: not a whole run file.
    """
    if not path.exists():
        raise FileNotFoundError(f"file: {path} does not exist")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(
            f"file: {path} is not a whole HDF5 file; delete it and run the study again"
        ) from error
    with file:
        if "config" not in file or "fingerprint" not in file["config"].attrs:
            raise StoreError(f"file: {path} is an HDF5 file, but not of a run")
        yield file


def replace_file(path: Path, write_to: Callable[[Path], None]) -> None:
    """Writes a file beside its place, flushes it to disk and renames it: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_to(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""

    def write_to(beside: Path) -> None:
        beside.write_text(text, encoding="utf-8")

    replace_file(path, write_to)


def write_run(
    path: Path,
    run: Run,
    choice: Choice,
    labels: NoisyLabels,
    history: History,
    model: nn.Module,
    measurements: dict[str, Any],
    measured: dict[str, torch.Tensor],
    *,
    device: str,
) -> None:
    """Writes a finished run, checked by reopening before it takes its name.

    Args:
        path: of the file.
        run: what was planned.
        choice: what was chosen.
        labels: of the training set.
        history: of the training.
        model: as training left it.
        measurements: group name -> result of `landscape`.
        measured: "train", "test" -> positions of the samples that were measured on.
        device: where it ran.
    """

    def write_to(beside: Path) -> None:
        with h5py.File(beside, "w") as file:
            _write_config(file.create_group("config"), run, choice, history, device)
            _write_labels(file.create_group("labels"), labels)
            _write_history(file.create_group("history"), history)
            weights = file.create_group("weights")
            for name, tensor in model.state_dict().items():
                weights.create_dataset(name, data=tensor.detach().cpu().numpy())
            for name, result in measurements.items():
                landscape.save(file, name, result)
            for name, indices in measured.items():
                file[f"measured_samples/{name}"] = indices.numpy()
        if read_config(beside)["fingerprint"] != run.fingerprint:
            raise StoreError(f"file: {beside} did not reach the disk whole")

    replace_file(path, write_to)
    failure_path(path).unlink(missing_ok=True)


def _write_config(group: h5py.Group, run: Run, choice: Choice, history: History, device: str) -> None:
    group.attrs["schema_version"] = SCHEMA_VERSION
    group.attrs["fingerprint"] = run.fingerprint
    group.attrs["config"] = json.dumps(run.config)
    group.attrs["hyperparameters"] = json.dumps(choice.hyperparameters)
    group.attrs["versions"] = json.dumps(versions())
    group.attrs["device"] = device
    group.attrs["threads"] = torch.get_num_threads()
    group.attrs["diverged"] = history.diverged
    group.attrs["epochs"] = history.epochs
    for name, values, text in (
        ("score", choice.scores, "accuracy on validation samples with observed labels"),
        ("standard_error", choice.standard_errors, "binomial standard error of the score"),
    ):
        if values:
            write(group, name, np.array(values), description=text, dims=("candidate",))
    group.attrs["candidates"] = json.dumps(choice.candidates)


def _write_labels(group: h5py.Group, labels: NoisyLabels) -> None:
    for name, tensor, text in (
        ("clean", labels.clean, "true labels of the training samples"),
        ("observed", labels.observed, "labels that training saw"),
    ):
        write(group, name, tensor.cpu().numpy(), description=text, dims=("sample",))
    write(
        group,
        "transition",
        labels.transition.numpy(),
        description="probability that a sample of the row's class is labelled as the column's",
        dims=("clean_class", "observed_class"),
    )
    # of the model that the labels were drawn from, or the shares found in these labels
    group["transition"].attrs["kind"] = labels.transition_kind


def _write_history(group: h5py.Group, history: History) -> None:
    epochs = np.arange(1, history.epochs + 1)
    write(group, "epoch", epochs, description="epochs finished", dims=("epoch",), coordinate=True)
    for name, values in history.metrics.items():
        unit, description = history.described[name]
        write(group, name, values, description=description, unit=unit, dims=("epoch",))


def load_weights(path: Path, model: nn.Module) -> None:
    """Loads a run file's `/weights` into a model of the same architecture."""
    with opened(path) as file:
        state = {name: torch.from_numpy(np.asarray(data[()])) for name, data in file["weights"].items()}
    model.load_state_dict(state)


def failure_path(path: Path) -> Path:
    """Where the error of a failed run is written."""
    return path.with_suffix(".failed")


def write_failure(path: Path, error: str) -> None:
    """Writes down why the run of the file `path` failed; a later success takes it away."""
    write_text(failure_path(path), f"{error}\n")


def read_history(path: Path) -> pd.DataFrame:
    """One row an epoch, with the run's identity in the first columns."""
    with opened(path) as file:
        metrics = {name: data[()] for name, data in file["history"].items()}
    return pd.DataFrame({**_identity(read_config(path)), **metrics})


def _identity(stored: dict[str, Any]) -> dict[str, Any]:
    config = stored["config"]
    return {
        "dataset": config["dataset"],
        "noise_kind": config["noise"]["kind"],
        "noise_rate": config["noise"]["rate"],
        "method": config["method"]["label"],
        "seed": config["seed"],
    }


def scalars(path: Path) -> dict[str, Any]:
    """A run's numbers for the table of all runs."""
    stored = read_config(path)
    history = read_history(path)
    row: dict[str, Any] = _identity(stored)
    method = stored["config"]["method"]
    row["method_name"] = method["name"]
    row["loss"] = method["loss"]["name"]
    row["mixup"] = method["mixup"] or 0.0
    row["candidates"] = len(method["candidates"])
    row["diverged"] = bool(stored["diverged"])
    row["epochs"] = int(stored["epochs"])
    row["hyperparameters"] = json.dumps(stored["hyperparameters"], sort_keys=True)
    for name in METRICS:
        row[name] = float(history[name].iloc[-1])
    row["best_test_accuracy"] = float(history["test_accuracy"].max())
    row["best_epoch"] = int(history["test_accuracy"].fillna(-1).argmax()) + 1
    probed = [name for name in map(str, history.columns) if name.startswith("probe_")]
    for name in (*ALIGNMENT_METRICS, *probed):
        # pandas' mean leaves out NaN: epochs of the warm-up, batches without wrong labels
        row[f"mean_{name}"] = float(history[name].mean())
    with opened(path) as file:
        wrong = file["labels/clean"][()] != file["labels/observed"][()]
        row["realised_noise_rate"] = float(wrong.mean())
        row["classes"] = len(file["labels/transition"])
        for loss in ("observed", "clean"):
            row.update(_measured_scalars(file, loss))
        row.update(bound_scalars(file))
    return row


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
    }
    return {
        f"{name}_{loss}": float(np.ravel(file[group][field][()])[0]) if group in file else math.nan
        for name, (group, field) in groups.items()
    }


def write_index(root: Path, runs: list[Run]) -> pd.DataFrame:
    """Writes `study.h5`: a table of all finished runs' scalars, and links to their files. Returns the table."""
    finished = [run for run in runs if is_finished(root, run)]
    table = pd.DataFrame([scalars(root / run.path) for run in finished])

    def write_to(beside: Path) -> None:
        with h5py.File(beside, "w") as file:
            columns = file.create_group("table")
            for name in table.columns:
                values = table[name]
                columns[name] = values.to_numpy() if values.dtype.kind in "fiub" else list(map(str, values))
            columns.attrs["order"] = json.dumps(list(table.columns))
            file.attrs["fingerprint"] = _fingerprint_of(finished)
            file.attrs["runs"] = json.dumps([run.path for run in finished])
            for run in finished:
                file[f"links/{run.path.removesuffix('.h5')}"] = h5py.ExternalLink(run.path, "/")

    replace_file(root / "study.h5", write_to)
    return table


def read_table(root: Path) -> pd.DataFrame:
    """The table of all runs' scalars, one row a run.

    Raises:
        FileNotFoundError: no folder, or no index in it.
        StoreError: no run has finished.
    """
    with _index(root) as file:
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
        FileNotFoundError, StoreError: no index, or a broken one.
    """
    with _index(root) as file:
        return [root / path for path in json.loads(file.attrs["runs"])]


def fingerprint(root: Path) -> str:
    """Of all runs in the index: another one means other results."""
    with _index(root) as file:
        return str(file.attrs["fingerprint"])


def _fingerprint_of(runs: list[Run]) -> str:
    return hashlib.sha256("".join(sorted(run.fingerprint for run in runs)).encode()).hexdigest()


@contextmanager
def _index(root: Path) -> Iterator[h5py.File]:
    path = root / "study.h5"
    if not path.is_file():
        raise FileNotFoundError(f"results: {root} holds no study.h5; run 'ncsam study' first")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"results: {path} is not a whole HDF5 file; run 'ncsam study' again") from error
    with file:
        yield file


def read_histories(root: Path) -> pd.DataFrame:
    """All final runs' histories, one row an epoch."""
    return pd.concat([read_history(path) for path in run_files(root)], ignore_index=True)


def read_results(root: Path, name: str) -> list[tuple[dict[str, Any], Any]]:
    """(identity of the run, result in the group `name`) of all runs that have it."""
    found = []
    for path in run_files(root):
        with opened(path) as file:
            if name in file:
                found.append((_identity(read_config(path)), landscape.load(file, name)))
    return found
