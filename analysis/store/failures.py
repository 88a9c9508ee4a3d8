"""The errors of failed runs, each in a file of its own beside the place of the run's file."""

from __future__ import annotations

from pathlib import Path

from analysis.store.files import write_text


def failure_path(path: Path) -> Path:
    """The path of the file with the error of a failed run."""
    return path.with_suffix(".failed")


def write_failure(path: Path, error: str) -> None:
    """Writes the error of the run with the file `path`. A later success removes it."""
    write_text(failure_path(path), f"{error}\n")


def read_failure(path: Path) -> str:
    """The error in a file of `failure_path`, whatever its bytes."""
    return path.read_text(encoding="utf-8", errors="replace").strip()
