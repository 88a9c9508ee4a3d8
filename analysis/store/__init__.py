"""The study folder: one HDF5 file a run, written whole or not at all, and the index of all runs."""

from analysis.store.files import BrokenFileError, StoreError, replace_file, write_text
from analysis.store.folder import check_writable, locked, open_folder
from analysis.store.index import (
    fingerprint,
    read_histories,
    read_results,
    read_table,
    read_tables,
    run_files,
    write_index,
)
from analysis.store.record import Record, read_record, scalars
from analysis.store.run_file import (
    failure_path,
    load_weights,
    opened,
    read_config,
    read_history,
    write_failure,
)
from analysis.store.schema import SCHEMA_VERSION
from analysis.store.writing import versions, write_run

__all__ = [
    "SCHEMA_VERSION",
    "BrokenFileError",
    "Record",
    "StoreError",
    "check_writable",
    "failure_path",
    "fingerprint",
    "load_weights",
    "locked",
    "open_folder",
    "opened",
    "read_config",
    "read_histories",
    "read_history",
    "read_record",
    "read_results",
    "read_table",
    "read_tables",
    "replace_file",
    "run_files",
    "scalars",
    "versions",
    "write_failure",
    "write_index",
    "write_run",
    "write_text",
]
