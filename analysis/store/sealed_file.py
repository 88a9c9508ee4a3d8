"""HDF5 files that are made in memory, and written whole, sealed and read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
from h5py import h5f

from analysis.store.files import StoreError, replace_file
from analysis.store.safe_hdf5 import is_sealed
from ncsam.seal import sealed


@contextmanager
def sealed_file(path: Path, content: bytes | None = None) -> Iterator[h5py.File]:
    """An HDF5 file in memory. At the end of the context it becomes the file `path`, whole and sealed.

    HDF5 writes to memory, and the disk gets one stream of bytes. A full disk is then an ordinary error; HDF5 itself
    would leave a file that it cannot close. The checksum is read back from the disk before the file gets its name.

    Args:
        path: path of the file.
        content: the bytes with which the file begins; None for an empty one.

    Raises:
        OSError, StoreError: the file did not reach the disk. An older file stays as it was.
    """
    opened = (
        h5py.File(path, "w", driver="core", backing_store=False)
        if content is None
        else h5py.File(h5f.open_file_image(content, flags=h5f.FILE_IMAGE_OPEN_RW))
    )
    with opened as file:
        yield file
        file.flush()
        content = file.id.get_file_image()

    def write_to(beside: Path) -> None:
        beside.write_bytes(sealed(content))
        if not is_sealed(beside):
            raise StoreError(f"file: {beside} did not reach the disk whole")

    replace_file(path, write_to)
