"""The figure of accuracy and memorization over the epochs, by method and noise rate."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures.style import (
    RC,
    caption,
    data_of,
    legend_above,
    legend_name,
    looks,
    marker_of_one,
    new_figure,
    wrong_labels,
)

ROWS = (
    ("test_accuracy", "accuracy on clean test data"),
    ("memorized", "wrong labels memorized\n(share of wrongly labeled)"),
)


def training_curves(histories: pd.DataFrame) -> Figure:
    """Test accuracy and memorized share over the epochs.

    Args:
        histories: one row for each epoch: `method`, `noise_rate`, `seed`, `epoch`, and the metrics.

    Returns:
        A figure with a column for each noise rate. Lines are means over seeds, and bands their ranges.
    """
    rates = sorted(histories["noise_rate"].unique())
    style = looks(histories["method"])
    with mpl.rc_context(RC):
        figure = new_figure(max(2.6 * len(rates) + 0.6, 6.0), 5.2)
        axes = figure.subplots(2, len(rates), sharex=True, sharey="row", squeeze=False)
        for column, rate in enumerate(rates):
            of_rate = histories[histories["noise_rate"] == rate]
            for row, (metric, label) in enumerate(ROWS):
                ax = axes[row, column]
                if not np.isfinite(of_rate[metric].astype(float)).any():
                    why = "no wrong labels" if rate == 0 and metric == "memorized" else "no number"
                    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color="0.5")
                for method, runs in of_rate.groupby("method", sort=False):
                    _curve(ax, runs, metric, str(method), style[str(method)])
                ax.yaxis.set_major_formatter(PercentFormatter(1.0))
                if column == 0:
                    ax.set_ylabel(label)
            axes[0, column].set_title(wrong_labels(rate))
            axes[1, column].set_xlabel("epoch")
            axes[1, column].xaxis.set_major_locator(
                MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True)
            )
        legend_above(figure, axes[0])
        caption(
            figure,
            f"{data_of(histories)}. Line: mean over seeds; band: smallest to largest. {_ended(histories)}",
        )
    return figure


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


def _curve(ax: Axes, runs: pd.DataFrame, metric: str, label: str, look: dict[str, str]) -> None:
    by_epoch = runs.groupby("epoch")[metric]
    mean, low, high = by_epoch.mean(), by_epoch.min(), by_epoch.max()
    stroke = marker_of_one(mean) + look["linestyle"]
    ax.plot(mean.index, mean, stroke, color=look["color"], label=legend_name(label), lw=1.4, ms=4)
    ax.fill_between(mean.index, low, high, color=look["color"], alpha=0.18, lw=0)
