"""One run's HDF5 file: written from memory, whole and sealed, and read without trust."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import torch
from torch import nn

import landscape
from analysis.store.files import BrokenFileError, StoreError, is_sealed, replace_file, sealed, write_text
from analysis.store.schema import FIRST_SEALED, SCHEMA_VERSION, upgraded
from analysis.store.trust import check_trusted
from analysis.study import Run
from landscape.storage import write
from ncsam.label_noise import NoisyLabels
from ncsam.training import METRICS, History

if TYPE_CHECKING:
    from analysis.run import Choice


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


def read_config(path: Path) -> dict[str, Any]:
    """The `/config` of a run file: configuration, fingerprint, versions, device, choice.

    A file of an older schema reads as one of today's.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file.
    """
    with opened(path) as file:
        return config_of(file)


def config_of(file: h5py.File) -> dict[str, Any]:
    """`read_config` of an open file."""
    attributes = dict(file["config"].attrs)
    for name in ("config", "hyperparameters", "versions"):
        attributes[name] = json.loads(attributes[name])
    if attributes["schema_version"] < SCHEMA_VERSION:
        attributes["config"] = upgraded(attributes["config"])
        attributes["fingerprint"] = Run(attributes["config"], "").fingerprint
    return attributes


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A run file, open for reading, once its checksum and all its objects have been looked at.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: not a whole run file, not the bytes that were written, or one that leads elsewhere; also
            for what turns out to be missing while it is read.
        StoreError: written by a later version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"file: {path} does not exist")
    has_seal = is_sealed(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise BrokenFileError(
            f"file: {path} is not a whole HDF5 file; delete it and run the study again"
        ) from error
    with file:
        try:
            _check_schema(file, path, has_seal)
            check_trusted(file, path)
            yield file
        except (KeyError, IndexError, TypeError, OSError, RuntimeError, json.JSONDecodeError) as error:
            words = " ".join(str(error).split())
            raise BrokenFileError(f"file: {path} does not hold what a run's file holds: {words}") from error


def _check_schema(file: h5py.File, path: Path, has_seal: bool) -> None:
    if "config" not in file or "fingerprint" not in file["config"].attrs:
        raise BrokenFileError(f"file: {path} is an HDF5 file, but not of a run")
    schema = int(file["config"].attrs["schema_version"])
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"file: {path} has schema {schema}; this version of ncsam reads up to {SCHEMA_VERSION}: use a later one"
        )
    if schema >= FIRST_SEALED and not has_seal:
        raise BrokenFileError(f"file: {path} has lost its checksum: it was cut short or written to")


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
    """Writes a finished run; its checksum is that of what is read back before it takes its name.

    HDF5 writes to memory and the disk sees one stream of bytes: a full disk is then an error like any other, where
    HDF5 would leave a file that it cannot close.

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
        with h5py.File(beside, "w", driver="core", backing_store=False) as file:
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
            file.flush()
            content = file.id.get_file_image()
        beside.write_bytes(sealed(content))
        if not is_sealed(beside):
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
        return pd.DataFrame({**identity(config_of(file)), **history_of(file)})


def history_of(file: h5py.File) -> pd.DataFrame:
    """One row an epoch, from an open run file; a metric that came after it was written is NaN."""
    found = pd.DataFrame({name: data[()] for name, data in file["history"].items()})
    return found.reindex(columns=[*found.columns, *(name for name in METRICS if name not in found)])


def identity(stored: dict[str, Any]) -> dict[str, Any]:
    """Which run it is, from what `read_config` returns."""
    config = stored["config"]
    return {
        "dataset": config["dataset"],
        "noise_kind": config["noise"]["kind"],
        "noise_rate": config["noise"]["rate"],
        "method": config["method"]["label"],
        "seed": config["seed"],
    }
