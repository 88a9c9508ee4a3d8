"""What all runs of a study share: their folder, their data, their device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.plan.own_parts import OwnPart


@dataclass(frozen=True)
class RunContext:
    """Where a run is done.

    Attributes:
        root: the study folder.
        data_dir: where data files are.
        device: where to train and measure.
        expected_data: digest of the data that the study was checked with; empty: not looked at.
        own_parts: files that register what the study names and the packages lack.
    """

    root: Path
    data_dir: Path | None = None
    device: str = "cpu"
    expected_data: str = ""
    own_parts: tuple[OwnPart, ...] = ()

    def load_own_parts(self) -> None:
        """Runs the files that register parts of one's own, where that was not done in this process."""
        for part in self.own_parts:
            part.load()
