"""The figure of one training: losses, accuracies and the memorized share over its epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures import style as style_sheet
from figures.panels import panel_grid
from figures.style import PLAIN, TWO_COLUMNS, Style

LOSS_CURVES = {"train_loss": "training loss", "test_loss": "loss on held-out data"}
SHARES = {
    "test_accuracy": "held-out accuracy",
    "train_clean_accuracy": "accuracy on true labels",
    "memorized": "wrong labels memorized",
}
HEIGHT = 2.2
"""Inches of a panel."""


def one_training(
    history: pd.DataFrame,
    *,
    loss_unit: str = "",
    about: str = "",
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """Losses beside accuracies and the memorized share. Numbers that are not finite leave gaps.

    Args:
        history: one row an epoch, with the metrics of `ncsam.fit` as columns and the epochs as index.
        loss_unit: unit of the losses.
        about: which data and method, for the caption.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no epoch.
    """
    if history.empty:
        raise ValueError("history: holds no epoch")
    with style_sheet.drawing(style):
        figure = style_sheet.new_figure(width, HEIGHT)
        grid = panel_grid(figure, 1, 2, HEIGHT, share_y=False)
        losses, shares = grid.axes[0]
        look = style_sheet.looks([*LOSS_CURVES.values(), *SHARES.values()])
        for ax, curves in ((losses, LOSS_CURVES), (shares, SHARES)):
            for place, (metric, name) in enumerate(curves.items()):
                values = history[metric].astype(float).where(np.isfinite(history[metric].astype(float)))
                if values.notna().any():
                    every = style_sheet.marked(place, len(values))
                    ax.plot(values.index, values, label=name, ms=3, lw=1.2, markevery=every, **look[name])
            ax.set_xlabel("epoch")
            style_sheet.few_ticks(ax.xaxis, 4, integer=True)
            style_sheet.few_ticks(ax.yaxis, 4)
        losses.set_ylabel(f"mean loss ({loss_unit})" if loss_unit else "mean loss")
        shares.set_ylabel("share of samples")
        shares.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        style_sheet.legend_above(figure, [losses, shares])
        style_sheet.finish(figure, style, about)
    return figure
