"""What all runs of a study share: their folder, their data, their device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunContext:
    """Where a run is done.

    Attributes:
        root: the study folder.
        data_dir: where data files are.
        device: where to train and measure.
        expected_data: digest of the data that the study was checked with; empty: not looked at.
    """

    root: Path
    data_dir: Path | None = None
    device: str = "cpu"
    expected_data: str = ""
