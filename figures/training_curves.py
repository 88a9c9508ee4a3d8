"""The figure of accuracy and memorization over the epochs, by method and noise rate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures import style as style_sheet
from figures.panels import mean_over_seeds, name_curves, panel_grid
from figures.style import PLAIN, TWO_COLUMNS, Style

ROWS = (
    ("test_accuracy", "accuracy on clean test data"),
    ("memorized", "share of wrong labels memorized"),
)
HEIGHT = 1.8
"""Inches of a panel."""


def training_curves(histories: pd.DataFrame, *, width: float = TWO_COLUMNS, style: Style = PLAIN) -> Figure:
    """Test accuracy and memorized share over the epochs.

    Args:
        histories: one row an epoch: `method`, `noise_rate`, `seed`, `epoch`, and the metrics.
        width: of the figure in inches; a narrow figure has one row for each noise rate.
        style: how text is written.

    Returns:
        A figure with a column for each noise rate. Lines are means over seeds, and bands their ranges.
    """
    rates = sorted(histories["noise_rate"].unique())
    with style_sheet.drawing(style):
        look = style_sheet.looks(histories["method"])
        figure = style_sheet.new_figure(width, 5.2)
        grid = panel_grid(figure, 2, len(rates), HEIGHT)
        for column, rate in enumerate(rates):
            of_rate = histories[histories["noise_rate"] == rate]
            for row, (metric, _) in enumerate(ROWS):
                ax = grid.axes[row, column]
                if not np.isfinite(of_rate[metric].astype(float)).any():
                    why = "no wrong labels" if rate == 0 and metric == "memorized" else "no number"
                    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color="0.4")
                for method, runs in of_rate.groupby("method", sort=False):
                    mean_over_seeds(ax, runs.groupby("epoch")[metric], str(method), look)
                style_sheet.few_ticks(ax.yaxis)
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
                style_sheet.few_ticks(ax.xaxis, 4, integer=True)
        grid.label([label for _, label in ROWS], [style_sheet.wrong_labels(rate) for rate in rates], "epoch")
        # the panel at the upper right: the first quantity at the last rate; in a turned grid the other way around
        rate, (metric, _) = (rates[0], ROWS[-1]) if grid.is_turned else (rates[-1], ROWS[0])
        ends = _ends(histories[histories["noise_rate"] == rate], metric)
        name_curves(figure, grid.axes[0].tolist(), grid.last, HEIGHT - 0.4, look, ends)
        style_sheet.finish(
            figure,
            style,
            f"{style_sheet.data_of(histories)}. Line: mean over seeds; band: smallest to largest. {_ended(histories)}",
        )
    return figure


def _ends(histories: pd.DataFrame, metric: str) -> dict[str, tuple[float, float]]:
    """Last epoch of each method, and the mean of the metric there."""
    ends = {}
    for method, runs in histories.groupby("method", sort=False):
        mean = runs.groupby("epoch")[metric].mean().dropna()
        if len(mean):
            ends[str(method)] = (float(mean.index[-1]), float(mean.iloc[-1]))
    return ends


def _ended(histories: pd.DataFrame) -> str:
    """A sentence with the number of runs that have no number at the last epoch, such as those that diverged."""
    numbers = histories["epoch"].where(histories["test_accuracy"].notna())
    run = [histories[name] for name in ("dataset", "noise_kind", "method", "noise_rate", "seed")]
    last = numbers.groupby(run).max()
    count = int((last != histories["epoch"].max()).sum())
    return (
        f"{count} of {len(last)} runs end before the last epoch, from where on the others are drawn."
        if count
        else ""
    )
