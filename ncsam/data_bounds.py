"""Bounds on what a data file may claim. Larger sizes and labels are a slip, or are meant to fill the memory."""

from __future__ import annotations

from collections.abc import Iterable

from numpy.lib.npyio import NpzFile
from torch import Tensor

MAX_CLASSES = 100_000
"""No data set has more. A larger label is refused as a slip, because a model with that many outputs would be built."""


def check_classes(largest: int, where: str) -> None:
    """Checks that the largest label of a data set is below the number of classes.

    Raises:
        ValueError: the largest label is beyond `MAX_CLASSES`.
    """
    if largest >= MAX_CLASSES:
        raise ValueError(
            f"{where} holds the label {largest}; labels are counted from 0 and lie below {MAX_CLASSES:,}: "
            "number the classes anew"
        )


def missing_classes(labels: Iterable[Tensor], classes: int) -> str:
    """The first classes that no label is of, such as "3, 4, 5, ..."; empty if every class occurs."""
    counts = sum(part.cpu().bincount(minlength=classes) for part in labels)
    missing = [number for number, count in enumerate(counts.tolist()) if count == 0]  # type: ignore[union-attr]
    return ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")


def check_size(file: NpzFile, most: int) -> None:
    """Checks the size that a `.npz` file claims before it is unpacked. Packed zeros take a thousandth of their size.

    Raises:
        ValueError: the arrays have more than `most` bytes in all.
    """
    claimed = sum(member.file_size for member in file.zip.infolist()) if file.zip else 0
    if claimed > most:
        raise ValueError(f"it unpacks to {claimed / 2**30:.0f} GiB, more than {most / 2**30:.0f} GiB")
