"""Bounds on what a file of data may claim: sizes and labels beyond them are a slip, or meant to fill the memory."""

from __future__ import annotations

from numpy.lib.npyio import NpzFile

MAX_CLASSES = 100_000
"""No set has more; a larger label is taken for a slip, as a model with that many outputs would be built."""


def check_classes(largest: int, where: str) -> None:
    """Checks that the largest label of a data set is below the number of classes.

    Raises:
        ValueError: it is beyond `MAX_CLASSES`.
    """
    if largest >= MAX_CLASSES:
        raise ValueError(
            f"{where} holds the label {largest}; labels are counted from 0 and lie below {MAX_CLASSES:,}: "
            "number the classes anew"
        )


def check_size(file: NpzFile, most: int) -> None:
    """Checks what a `.npz` file claims before it is unpacked: zeros take a thousandth of their size.

    Raises:
        ValueError: more bytes in all than `most`.
    """
    claimed = sum(member.file_size for member in file.zip.infolist()) if file.zip else 0
    if claimed > most:
        raise ValueError(f"it unpacks to {claimed / 2**30:.0f} GiB, more than {most / 2**30:.0f} GiB")
