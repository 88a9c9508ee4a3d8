"""A result <-> an HDF5 group, losslessly, with units, descriptions and dimension scales.

The dimension scales make the groups readable as data sets with coordinates:
`xarray.open_dataset(path, group="surface/random", engine="h5netcdf")`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from landscape.density import SpectralDensity
from landscape.directions import Directions
from landscape.flatness import RelativeFlatness
from landscape.hessian import LayerTraces, TopEigenvalues, TraceEstimate
from landscape.matching import Matching
from landscape.noise import AverageSharpness, NoiseTolerance
from landscape.paths import Bend
from landscape.paths import Path as WeightPath
from landscape.profile import SharpnessProfile
from landscape.sharpness import Sharpness
from landscape.surface import Line, Surface
from landscape.trajectory import Trajectory

RESULT_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        AverageSharpness,
        Bend,
        Directions,
        LayerTraces,
        Line,
        Matching,
        NoiseTolerance,
        RelativeFlatness,
        Sharpness,
        SharpnessProfile,
        SpectralDensity,
        Surface,
        TopEigenvalues,
        TraceEstimate,
        Trajectory,
        WeightPath,
    )
}


WORTH_COMPRESSING = 1024
"""Bytes: HDF5's index of a compressed data set alone takes twice as many (docs/results.md)."""
NO_COORDINATES = "This is a netCDF dimension but not a netCDF variable."


def save(file: str | Path | h5py.Group, name: str, result: Any) -> None:
    """Writes a result as the group `name`, replacing one of that name.

    Arrays become datasets with their dimensions named, numbers and words become scalar datasets; each has
    the attributes `description` and `units`; a field that is None is left out.

    Args:
        file: a path, made if missing, or an open file or group.
        name: of the group; slashes nest.
        result: one of `RESULT_TYPES`.

    Raises:
        TypeError: not a result.
    """
    if type(result) is not RESULT_TYPES.get(type(result).__name__):
        known = ", ".join(sorted(RESULT_TYPES))
        raise TypeError(f"result: can save {known}; got {type(result).__name__}")
    if not isinstance(file, h5py.Group):
        with h5py.File(file, "a") as opened:
            save(opened, name, result)
        return
    if name in file:
        del file[name]
    group = file.create_group(name)
    group.attrs["type"] = type(result).__name__
    for field in sorted(
        dataclasses.fields(RESULT_TYPES[type(result).__name__]), key=lambda f: not f.metadata["coordinate"]
    ):
        value = getattr(result, field.name)
        if value is None:
            continue
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        write(group, field.name, array, **field.metadata)
        group[field.name].attrs["tensor"] = isinstance(value, Tensor)


def load(file: str | Path | h5py.Group, name: str) -> Any:
    """Reads the result in the group `name`; tensors come back on the CPU.

    Raises:
        FileNotFoundError: no such file.
        KeyError: no such group.
        ValueError: the group does not hold a result.
    """
    if not isinstance(file, h5py.Group):
        if not Path(file).is_file():
            raise FileNotFoundError(f"file: {file} does not exist")
        with h5py.File(file, "r") as opened:
            return load(opened, name)
    group = file[name]
    cls = RESULT_TYPES.get(str(group.attrs.get("type")))
    if cls is None:
        raise ValueError(f"name: {group.name} in {group.file.filename} does not hold a result")
    stored = {
        field.name: _read(group[field.name]) for field in dataclasses.fields(cls) if field.name in group
    }
    required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    return cls(**{**dict.fromkeys(required), **stored})


def write(
    group: h5py.Group,
    name: str,
    value: Any,
    *,
    description: str,
    unit: str = "",
    dims: tuple[str, ...] = (),
    coordinate: bool = False,
) -> None:
    """Writes one described array or scalar, its dimensions named by dimension scales in the same group.

    A dimension without coordinates gets an empty scale under the name that netCDF gives to such.

    Raises:
        ValueError: the number of dimension names is not the array's.
    """
    array = np.asarray(value)
    if array.ndim != len(dims):
        raise ValueError(f"dims: {name} has {array.ndim} dimensions, named {dims}")
    if array.dtype.kind == "U":
        array = array.astype(object)
        options: dict[str, Any] = {"dtype": h5py.string_dtype()}
    else:
        options = {"compression": "gzip", "shuffle": True} if array.nbytes >= WORTH_COMPRESSING else {}
    dataset = group.create_dataset(name, data=array, **options)
    dataset.attrs["description"] = description
    dataset.attrs["units"] = unit
    if coordinate:
        dataset.make_scale(name)
        return
    for axis, dim in enumerate(dims):
        if dim not in group:
            length = array.shape[axis]
            group.create_dataset(dim, shape=(length,), dtype=">f4")
            group[dim].attrs["description"] = f"dimension {dim}, without coordinates"
            group[dim].make_scale(f"{NO_COORDINATES}{length:10d}")
        dataset.dims[axis].attach_scale(group[dim])


def _read(dataset: h5py.Dataset) -> Any:
    if dataset.attrs["tensor"]:
        return torch.from_numpy(np.asarray(dataset[()]))
    if h5py.check_string_dtype(dataset.dtype):
        text = dataset.asstr()[()]
        return text if isinstance(text, str) else text.astype(str)
    value = dataset[()]
    return value if isinstance(value, np.ndarray) else value.item()
