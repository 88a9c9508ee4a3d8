"""The study folder: one HDF5 file a run, written whole or not at all, and the index of all runs."""

from analysis.store.files import BrokenFileError, StoreError, replace_file, write_text
from analysis.store.folder import check_writable, locked, open_folder
from analysis.store.joined import read_tables
from analysis.store.run_file import (
    SCHEMA_VERSION,
    failure_path,
    load_weights,
    opened,
    read_config,
    read_history,
    run_file_written,
    versions,
    write_failure,
    write_measurements,
    write_training,
)
from analysis.store.table import (
    Record,
    fingerprint,
    read_histories,
    read_record,
    read_results,
    read_table,
    record_of,
    run_files,
    scalars,
    write_index,
)

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
    "record_of",
    "replace_file",
    "run_file_written",
    "run_files",
    "scalars",
    "versions",
    "write_failure",
    "write_index",
    "write_measurements",
    "write_text",
    "write_training",
]
