"""Stores results in HDF5 groups, losslessly, with units, descriptions and dimension scales.

The dimension scales make the groups readable as data sets with coordinates:
`xarray.open_dataset(path, group="surface/random", engine="h5netcdf")`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from h5py import h5a, h5d, h5ds, h5p, h5s, h5t
from torch import Tensor

from landscape.results.fields import LOSS_UNIT
from landscape.results.files import is_open_for_writing, one_writer_at_a_time, replaced
from landscape.results.registry import RESULT_CLASSES
from landscape.results.trust import (
    FAULTS,
    MOST_INFLATED,
    UntrustedError,
    check_name,
    check_path,
    check_trusted,
)
from landscape.results.versions import versions

NO_COORDINATES = "This is a netCDF dimension but not a netCDF variable."
MOST_NAMED = 50
"""Most results that an error lists."""
INDEX_OF_CHUNKS = 2048
"""Bytes of the tree that HDF5 keeps for the chunks of a compressed dataset. Smaller datasets are not compressed."""
SMALL = 1 << 20
"""Smaller datasets are compressed whatever they hold."""

# A run's file has a hundred small datasets, each with two or three attributes. h5py's own ways of making them look
# for one to replace and work out the types each time, which takes most of the time of a short run.
PLAIN = h5p.create(h5p.DATASET_CREATE)
PLAIN.set_obj_track_times(False)
SCALAR = h5s.create(h5s.SCALAR)
ATTRIBUTE_TYPES = {
    str: h5t.py_create(h5py.string_dtype(), logical=True),
    # as a number, which netCDF has for an attribute
    bool: h5t.py_create(np.dtype(np.int8), logical=True),
}


def save(file: str | Path | h5py.Group, name: str, result: Any) -> None:
    """Writes a result as the group `name`, and replaces an earlier result of that name.

    Arrays become datasets with named dimensions. Numbers and words become scalar datasets. Each dataset has the
    attributes `description` and `units`. A field that is None is left out. Tensors in bfloat16, which NumPy and HDF5
    lack, are stored in float32. The group's attribute `versions` is JSON: of Python and of the packages by which the
    result was stored.

    If `file` is a path, a new file is written beside the old one and then renamed, so that a kill leaves one of the two
    whole. If writing fails, an earlier result of the name stays as it was. Several processes and threads may save to
    one path: each waits for the one before, and all results are kept. Results whose names begin with this one's are
    kept too.

    Args:
        file: a path, whose file is made if missing, or an open file or group.
        name: name of the group; slashes nest groups.
        result: an instance of a class that is declared with `@result`.

    Raises:
        TypeError: the object is not a result.
        ValueError: an array does not fit its dimensions, the path ends like a file of another format, as `.npz`, the
            file is not HDF5 or is open for writing elsewhere, or the group of that name is not a result, such as a
            group of several results.
    """
    if type(result) is not RESULT_CLASSES.get(type(result).__name__):
        known = ", ".join(sorted(RESULT_CLASSES))
        raise TypeError(f"result: can save {known}; got {type(result).__name__}")
    check_name(name)
    if not name.strip("/"):
        raise ValueError(f"name: must be a word, got {name!r}")
    if not isinstance(file, h5py.Group):
        _save_to_path(Path(file), name, result)
        return
    if name in file and "type" not in file[name].attrs:
        raise ValueError(f"name: {name!r} holds no result that could be replaced; choose another name")
    described = dataclasses.fields(RESULT_CLASSES[type(result).__name__])
    fields = {word for field in described for word in (field.name, *field.metadata["dims"])}
    inner = (
        [] if name not in file else [key for key, each in file[name].items() if isinstance(each, h5py.Group)]
    )
    if taken := sorted(fields.intersection(inner)):
        raise ValueError(
            f"name: {name!r} holds the result {taken[0]!r}, which has the name of a field or dimension of "
            f"{type(result).__name__}; save under another name"
        )
    # the group gets its name when it is whole, and only then replaces an earlier one
    group = file.create_group(None)
    group.attrs["type"] = type(result).__name__
    group.attrs["versions"] = json.dumps(versions())
    for field in sorted(
        dataclasses.fields(RESULT_CLASSES[type(result).__name__]), key=lambda f: not f.metadata["coordinate"]
    ):
        value = getattr(result, field.name)
        if value is None:
            continue
        array = _array(value) if isinstance(value, Tensor) else value
        about = {**field.metadata}
        if about["unit"] == LOSS_UNIT:
            about["unit"] = _loss_unit(result)
        write(group, field.name, array, **about, tensor=isinstance(value, Tensor))
    if name in file:
        for key in inner:
            group[key] = file[name][key]
        del file[name]
    file[name] = group


OF_OTHER_FORMATS = (".npz", ".npy", ".pt", ".pth", ".csv", ".json", ".pkl", ".pickle")
"""Suffixes by which other programs would open an HDF5 file in vain."""


def _save_to_path(path: Path, name: str, result: Any) -> None:
    with changed(path) as opened:
        save(opened, name, result)


@contextmanager
def changed(path: Path) -> Iterator[h5py.File]:
    """A copy of an HDF5 file, open for writing. At the end it replaces the file in one step; a missing file is made.

    Raises:
        FileNotFoundError, ValueError: as for `check_place`.
    """
    _check_name(path)
    with one_writer_at_a_time(path):
        _check_not_open(path)
        with replaced(path, copied=True) as beside, _opened(beside, "a", named=path) as opened:
            yield opened


def check_place(path: Path) -> None:
    """Checks a path before `changed`, such as before hours of measuring.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the path ends like a file of another format, or the file is not HDF5 or open for writing elsewhere.
    """
    _check_name(path)
    _check_not_open(path)
    if path.exists():
        _opened(path, "r", named=path).close()


def _check_name(path: Path) -> None:
    if path.suffix.lower() in OF_OTHER_FORMATS:
        raise ValueError(f"file: {path.name} would hold HDF5; name it {path.stem}.h5")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"file: the folder of {path} does not exist; make it first")


def _check_not_open(path: Path) -> None:
    if is_open_for_writing(path):
        raise ValueError(
            f"file: {path} is open for writing elsewhere, where what is saved now would be lost; close it first, "
            "or save to the open h5py.File"
        )


def _loss_unit(result: Any) -> str:
    unit: str = result.loss_unit
    return unit


def _array(tensor: Tensor) -> np.ndarray:
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.asarray(wide.detach().cpu().numpy())


def load(file: str | Path | h5py.Group, name: str) -> Any:
    """Reads the result in the group `name`. Tensors are returned on the CPU.

    Raises:
        FileNotFoundError: the file does not exist.
        KeyError: the group does not exist.
        ValueError: the file is not HDF5, or the group does not hold a result as `save` writes it: a field is missing,
            has another type or shape, is stored outside of this file, or claims more bytes than the file has.
    """
    check_name(name)
    if not isinstance(file, h5py.Group):
        if not Path(file).is_file():
            raise FileNotFoundError(f"file: {file} does not exist")
        with _opened(Path(file), "r", named=file) as opened:
            return load(opened, name)
    with _faults_named(file, name):
        check_path(file, name)
        if name in file:
            return _read_result(file[name])
        others = _what_is_there(file)
    raise KeyError(f"name: no {name!r} in {file.file.filename}; {others}")


@contextmanager
def _faults_named(file: h5py.Group, name: str) -> Iterator[None]:
    """Says of any fault in which file it is: HDF5 itself names none."""
    try:
        yield
    except FAULTS as error:
        words = " ".join(str(error).split())
        raise ValueError(f"name: {name!r} in {file.file.filename} is not read: {words}") from error


def _read_result(group: h5py.Group) -> Any:
    if not isinstance(group, h5py.Group):
        raise UntrustedError("it does not hold a result")
    check_trusted(group)
    cls = RESULT_CLASSES.get(str(group.attrs.get("type")))
    if cls is None:
        raise UntrustedError("it does not hold a result")
    check_fields(group, cls)
    values = {}
    for field in dataclasses.fields(cls):
        if field.name in group:
            values[field.name] = _read(group[field.name])
        elif field.default is dataclasses.MISSING:
            if "None" not in str(field.type):
                raise UntrustedError(f"it lacks {field.name!r}; write the result anew")
            values[field.name] = None
    return cls(**values)


def check_fields(group: h5py.Group, cls: type) -> None:
    """Checks the stored fields of a result without reading them.

    Raises:
        UntrustedError: a field has another type or shape than `save` writes.
    """
    for field in dataclasses.fields(cls):
        if field.name in group and (fault := _fault(group, field)):
            raise UntrustedError(f"{field.name!r} of {group.name} {fault}")
    _check_lengths(group, cls)


def _what_is_there(file: h5py.Group) -> str:
    """The results in a file, for an error."""
    names: list[str] = []
    check_trusted(file)

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if str(item.attrs.get("type")) in RESULT_CLASSES:
            names.append(name)

    file.visititems(collect)
    shown = ", ".join(map(repr, names[:MOST_NAMED])) + (", ..." if len(names) > MOST_NAMED else "")
    return f"there is {shown}" if names else "it holds no result"


def _opened(path: Path, mode: str, *, named: object) -> h5py.File:
    try:
        return h5py.File(path, mode)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"file: the folder of {named} does not exist; make it first") from error
    except (OSError, RuntimeError) as error:
        # an errno is an error of the system, such as a full disk
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"file: {named} is not a whole HDF5 file; choose another") from error


def _fault(group: h5py.Group, field: dataclasses.Field[Any]) -> str | None:
    """The reason why a stored field cannot come from `save`; None if it can. Nothing is read."""
    item = group[field.name]
    if not isinstance(item, h5py.Dataset) or "tensor" not in item.attrs:
        return "is no data set of a result"
    dims = field.metadata["dims"]
    if item.ndim != len(dims):
        return f"has {item.ndim} dimensions, not {len(dims)}"
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if is_text != ("str" in str(field.type)) or not (is_text or item.dtype.kind in "biuf"):
        return f"holds {item.dtype}"
    return None


def _check_lengths(group: h5py.Group, cls: type) -> None:
    """Checks that the fields along one dimension have one length.

    Raises:
        UntrustedError: the lengths differ.
    """
    lengths: dict[str, int] = {}
    for field in dataclasses.fields(cls):
        if field.name in group:
            for dim, length in zip(field.metadata["dims"], group[field.name].shape, strict=True):
                if lengths.setdefault(dim, length) != length:
                    raise UntrustedError(
                        f"{field.name!r} of {group.name} has {length} along {dim}, other fields have {lengths[dim]}"
                    )


def write(
    group: h5py.Group,
    name: str,
    value: Any,
    *,
    description: str,
    unit: str = "",
    dims: tuple[str, ...] = (),
    coordinate: bool = False,
    tensor: bool | None = None,
) -> None:
    """Writes one described array or scalar. Dimension scales in the same group name its dimensions.

    A dimension without coordinates gets an empty scale, with the name that netCDF gives to such scales. `tensor` says
    whether a field of a result was a tensor; other arrays say nothing of it.

    Raises:
        ValueError: the array has another number of dimensions than names, or a dimension has another length.
    """
    array = np.asarray(value)
    if array.ndim != len(dims):
        raise ValueError(f"dims: {name} has {array.ndim} dimensions, named {dims}")
    dataset = _new_dataset(group, name, array)
    flags = {} if tensor is None else {"tensor": tensor}
    _set_attributes(dataset, description=description, units=unit, **flags)
    if coordinate:
        h5ds.set_scale(dataset, name.encode())
        return
    for axis, dim in enumerate(dims):
        key = dim.encode()
        if key not in group.id:
            length = array.shape[axis]
            scale = h5d.create(group.id, key, h5t.IEEE_F32BE, h5s.create_simple((length,)), PLAIN)
            _set_attributes(scale, description=f"dimension {dim}, without coordinates")
            h5ds.set_scale(scale, f"{NO_COORDINATES}{length:10d}".encode())
        else:
            scale = h5d.open(group.id, key)
            if scale.shape != (array.shape[axis],):
                raise ValueError(
                    f"dims: {name} has {array.shape[axis]} along {dim}, which has {scale.shape[0]}"
                )
        h5ds.attach_scale(dataset, scale, axis)


def _new_dataset(group: h5py.Group, name: str, array: np.ndarray) -> h5d.DatasetID:
    if array.dtype.kind == "U":
        return group.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype()).id
    if array.nbytes > INDEX_OF_CHUNKS:
        compressed = group.create_dataset(name, data=array, compression="gzip", shuffle=True).id
        # chunks are counted once they are in the file
        compressed.flush()
        if array.nbytes < SMALL or array.nbytes <= MOST_INFLATED * compressed.get_storage_size():
            return compressed
        # `load` refuses what claims far more bytes than the file holds, as an attack would; compressed zeros look so
        del compressed, group[name]
    stored_type, space = h5t.py_create(array.dtype, logical=True), h5s.create_simple(array.shape)
    dataset = h5d.create(group.id, name.encode(), stored_type, space if array.ndim else SCALAR, PLAIN)
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array).reshape(array.shape))
    return dataset


def _set_attributes(dataset: h5d.DatasetID, **values: str | bool) -> None:
    for name, value in values.items():
        attribute = h5a.create(dataset, name.encode(), ATTRIBUTE_TYPES[type(value)], SCALAR)
        attribute.write(np.array(value, dtype=object if isinstance(value, str) else np.int8))


def _read(dataset: h5py.Dataset) -> Any:
    if dataset.attrs["tensor"]:
        return torch.from_numpy(np.asarray(dataset[()]))
    if h5py.check_string_dtype(dataset.dtype):
        text = dataset.asstr()[()]
        return text if isinstance(text, str) else text.astype(str)
    value = dataset[()]
    return value if isinstance(value, np.ndarray) else value.item()
