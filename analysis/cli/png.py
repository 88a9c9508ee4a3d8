"""Pictures that commands write."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.store import replace_file


def write_png(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG, whole or not at all."""
    replace_file(path, partial(figure.savefig, format="png", dpi=150))
