"""HDF5 files that are sealed with a checksum (`ncsam.seal`), and read without trust.

A file is refused if it leads out of itself, needs code of a plugin, or asks for boundless memory. The groups of a run
file must also have the types and shapes that were written; this is checked before any number is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from analysis.store.files import BrokenFileError
from landscape.results import trust
from landscape.results.registry import RESULT_CLASSES
from landscape.results.storage import check_fields
from ncsam import seal


def check_trusted(file: h5py.File, path: object, *, besides: Collection[str] = ()) -> None:
    """Checks every object of a file before any of it is read.

    Args:
        file: the open file.
        path: path of the file, for the message.
        besides: names that are not checked, because they will not be read.

    Raises:
        BrokenFileError: a link leads out of the file or in a circle, data are in another file, a type or a filter is
            one that no run file has, or the objects claim more than a file of this size can hold.
    """
    try:
        trust.check_trusted(file, besides=besides)
    except trust.UntrustedError as fault:
        raise BrokenFileError(f"file: {path} is not to be trusted: {fault}") from fault


def is_sealed(path: Path) -> bool:
    """Whether the file ends with its checksum.

    Raises:
        BrokenFileError: the checksum is wrong.
    """
    try:
        return seal.is_sealed(path)
    except seal.SealError as error:
        raise BrokenFileError(str(error)) from error


def checksum_of(path: Path) -> str:
    """SHA-256 of a file's content: as its seal says, or computed if it has none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - seal.LENGTH))
        line = file.read()
        if line.startswith(seal.BEFORE_DIGEST) and len(line) == seal.LENGTH:
            return line[len(seal.BEFORE_DIGEST) :].decode("ascii", errors="replace").strip()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_content(file: h5py.File) -> None:
    """Checks the history and the labels of an open run file.

    Raises:
        ValueError: a metric has not one number for each epoch; labels are not whole numbers from 0 and below the
            number of classes, or there are not as many observed as true ones; weights are no data sets; or measured
            samples are none of the training set.
    """
    epochs = file["history/epoch"].shape
    if epochs != (file["config"].attrs["epochs"],) or epochs[0] < 1:
        raise ValueError(f"history/epoch has the shape {epochs}")
    for name, item in file["history"].items():
        if item.dtype.kind not in "iuf" or item.shape != epochs:
            raise ValueError(
                f"history/{name} holds {item.dtype} of shape {item.shape}, not {epochs[0]} numbers"
            )
    clean, observed, transition = (file[f"labels/{name}"] for name in ("clean", "observed", "transition"))
    classes = len(transition)
    if transition.dtype.kind != "f" or transition.shape != (classes, classes):
        raise ValueError(f"labels/transition holds {transition.dtype} of shape {transition.shape}")
    for item in (clean, observed):
        if item.dtype.kind not in "iu" or item.ndim != 1 or item.shape != observed.shape or len(item) == 0:
            raise ValueError(f"{item.name} holds {item.dtype} of shape {item.shape}")
        values = item[()]
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(f"{item.name} holds labels that are none of {classes} classes")
    if not np.isfinite(transition[()]).all():
        raise ValueError("labels/transition holds what is no number")
    for item in file["weights"].values() if "weights" in file else ():
        if not isinstance(item, h5py.Dataset):
            raise ValueError(f"{item.name} is no data set")
    _check_measured(file, len(observed))


def _check_measured(file: h5py.File, samples: int) -> None:
    """Checks which training samples were measured, by whose positions the columns of single samples are computed."""
    if "measured_samples/train" not in file:
        return
    train = file["measured_samples/train"]
    if train.dtype.kind not in "iu" or train.ndim != 1 or ((train[()] < 0) | (train[()] >= samples)).any():
        raise ValueError(f"{train.name} holds positions that are none of {samples} samples")
    single = "samples/observed/loss"
    if single in file and file[single].shape != train.shape:
        raise ValueError(
            f"/{single} has the shape {file[single].shape}, and {len(train)} samples were measured"
        )


def check_results(file: h5py.Group) -> None:
    """Checks the types and shapes of all results of an open run file, such as surfaces, without reading them.

    Raises:
        ValueError: a result is not as it was written.
    """
    for item in file.values():
        if isinstance(item, h5py.Group):
            cls = RESULT_CLASSES.get(str(item.attrs.get("type")))
            if cls is not None:
                check_fields(item, cls)
            else:
                check_results(item)
