"""The context that all runs of a study share: folder, data and device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.plan.own_parts import OwnPart


@dataclass(frozen=True)
class RunContext:
    """Where a run executes.

    Attributes:
        root: the study folder.
        data_dir: folder of data files.
        device: device of training and measuring.
        expected_data: digest of the data with which the study was checked; empty: not checked.
        own_parts: the user's files, which register parts that the study names and the packages lack.
    """

    root: Path
    data_dir: Path | None = None
    device: str = "cpu"
    expected_data: str = ""
    own_parts: tuple[OwnPart, ...] = ()

    def load_own_parts(self) -> None:
        """Executes the user's files that register parts, unless this process has done so."""
        for part in self.own_parts:
            part.load()
