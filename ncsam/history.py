"""What happened in a training, and its forms: a line, a table for notebooks, pandas, a figure."""

from __future__ import annotations

import html
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ncsam.dynamics import TrainingDynamics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

IN_A_LINE = ("train_loss", "test_accuracy", "memorized")
"""The metrics in a history's line."""
FIGURE = "figures.one_training"
"""The module that draws a history. The first figure imports it, because training needs no Matplotlib."""


@dataclass(frozen=True, repr=False)
class History:
    """What happened in training.

    Attributes:
        metrics: name -> float64 (epochs,), one value for each epoch; NaN if it is undefined.
        diverged: whether the outputs or the loss stopped being finite. Training ended with that epoch.
        described: name of each metric -> (unit, description): `METRICS` and those of the probes.
        dynamics: losses, margins and predictions of every training sample, if `record_samples` asked for them.
    """

    metrics: dict[str, np.ndarray]
    diverged: bool
    described: dict[str, tuple[str, str]]
    dynamics: TrainingDynamics | None = None

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.metrics["train_loss"])

    def __repr__(self) -> str:
        """One line with the last epoch's main numbers."""
        last = [
            f"{name}={self.metrics[name][-1]:.4g}"
            for name in IN_A_LINE
            if self.epochs and np.isfinite(self.metrics[name][-1])
        ]
        return f"History({', '.join([f'epochs={self.epochs}', *last, f'diverged={self.diverged}'])})"

    def _repr_html_(self) -> str:
        """A table for notebooks: the last epoch's value of each metric, its unit and meaning."""
        cell = "<td style='text-align:left'>{}</td>"
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            + "".join(cell.format(html.escape(text)) for text in (f"{values[-1]:.4g}", *self.described[name]))
            + "</tr>"
            for name, values in self.metrics.items()
            if len(values) and not np.isnan(values[-1])
        )
        ended = ", diverged" if self.diverged else ""
        caption = f"History: epoch {self.epochs}, the last{ended}"
        return f"<table><caption style='text-align:left'>{caption}</caption>{rows}</table>"

    def to_frame(self) -> pd.DataFrame:
        """The metrics as columns, one row an epoch. The index `epoch` begins at 1. `attrs` has `diverged`."""
        import pandas as pd

        frame = pd.DataFrame(self.metrics, index=pd.RangeIndex(1, self.epochs + 1, name="epoch"))
        frame.attrs["diverged"] = self.diverged
        return frame

    def plot(self, **options: Any) -> Figure:
        """A Matplotlib figure of losses, accuracies and the memorized share. A notebook shows the figure.

        Args:
            options: `about=` for the caption, `width=` in inches and `style=` (`figures.Style`).

        Raises:
            ValueError: no epoch was trained.
        """
        drawing = importlib.import_module(FIGURE)
        unit = self.described["train_loss"][0]
        figure: Figure = drawing.one_training(self.to_frame(), loss_unit=unit, **options)
        return figure
