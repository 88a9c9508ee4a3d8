"""What a data set of an HDF5 file must not ask of its reader, looked at before any of it is read."""

from __future__ import annotations

from h5py import h5d

MOST_INFLATED = 1032
"""No byte of a deflated stream makes more than these (Gailly and Adler, zlib's technical details)."""


def fault_of_storage(dataset: h5d.DatasetID, allowance: int) -> str | None:
    """Why the data set is not to be read: its data are in another file, or it claims more bytes than are stored.

    Args:
        dataset: of an open file.
        allowance: bytes that it may claim without having stored any.
    """
    settings = dataset.get_create_plist()
    if settings.get_layout() == h5d.VIRTUAL or settings.get_external_count():
        return "has its data in another file"
    claimed = dataset.get_space().get_simple_extent_npoints() * dataset.get_type().get_size()
    stored = dataset.get_storage_size()
    if claimed > allowance + MOST_INFLATED * stored:
        return f"claims {claimed} bytes, and {stored} are there"
    return None
