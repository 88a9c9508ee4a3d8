"""HDF5 files that are sealed with a checksum, and read without trust.

A file is refused if it leads out of itself, needs code of a plugin, or asks for boundless memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import h5py

from analysis.store.files import BrokenFileError
from landscape.results import trust

BEFORE_DIGEST = b"\nsha256:"
SEAL_LENGTH = len(BEFORE_DIGEST) + 64 + 1


def check_trusted(file: h5py.File, path: object, *, besides: Collection[str] = ()) -> None:
    """Looks at every object of a file before any of it is read.

    Args:
        file: open.
        path: of the file, for the message.
        besides: names that are not looked at, as they will not be read.

    Raises:
        BrokenFileError: a link out of the file or in a circle, data kept elsewhere, a type or a filter that no
            run file has, or more than a file of this size can hold.
    """
    try:
        trust.check_trusted(file, besides=besides)
    except trust.UntrustedError as fault:
        raise BrokenFileError(f"file: {path} is not to be trusted: {fault}") from fault


def sealed(content: bytes) -> bytes:
    """The content with its SHA-256 in a line behind it, which HDF5 readers pass over."""
    return content + BEFORE_DIGEST + hashlib.sha256(content).hexdigest().encode() + b"\n"


def without_seal(content: bytes) -> bytes:
    """The content before its seal, if it has one."""
    is_there = content[-SEAL_LENGTH:].startswith(BEFORE_DIGEST)
    return content[:-SEAL_LENGTH] if is_there else content


def is_sealed(path: Path) -> bool:
    """Whether the file ends with its checksum.

    Raises:
        BrokenFileError: the checksum is wrong.
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
