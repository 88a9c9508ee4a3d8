"""The finished points of a long evaluation in an HDF5 file, so that it can continue after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from landscape.data.batches import content_of
from landscape.evaluation.evaluator import Evaluator, Values
from landscape.loss.objective import Objective
from landscape.results.fields import FloatArray
from landscape.results.files import replaced
from landscape.results.trust import FAULTS, check_trusted
from landscape.slices.levels import Levels

FIELDS = [field.name for field in dataclasses.fields(Values)]

CHUNK = 16
"""Least number of points that are evaluated together."""


def fingerprint(objectives: Mapping[str, Objective], vectors: list[Tensor], settings: Any) -> dict[str, str]:
    """Digests of all that decides the values. Two evaluations with equal digests may share points.

    The digest of the weights includes the names of the variables and of all tensors, because equal tensors under other
    names are another model. (Files of earlier versions lack the names, and are refused as files of other weights.)
    """
    first = next(iter(objectives.values()))
    state = first.tensors()
    return {
        "weights": _digest([first.theta, *state.values()], names=(first.names, tuple(state))),
        "directions": _digest(vectors),
        "data": _digest_of_data(list(objectives.values())),
        "settings": hashlib.sha256(repr((list(objectives), str(first.dtype), settings)).encode()).hexdigest(),
    }


def _digest_of_data(objectives: list[Objective]) -> str:
    if all(objective.is_supervised for objective in objectives):
        return _digest([tensor for each in objectives for tensor in (each.inputs, each.targets)])
    return hashlib.sha256(repr([each.chunks.fingerprint for each in objectives]).encode()).hexdigest()


def _digest(tensors: list[Tensor], names: Any = ()) -> str:
    digest = hashlib.sha256(repr(names).encode())
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(content_of(tensor))
    return digest.hexdigest()


class Checkpoint:
    """Evaluates points and keeps their values in a file. Points that the file holds are not evaluated again.

    A new file is written beside the old one and then renamed, so that a kill leaves one of the two whole.

    Args:
        path: path of the HDF5 file, which is made if missing. No other evaluation may use it.
        evaluator: evaluates the points that the file lacks.
        known: `fingerprint` of the evaluation.
        every: seconds between two writes of the file.

    Raises:
        ValueError: the file is no checkpoint, or belongs to another evaluation.
        FileNotFoundError: the folder of the file does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        evaluator: Evaluator | Levels,
        known: Mapping[str, str],
        *,
        every: float = 10.0,
    ) -> None:
        self._path = Path(path)
        self._evaluator = evaluator
        self._known = dict(known)
        self._every = every
        self._values: dict[tuple[float, ...], FloatArray] = {}
        if not self._path.parent.is_dir():
            raise FileNotFoundError(f"checkpoint: the folder of {path} does not exist; make it first")
        if self._path.exists():
            # a reader would wait at a FIFO for ever
            if not self._path.is_file():
                raise ValueError(f"checkpoint: {path} is not a file; choose another")
            self._read()
        self._written = time.monotonic()

    def __call__(self, multiples: FloatArray, progress: Callable[[int], None] | None = None) -> Values:
        """The values of the evaluator. Finished points are read from the file, and new points are written to it.

        Points are always evaluated in the same portions, so that results agree bit for bit.
        """
        size = self._evaluator.block * max(1, CHUNK // self._evaluator.block)
        for start in range(0, len(multiples), size):
            portion = multiples[start : start + size]
            if any(tuple(point) not in self._values for point in portion.tolist()):
                self._evaluate(portion)
            # the file is written before progress is called, because the caller may stop there
            if time.monotonic() - self._written > self._every:
                self._write()
            if progress:
                progress(start + len(portion))
        self._write()
        columns = np.stack([self._values[tuple(point)] for point in multiples.tolist()], 1)
        return _values(columns)

    def _evaluate(self, portion: FloatArray) -> None:
        found = _columns(self._evaluator(portion))
        for index, point in enumerate(portion.tolist()):
            self._values[tuple(point)] = found[:, index]

    def _read(self) -> None:
        try:
            with h5py.File(self._path, "r") as file:
                check_trusted(file)
                known = dict(file["finished"].attrs)
                points, values, center = (
                    _stored(file[f"finished/{name}"], ndim)
                    for name, ndim in (("multiples", 2), ("values", 3), ("center", 3))
                )
            if known.get("checksum") != _checksum(points, values, center):
                raise KeyError("checksum")
            if values.shape[:2] != (len(FIELDS), len(points)) or values[:, :1].shape != center.shape:
                raise KeyError("values")
        except FAULTS as error:
            raise ValueError(
                f"checkpoint: {self._path} is not a whole checkpoint of a surface; delete it to begin anew"
            ) from error
        for name, digest in self._known.items():
            if known.get(name) != digest:
                raise ValueError(
                    f"checkpoint: {self._path} is of other {name}; choose another file, or delete it to begin anew"
                )
        self._check_loss(center, points, values)
        for index, point in enumerate(points.tolist()):
            self._values[tuple(point)] = values[:, index]

    def _check_loss(self, center: FloatArray, points: FloatArray, values: FloatArray) -> None:
        """Compares the values at the center and at the highest stored point with those of today.

        The loss function and the code of the model have no digest. A loss that agrees at both points, such as one that
        differs only in samples of which neither point has a loss, is not noticed. The center alone does not tell:
        where all samples are memorized, every loss is nearly 0.
        """
        now = _columns(self._evaluator.center)
        losses = np.where(np.isfinite(values[0]), values[0], -np.inf).max(1)
        if len(points) and np.isfinite(losses).any():
            highest = int(losses.argmax())
            # as many points as are evaluated together, because half precision rounds a single one otherwise
            together = np.repeat(points[[highest]], self._evaluator.block, 0)
            center = np.concatenate([center, values[:, [highest]]], 1)
            now = np.concatenate([now, _columns(self._evaluator(together))[:, :1]], 1)
        if not np.allclose(center, now, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise ValueError(f"checkpoint: {self._path} is of another loss or model; choose another file")

    def _write(self) -> None:
        with replaced(self._path) as beside, h5py.File(beside, "w") as file:
            group = file.create_group("finished")
            group.attrs.update(self._known)
            points = np.array(list(self._values), dtype=np.float64)
            values = np.stack(list(self._values.values()), 1)
            center = _columns(self._evaluator.center)
            group["multiples"], group["values"], group["center"] = points, values, center
            group.attrs["checksum"] = _checksum(points, values, center)
            group["values"].attrs["description"] = f"{', '.join(FIELDS)}; points; losses"
        self._written = time.monotonic()


def _checksum(*arrays: FloatArray) -> str:
    """The digest of numbers in float64, and of their shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array, dtype=np.float64).data)
    return digest.hexdigest()


def _stored(item: h5py.Dataset, ndim: int) -> FloatArray:
    """The numbers that `_write` stored. The file must hold all of their bytes."""
    if item.dtype != np.float64 or item.ndim != ndim or item.id.get_storage_size() != item.nbytes:
        raise KeyError(item.name)
    return np.asarray(item[()])


def _columns(values: Values) -> FloatArray:
    """The values as one array (fields, points, losses), NaN for a field that was not asked for."""
    fields = [getattr(values, name) for name in FIELDS]
    shape = values.loss.shape
    return np.stack([np.full(shape, np.nan) if field is None else field for field in fields])


def _values(columns: FloatArray) -> Values:
    loss, accuracy, *errors = columns
    asked = not all(np.isnan(error).all() for error in errors)
    return Values(loss, accuracy, *(errors if asked else (None, None)))
