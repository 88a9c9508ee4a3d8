"""Checks an HDF5 file before anything is read: links to other files, plugins, and sizes beyond all memory."""

from __future__ import annotations

import math
import mmap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import h5py
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5t, h5z

FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
"""Allowed filters. HDF5 may load other filters from a plugin, which is code."""
TYPES = {h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM}
SCALES = {b"DIMENSION_LIST", b"REFERENCE_LIST"}
"""Attributes of dimension scales, which hold references. They are never read."""
ALLOWANCE = 1 << 28
"""Bytes that any file may claim, because labels of millions of samples can be compressed to almost nothing."""
MOST_INFLATED = 64
"""Further bytes that a file may claim for each byte of its size."""
MOST_OBJECTS = 100_000
"""Most groups, data sets and attributes of a file."""
MOST_WORDS = 200_000
"""Most texts in all data sets together. HDF5 stores texts apart, and many entries may point to one text."""
FAULTS = (
    *(KeyError, IndexError, AttributeError, TypeError),
    *(ValueError, ArithmeticError, OSError, RuntimeError),
)
"""Errors that reading a broken file raises. HDF5, h5py and NumPy raise now this one, now that one."""

HEAP = b"GCOL\x01"
"""The first bytes of a collection of words in the file."""
SMALLEST_HEAP = 4096


class UntrustedError(ValueError):
    """The reason why a file must not be read."""


@dataclass
class _Budget:
    """How much the rest of a file may claim.

    Attributes:
        bytes: bytes of all data sets together.
        objects: number of groups, data sets and attributes.
        words: number of strings of variable length.
        size: size of the file in bytes.
    """

    bytes: int
    size: int
    objects: int = MOST_OBJECTS
    words: int = MOST_WORDS

    def spend(self, *, bytes: int = 0, objects: int = 0, words: int = 0) -> None:
        self.bytes -= bytes
        self.objects -= objects
        self.words -= words
        if self.bytes < 0:
            raise UntrustedError("its data sets together claim more bytes than a file of its size holds")
        if self.objects < 0 or self.words < 0:
            raise UntrustedError("it holds more objects or words than any such file")


def check_trusted(group: h5py.Group, *, besides: Collection[str] = ()) -> None:
    """Checks every object below a group, without reading any. Afterward the content of the group can be read.

    Args:
        group: a group of an open file, or the file.
        besides: names in the group that are not checked, because they will not be read.

    Raises:
        UntrustedError: a link leads out of the file or in a circle, data are in another file, a type, a filter or a
            fill value is one that `save` never writes, or the objects claim more than a file of this size can hold.
    """
    if Path(group.file.filename).is_file():
        # a file that exists only in memory was made by this process
        _check_heaps(group.file)
    size = group.file.id.get_filesize()
    budget = _Budget(ALLOWANCE + MOST_INFLATED * size, size)
    _check_group(group.id, set(), budget, {name.encode() for name in besides})


def check_name(name: object) -> None:
    """Checks that HDF5 finds a result under the name under which it is saved.

    Raises:
        TypeError: it is no word.
        ValueError: a part of it is '.', which HDF5 leaves out, or it has a zero byte, at which HDF5 ends it.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: must be a word, got {name!r}")
    if "." in name.split("/") or "\0" in name:
        raise ValueError(
            f"name: HDF5 takes no part '.' and no zero byte in a name, got {name!r}; give words, which slashes nest"
        )


def check_path(group: h5py.Group, name: str) -> None:
    """Checks that no link on the way to `name` leads to another place.

    Raises:
        UntrustedError: a link does.
    """
    parts = [part for part in name.split("/") if part]
    for depth in range(len(parts)):
        link = group.get("/".join(parts[: depth + 1]), getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise UntrustedError(f"{parts[depth]!r} is a link to elsewhere")


def _check_heaps(file: h5py.File) -> None:
    """Checks the collections in which HDF5 keeps words, before HDF5 reads them.

    If the free space of a collection has the size 0, HDF5 never stops reading.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise UntrustedError("its addresses do not have 64 bits")
    with (
        open(file.filename, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        place = content.find(HEAP)
        while place >= 0:
            end = place + int.from_bytes(content[place + 8 : place + 16], "little")
            # some numbers look like the first bytes of a collection by chance
            if place + SMALLEST_HEAP <= end <= len(content):
                _check_heap(content[place:end])
            place = content.find(HEAP, place + 1)


def _check_heap(heap: bytes) -> None:
    place = 16
    while place + 16 <= len(heap):
        number = int.from_bytes(heap[place : place + 2], "little")
        size = int.from_bytes(heap[place + 8 : place + 16], "little")
        # entry 0 is free space; its size includes its head
        step = 16 + -(-size // 8) * 8 if number else size
        if not 0 < step <= len(heap) - place:
            raise UntrustedError("one of its collections of words is broken")
        place += step


def _check_group(
    group: h5g.GroupID, seen: set[int], budget: _Budget, besides: Collection[bytes] = ()
) -> None:
    address = h5o.get_info(group).addr
    if address in seen:
        raise UntrustedError("its groups nest in a circle")
    seen.add(address)
    budget.spend(objects=1)
    _check_attributes(group, budget)
    for name in group:
        if name in besides:
            continue
        words = name.decode(errors="replace")
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            raise UntrustedError(f"{words!r} is a link to elsewhere")
        item = h5o.open(group, name)
        kind = h5i.get_type(item)
        if kind == h5i.GROUP:
            _check_group(item, seen, budget)
        elif kind == h5i.DATASET:
            try:
                _check_dataset(item, budget)
            except UntrustedError as fault:
                raise UntrustedError(f"{words!r}: {fault}") from None
        else:
            raise UntrustedError(f"{words!r} is neither a group nor a data set")


def _check_dataset(dataset: h5d.DatasetID, budget: _Budget) -> None:
    settings = dataset.get_create_plist()
    if settings.get_layout() == h5d.VIRTUAL or settings.get_external_count():
        raise UntrustedError("its data are in another file")
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    if not set(filters) <= FILTERS:
        raise UntrustedError(f"filter {min(set(filters) - FILTERS)} is not one of those that are written")
    if len(set(filters)) < len(filters):
        raise UntrustedError("it is packed several times")
    if settings.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        raise UntrustedError("it fills gaps with a value of its own")
    stored = dataset.get_type()
    if stored.get_class() not in TYPES:
        raise UntrustedError("its type is neither a number nor text")
    points = dataset.get_space().get_simple_extent_npoints()
    # a chunk is read whole, even if the data set uses little of it
    chunk = math.prod(settings.get_chunk()) if settings.get_layout() == h5d.CHUNKED else 0
    budget.spend(bytes=max(points, chunk) * stored.get_size(), objects=1)
    if isinstance(stored, h5t.TypeStringID) and stored.is_variable_str():
        _check_words(h5py.Dataset(dataset), budget)
    _check_attributes(dataset, budget)


def _check_words(dataset: h5py.Dataset, budget: _Budget) -> None:
    """Counts the bytes of strings of variable length. Only reading tells them, so a few are read at a time."""
    if dataset.ndim > 1:
        raise UntrustedError("its words have several dimensions")
    count = len(dataset) if dataset.ndim else 1
    budget.spend(words=count)
    if dataset.ndim == 0:
        budget.spend(bytes=len(dataset[()] or b""))
        return
    # no string is longer than the file
    portion = max(1, min(1024, ALLOWANCE // (budget.size + 1)))
    for start in range(0, count, portion):
        budget.spend(bytes=sum(len(word) for word in dataset[start : start + portion]))


def _check_attributes(item: h5g.GroupID | h5d.DatasetID, budget: _Budget) -> None:
    count = h5a.get_num_attrs(item)
    budget.spend(objects=count)
    for index in range(count):
        attribute = h5a.open(item, index=index)
        stored = attribute.get_type()
        if stored.get_class() not in TYPES:
            if attribute.name not in SCALES:
                raise UntrustedError(
                    f"the attribute {attribute.name.decode(errors='replace')!r} is of no known type"
                )
            continue
        is_word = isinstance(stored, h5t.TypeStringID) and stored.is_variable_str()
        if is_word and attribute.get_space().get_simple_extent_npoints() > 1:
            raise UntrustedError("an attribute holds several words")
