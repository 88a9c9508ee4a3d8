"""Reads tensors and NumPy arrays of a file that torch.save wrote, without executing anything in the file."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from ncsam.pickled_arrays import (
    ARRAY_NAMES,
    Call,
    Name,
    PickleError,
    are_sizes,
    as_array,
    plain_array,
    read_pickle,
)

MAX_BYTES = 1 << 30
"""Most bytes of the pickle of a file, and of the content of a tensor."""

STORAGES = {
    "torch.BoolStorage": "b1",
    "torch.ByteStorage": "u1",
    "torch.CharStorage": "i1",
    "torch.ShortStorage": "i2",
    "torch.IntStorage": "i4",
    "torch.LongStorage": "i8",
    "torch.HalfStorage": "f2",
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
}
"""Name of the content of a pickled tensor -> its data type by NumPy's name."""

UNTYPED = {"torch.uint16": "u2", "torch.uint32": "u4", "torch.uint64": "u8"}
"""Data types of tensors whose content is named `torch.storage.UntypedStorage`."""

_TENSOR, _TENSOR_WITH_DTYPE = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
_NAMES = ARRAY_NAMES | {
    _TENSOR,
    _TENSOR_WITH_DTYPE,
    *STORAGES,
    *UNTYPED,
    "torch.storage.UntypedStorage",
    "collections.OrderedDict",
}
_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file that torch before 1.6 wrote."""

Arrays = dict[str, Callable[[], np.ndarray]]
"""Name -> function that makes the array. Only arrays that are made take memory."""


def read_torch_file(file: BinaryIO) -> Arrays:
    """The arrays of a file by name. A single array without a name has the name "".

    Raises:
        ValueError: the file is broken, or holds anything but a tensor, an array, or a dictionary of these. The
            functions in the result raise the error if the content of an array does not fit its description.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return _by_name(_before_torch_1_6(file), _no_storage)
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise PickleError("it is no file of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        found = read_pickle(io.BytesIO(_stored(archive, pickles[0])), _NAMES)
    return _by_name(found, lambda key: _storage(file, folder, key))


def _before_torch_1_6(file: BinaryIO) -> Any:
    """The fourth of four pickles. The content of tensors follows the pickles and is not read."""
    magic, _, _, found = (read_pickle(file, _NAMES) for _ in range(4))
    if magic != _MAGIC:
        raise PickleError("it is no file of torch.save")
    return found


def _no_storage(_: str) -> tuple[bytes, str]:
    raise PickleError("torch before 1.6 wrote its tensors; torch.save them again, or as NumPy arrays")


def _storage(file: BinaryIO, folder: str, key: str) -> tuple[bytes, str]:
    """The content of a tensor and its byte order, `"<"` or `">"`."""
    with zipfile.ZipFile(file) as archive:
        order = "<"
        if f"{folder}byteorder" in archive.namelist():
            order = ">" if _stored(archive, f"{folder}byteorder") == b"big" else "<"
        return _stored(archive, f"{folder}data/{key}"), order


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of the archive. torch compresses none, so its size is the one that the archive states."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise PickleError(f"it has no {name!r}") from None
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > MAX_BYTES:
        raise PickleError(f"{name!r} is compressed or larger than 1 GiB")
    return archive.read(member)


def _by_name(found: Any, storage: Callable[[str], tuple[bytes, str]]) -> Arrays:
    if isinstance(found, Call) and found.name != "collections.OrderedDict":
        found = {"": found}
    if not isinstance(found, dict) or not all(isinstance(value, Call) for value in found.values()):
        raise PickleError("it must hold arrays by name")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): partial(_rebuild, value, storage)
        for key, value in found.items()
    }


def _rebuild(call: Call, storage: Callable[[str], tuple[bytes, str]]) -> np.ndarray:
    if call.name not in (_TENSOR, _TENSOR_WITH_DTYPE):
        return as_array(call)
    match call.arguments:
        case (
            Call("persistent", (("storage", Name(kind), str(key), *_),)),
            int(offset),
            tuple(size),
            tuple(stride),
            _,
            _,
            *dtype,
        ):
            code = STORAGES.get(kind) or next(
                (UNTYPED[name.path] for name in dtype if isinstance(name, Name) and name.path in UNTYPED),
                None,
            )
            if code is None:
                raise PickleError(f"a tensor's content is {kind}, no plain number")
            content, order = storage(key)
            number = np.dtype(order + code)
            return _elements(
                plain_array(content, number, (len(content) // number.itemsize,)), offset, size, stride
            )
    raise PickleError("it describes a tensor in an unknown way")


def _elements(content: np.ndarray, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> np.ndarray:
    """The elements that the strides of a tensor address. Their bounds are checked."""
    if len(size) != len(stride) or not (are_sizes((offset,)) and are_sizes(size) and are_sizes(stride)):
        raise PickleError("the shape of a tensor is no shape")
    count = math.prod(size)
    if count == 0:
        return content[:0].reshape(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > len(content) or last >= len(content):
        raise PickleError("a tensor reaches beyond its content")
    index = np.full(size, offset)
    for axis, (n, step) in enumerate(zip(size, stride, strict=True)):
        if n > 1:  # a dimension of one element may have any stride
            along = [n if other == axis else 1 for other in range(len(size))]
            index += (np.arange(n) * step).reshape(along)
    return content[index]
