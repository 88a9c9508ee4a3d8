"""A checksum in the last line of a file, which tells whether bytes of the file have changed.

Programs that read HDF5 files or files of torch ignore this line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

BEFORE_DIGEST = b"\nsha256:"
LENGTH = len(BEFORE_DIGEST) + 64 + 1
BLOCK = 1 << 20


class SealError(ValueError):
    """The bytes of a file have changed since it was sealed."""


def sealed(content: bytes) -> bytes:
    """The content, followed by a line with its SHA-256."""
    return content + _line(hashlib.sha256(content).hexdigest())


def without_seal(content: bytes) -> bytes:
    """The content without its seal, if it has one."""
    is_there = content[-LENGTH:].startswith(BEFORE_DIGEST)
    return content[:-LENGTH] if is_there else content


def seal(path: Path) -> None:
    """Appends the checksum to a file."""
    line = _line(_digest(path, path.stat().st_size))
    with path.open("ab") as file:
        file.write(line)


def is_sealed(path: Path) -> bool:
    """Whether the file ends with its checksum.

    Raises:
        SealError: the checksum is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LENGTH))
        line = file.read()
    if not (line.startswith(BEFORE_DIGEST) and len(line) == LENGTH):
        return False
    if line != _line(_digest(path, size - LENGTH)):
        raise SealError(f"file: {path} does not have its checksum: bytes of it have changed")
    return True


def _line(digest: str) -> bytes:
    return BEFORE_DIGEST + digest.encode() + b"\n"


def _digest(path: Path, left: int) -> str:
    """SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
