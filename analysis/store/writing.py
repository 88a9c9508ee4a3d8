"""One run's HDF5 file, written from memory, whole and sealed."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import nn

import landscape
from analysis.grid import Run
from analysis.store.files import StoreError, is_sealed, replace_file, sealed
from analysis.store.record import Record, record_of
from analysis.store.run_file import failure_path
from analysis.store.schema import SCHEMA_VERSION
from landscape.results.storage import write
from ncsam.label_noise import NoisyLabels
from ncsam.training import History

if TYPE_CHECKING:
    from analysis.run import Choice


@functools.cache
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
    data: str,
    device: str,
) -> Record:
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

    Returns:
        What a study needs to know of the run, so that nobody has to open the file for it.
    """
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        _write_config(file.create_group("config"), run, choice, history, data, device)
        _write_labels(file.create_group("labels"), labels)
        _write_history(file.create_group("history"), history)
        weights = file.create_group("weights")
        for name, tensor in model.state_dict().items():
            weights.create_dataset(name, data=tensor.detach().cpu().numpy())
        for name, result in measurements.items():
            landscape.save(file, name, result)
        for name, indices in measured.items():
            text = f"positions in the {name} set of the samples that were measured on"
            group = file.require_group("measured_samples")
            write(group, name, indices.numpy(), description=text, dims=(f"{name}_sample",))
        file.flush()
        content, record = file.id.get_file_image(), record_of(file)

    def write_to(beside: Path) -> None:
        beside.write_bytes(sealed(content))
        if not is_sealed(beside):
            raise StoreError(f"file: {beside} did not reach the disk whole")

    replace_file(path, write_to)
    failure_path(path).unlink(missing_ok=True)
    return record


def _write_config(
    group: h5py.Group, run: Run, choice: Choice, history: History, data: str, device: str
) -> None:
    group.attrs["schema_version"] = SCHEMA_VERSION
    group.attrs["fingerprint"] = run.fingerprint
    group.attrs["config"] = json.dumps(run.config)
    group.attrs["hyperparameters"] = json.dumps(choice.hyperparameters)
    group.attrs["versions"] = json.dumps(versions())
    group.attrs["data"] = data
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
