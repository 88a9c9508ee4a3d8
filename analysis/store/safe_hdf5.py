"""HDF5 files that are sealed with a checksum (`ncsam.seal`), and read without trust.

A file is refused if it leads out of itself, needs code of a plugin, or asks for boundless memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py

from analysis.store.files import BrokenFileError
from landscape.results import trust
from ncsam import seal


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


def is_sealed(path: Path) -> bool:
    """Whether the file ends with its checksum.

    Raises:
        BrokenFileError: the checksum is wrong.
    """
    try:
        return seal.is_sealed(path)
    except seal.SealError as error:
        raise BrokenFileError(str(error)) from error
