"""The HDF5 file of a run: its schema, reading without trust, and writing whole and sealed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

import landscape
from analysis.objectives import MEASURED_LOSS
from analysis.plan.choice import Choice
from analysis.plan.grid import Run
from analysis.plan.run_config import RunConfig, digest
from analysis.store.failures import failure_path
from analysis.store.files import BrokenFileError, StoreError
from analysis.store.safe_hdf5 import check_trusted, checksum_of, is_sealed
from analysis.store.sealed_file import sealed_file
from landscape.results.storage import write
from landscape.results.trust import FAULTS
from landscape.results.versions import versions
from ncsam.history import History
from ncsam.label_noise import NoisyLabels
from ncsam.seal import without_seal
from ncsam.training import METRICS

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
"""1: version 0.1.0, without a checksum and without later settings. 2: sealed, with all settings."""
FIRST_SEALED = 2
_CHECKED: set[str] = set()
"""Checksums of the run files whose objects this process has checked. The check takes longer than the reading."""


@dataclass(frozen=True)
class MeasuredBy:
    """How a measure of a run was taken.

    Attributes:
        version: version of the measure; 1 if the file does not say.
        device: device of the measurement; empty if the file does not say.
        versions: versions of all packages that compute results.
    """

    version: int
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredRun:
    """The description of a run in its file.

    Attributes:
        config: configuration of the run.
        hyperparameters: the chosen hyper-parameters.
        versions: versions of all packages that computed the result.
        data: digest of the data; empty if the file is older than these digests.
        device: device of the training.
        threads: number of torch's threads.
        diverged: whether training ended because outputs or loss were not finite.
        epochs: number of trained epochs.
        measured_by: name of a measure -> how it was taken; empty if the file does not say.
    """

    config: RunConfig
    hyperparameters: dict[str, Any]
    versions: dict[str, str]
    data: str
    device: str
    threads: int
    diverged: bool
    epochs: int
    measured_by: dict[str, MeasuredBy]


def read_config(path: Path) -> StoredRun:
    """The `/config` of a run file. Files of older schemas are read as files of the current one.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is no whole run file.
        StoreError: a later version wrote the file.
    """
    with opened(path) as file:
        return config_of(file)


def config_of(file: h5py.File) -> StoredRun:
    """The `/config` of an open run file.

    Raises:
        BrokenFileError: the configuration makes no sense.
        StoreError: a later version wrote the file.
    """
    with faults_named(file.filename):
        return _config_of(file)


def _config_of(file: h5py.File) -> StoredRun:
    attributes = file["config"].attrs
    written = json.loads(attributes["config"])
    if digest(written) != attributes["fingerprint"]:
        raise ValueError("its configuration does not have its fingerprint")
    measured_by = json.loads(attributes.get("measured_by", "{}"))
    return StoredRun(
        config=RunConfig.stored(written),
        hyperparameters=json.loads(attributes["hyperparameters"]),
        versions=json.loads(attributes["versions"]),
        data=str(attributes.get("data", "")),
        device=str(attributes["device"]),
        threads=int(attributes["threads"]),
        diverged=bool(attributes["diverged"]),
        epochs=int(attributes["epochs"]),
        measured_by={name: MeasuredBy(**who) for name, who in measured_by.items()},
    )


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A run file, open for reading, after its checksum and all its objects were checked.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is no whole run file, its bytes have changed, or it leads to other files. Also if
            HDF5 cannot read a part of it within the context.
        StoreError: a later version wrote the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"file: {path} does not exist")
    if not path.is_file():
        raise BrokenFileError(f"file: {path} is not a file")
    has_seal = is_sealed(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise BrokenFileError(
            f"file: {path} is not a whole HDF5 file; if it was a run's, delete it and run the study again"
        ) from error
    with file:
        with faults_named(path):
            checksum = checksum_of(path) if has_seal else None
            if checksum not in _CHECKED:
                check_trusted(file, path)
                _check_schema(file, path, has_seal)
            if checksum is not None:
                _CHECKED.add(checksum)
        # any other error within the context is one of the code there, and no reason to call the file broken
        try:
            yield file
        except OSError as error:
            # an errno is an error of the system; HDF5 has none
            if error.errno is not None:
                raise
            raise _broken(path, error) from error


@contextmanager
def faults_named(path: object) -> Iterator[None]:
    """Calls a run's file broken if its content, which is checked within, makes no sense.

    Args:
        path: path of the file, for the message.

    Raises:
        BrokenFileError: an error was raised within that broken files raise.
        StoreError: the file has settings of a later version.
    """
    try:
        yield
    except ValidationError as error:
        # an unknown setting is one of a later version, and the file is not broken
        is_later = all(fault["type"] == "extra_forbidden" for fault in error.errors())
        first = error.errors()[0]
        words = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _broken(path, words, StoreError if is_later else BrokenFileError) from error
    except StoreError:
        raise
    except FAULTS as error:
        raise _broken(path, error) from error


def _broken(path: object, fault: object, kind: type[StoreError] = BrokenFileError) -> StoreError:
    words = " ".join(str(fault).split())
    return kind(f"file: {path} does not hold what a run's file holds: {words}")


def _check_schema(file: h5py.File, path: Path, has_seal: bool) -> None:
    if "config" not in file or "fingerprint" not in file["config"].attrs:
        raise BrokenFileError(f"file: {path} is an HDF5 file, but not of a run")
    schema = int(file["config"].attrs["schema_version"])
    # checked first, because without a checksum a large number may be a broken one
    if schema >= FIRST_SEALED and not has_seal:
        raise BrokenFileError(f"file: {path} has lost its checksum: it was cut short or written to")
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"file: {path} has schema {schema}; this version of ncsam reads up to {SCHEMA_VERSION}: use a later one"
        )


def load_weights(path: str | Path, model: nn.Module) -> None:
    """Loads the `/weights` of a run file into a model of the same architecture.

    Raises:
        FileNotFoundError, BrokenFileError, StoreError: as for `opened`.
        RuntimeError: the model has another architecture.
    """
    with opened(Path(path)) as file, faults_named(path):
        state = {name: torch.from_numpy(np.asarray(data[()])) for name, data in file["weights"].items()}
    model.load_state_dict(state)


def read_history(path: Path) -> pd.DataFrame:
    """The history of a run, one row for each epoch, with the run's identity in the first columns."""
    import pandas as pd  # a worker writes files without pandas, which loads slowly

    with opened(path) as file, faults_named(path):
        return pd.DataFrame({**config_of(file).config.identity._asdict(), **metrics_of(file)})


def metrics_of(file: h5py.File) -> dict[str, np.ndarray]:
    """Metric -> its value after each epoch, from an open run file. Metrics that are newer than the file are NaN."""
    found = {name: data[()] for name, data in file["history"].items()}
    return found | {name: np.full(len(found["epoch"]), np.nan) for name in METRICS if name not in found}


@contextmanager
def run_file_written(path: Path) -> Iterator[h5py.File]:
    """A run's file, which is written as `sealed_file` says. The error of an earlier failure is removed after.

    Args:
        path: path of the run's file.

    Raises:
        OSError, StoreError: the file did not reach the disk. An older file stays as it was.
    """
    with sealed_file(path) as file:
        yield file
    failure_path(path).unlink(missing_ok=True)


@contextmanager
def run_file_changed(path: Path) -> Iterator[h5py.File]:
    """A copy of a run's file in memory. At the end of the context the copy replaces the file, whole and sealed.

    Raises:
        FileNotFoundError, BrokenFileError, StoreError: as for `opened`.
        OSError, StoreError: the file did not reach the disk. The old file stays as it was.
    """
    with opened(path):
        content = without_seal(path.read_bytes())
    with sealed_file(path, content) as file:
        yield file
    failure_path(path).unlink(missing_ok=True)


def write_training(
    file: h5py.File,
    run: Run,
    choice: Choice,
    labels: NoisyLabels,
    history: History,
    model: nn.Module,
    *,
    data: str,
    device: str,
) -> None:
    """Writes the results of a training into a new run file.

    Args:
        file: file that is open for writing.
        run: the planned run.
        choice: the chosen hyper-parameters.
        labels: labels of the training set.
        history: history of the training.
        model: the trained model.
        data: digest of the data.
        device: device of the training.
    """
    _write_config(file.create_group("config"), run, choice, history, data, device)
    _write_labels(file.create_group("labels"), labels)
    _write_history(file.create_group("history"), history)
    weights = file.create_group("weights")
    for name, tensor in model.state_dict().items():
        weights.create_dataset(name, data=tensor.detach().cpu().numpy())


def write_measurements(
    file: h5py.File, measurements: Mapping[str, Any], samples: Mapping[str, torch.Tensor]
) -> None:
    """Writes the measurements of the trained model.

    Args:
        file: file that is open for writing.
        measurements: name of the group -> result that `landscape.save` takes.
        samples: "train", "test" -> positions of the measured samples.
    """
    for name, result in measurements.items():
        landscape.save(file, name, result)
    remove_groups(file, ["measured_samples"])
    for name, indices in samples.items():
        text = f"positions in the {name} set of the samples that were measured on"
        group = file.require_group("measured_samples")
        write(group, name, indices.numpy(), description=text, dims=(f"{name}_sample",))


def remove_groups(file: h5py.File, names: Iterable[str]) -> None:
    """Removes groups from a file that is open for writing. Missing groups are ignored."""
    for name in names:
        if name in file:
            del file[name]


def write_measured_by(file: h5py.File, taken: Mapping[str, int], device: str) -> None:
    """Writes how some measures were taken. The entries of other measures stay.

    Args:
        file: file that is open for writing.
        taken: name of each measure -> its version.
        device: device of the measurements.
    """
    attributes = file["config"].attrs
    known = json.loads(attributes.get("measured_by", "{}"))
    for name, version in taken.items():
        known[name] = asdict(MeasuredBy(version, device, versions()))
    attributes["measured_by"] = json.dumps(known)
    attributes["measured_loss"] = MEASURED_LOSS


def write_run_config(group: h5py.Group, config: RunConfig) -> None:
    """Writes the configuration of a run into `/config`, in the current schema."""
    group.attrs["schema_version"] = SCHEMA_VERSION
    group.attrs["fingerprint"] = config.fingerprint
    group.attrs["config"] = json.dumps(config.as_plain())


def _write_config(
    group: h5py.Group, run: Run, choice: Choice, history: History, data: str, device: str
) -> None:
    write_run_config(group, run.config)
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
        (
            "observed",
            labels.observed,
            "labels that training saw; one draw of them where each step draws them anew",
        ),
    ):
        write(group, name, tensor.cpu().numpy(), description=text, dims=("sample",))
    write(
        group,
        "transition",
        labels.transition.numpy(),
        description="probability that a sample of the row's class is labeled as the column's",
        dims=("clean_class", "observed_class"),
    )
    # the transition of the model from which labels were drawn, or the shares in these labels
    group["transition"].attrs["kind"] = labels.transition_kind


def _write_history(group: h5py.Group, history: History) -> None:
    epochs = np.arange(1, history.epochs + 1)
    write(group, "epoch", epochs, description="epochs finished", dims=("epoch",), coordinate=True)
    for name, values in history.metrics.items():
        unit, description = history.described[name]
        write(group, name, values, description=description, unit=unit, dims=("epoch",))
