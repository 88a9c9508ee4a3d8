"""HDF5 files that are sealed with a checksum, and read without trust.

A file is refused if it leads out of itself, needs code of a plugin, or asks for boundless memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
from h5py import h5d, h5g, h5i, h5l, h5o, h5t, h5z

from analysis.store.files import BrokenFileError
from landscape.results.trust import fault_of_storage

BEFORE_DIGEST = b"\nsha256:"
SEAL_LENGTH = len(BEFORE_DIGEST) + 64 + 1
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
"""Other filters may be loaded from a plugin, which is code."""
TYPES = {h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM}
ALLOWANCE = 1 << 26
"""Bytes that a data set may claim without having stored any; dimensions without coordinates do."""


def check_trusted(file: h5py.File, path: object) -> None:
    """Looks at every object of a file before any of it is read.

    Raises:
        BrokenFileError: a link out of the file or in a circle, data kept elsewhere, a type or a filter that no
            run file has, or a size that the stored bytes cannot fill.
    """
    fault = _fault_of_group(file["/"].id, set())
    if fault:
        raise BrokenFileError(f"file: {path} is not to be trusted: {fault}")


def _fault_of_group(group: h5g.GroupID, seen: set[int]) -> str | None:
    address = h5o.get_info(group).addr
    if address in seen:
        return "its groups nest in a circle"
    seen.add(address)
    for name in group:
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            return f"{name.decode(errors='replace')!r} is a link to elsewhere"
        item = h5o.open(group, name)
        kind = h5i.get_type(item)
        if kind == h5i.GROUP:
            fault = _fault_of_group(item, seen)
        elif kind == h5i.DATASET:
            fault = _fault_of_dataset(item)
        else:
            fault = "it is neither a group nor a data set"
        if fault:
            return fault if kind == h5i.GROUP else f"{name.decode(errors='replace')!r}: {fault}"
    return None


def _fault_of_dataset(dataset: h5d.DatasetID) -> str | None:
    if fault := fault_of_storage(dataset, ALLOWANCE):
        return fault
    settings = dataset.get_create_plist()
    filters = {settings.get_filter(index)[0] for index in range(settings.get_nfilters())}
    if not filters <= FILTERS:
        return f"filter {min(filters - FILTERS)} is not one of a run file's"
    stored_type = dataset.get_type()
    if stored_type.get_class() not in TYPES:
        return "its type is neither a number nor text"
    return None


def sealed(content: bytes) -> bytes:
    """The content with its SHA-256 in a line behind it, which HDF5 readers pass over."""
    return content + BEFORE_DIGEST + hashlib.sha256(content).hexdigest().encode() + b"\n"


def without_seal(content: bytes) -> bytes:
    """The content before its seal, if it has one."""
    is_there = content[-SEAL_LENGTH:].startswith(BEFORE_DIGEST)
    return content[:-SEAL_LENGTH] if is_there else content


def is_sealed(path: Path) -> bool:
    """The file ends with a checksum, and it is that of the file.

    Raises:
        BrokenFileError: it is another one.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(max(0, size - SEAL_LENGTH))
        seal = file.read()
        if not (seal.startswith(BEFORE_DIGEST) and len(seal) == SEAL_LENGTH):
            return False
        file.seek(0)
        left = size - SEAL_LENGTH
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    if seal[len(BEFORE_DIGEST) : -1] != digest.hexdigest().encode():
        raise BrokenFileError(f"file: {path} does not have its checksum: bytes of it have changed")
    return True
