"""The figure of effects with their intervals, the pooled effect above those at each noise rate."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import COLORS, RC, new_figure

VERDICT_COLORS = {
    "supported": COLORS[2],
    "supported in these cells": COLORS[2],
    "contradicted": COLORS[3],
    "contradicted in these cells": COLORS[3],
    "equivalent": COLORS[0],
    "equivalent in these cells": COLORS[0],
    "mixed": COLORS[4],
    "inconclusive": "0.35",
}
BACKGROUND = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}
"""The box behind labels, so that lines of the plot do not cross them."""
LINE = 42
"""Characters in a line of a label, so that the figure is narrow enough for a phone."""


def forest(effects: pd.DataFrame) -> Figure:
    """Effects in rows, with a panel for each unit. The margin within which effects do not matter is gray.

    Args:
        effects: one row for each effect, followed by rows for its parts: `name`, `estimate`, `low`, `high`, `unit`,
            `margin`, `verdict`, and `is_part`, which is true for parts.

    Raises:
        ValueError: no effect was estimated.
    """
    found = effects[np.isfinite(effects["estimate"].to_numpy(dtype=np.float64))]
    if found.empty:
        raise ValueError("effects: none was estimated")
    panels = [(str(unit), rows) for unit, rows in found.groupby("unit", sort=False)]
    heights = [sum(_height(row) for _, row in rows.iterrows()) + 1.6 for _, rows in panels]
    with mpl.rc_context(RC):
        figure = new_figure(4.2, 0.2 * sum(heights) + 0.2)
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, (unit, rows) in zip(axes, panels, strict=True):
            _panel(ax, rows, unit)
    return figure


def _height(row: pd.Series) -> float:
    """The number of lines in a row: the lines of its label, and one for the interval."""
    return 1.0 if row["is_part"] else len(textwrap.wrap(row["name"], LINE)) + 1.4


def _panel(ax: Axes, rows: pd.DataFrame, unit: str) -> None:
    margins = rows["margin"].dropna()
    if len(margins) and margins.nunique() == 1:
        ax.axvspan(-margins.iloc[0], margins.iloc[0], color="0.92", lw=0)
    ax.axvline(0, color="0.4", lw=0.8)
    y = 0.0
    for _, row in rows.iterrows():
        color = VERDICT_COLORS.get(row["verdict"], "0.35")
        if row["is_part"]:
            y -= 1
            _mark(ax, row, y, color="0.55", size=3, width=0.9)
            ax.text(
                1.02, y, row["name"], transform=ax.get_yaxis_transform(), ha="left", va="center", fontsize=7
            )
            continue
        for line in textwrap.wrap(row["name"], LINE):
            y -= 1
            ax.text(
                0.0, y, line, transform=ax.get_yaxis_transform(), va="center", fontsize=8, bbox=BACKGROUND
            )
        y -= 1
        _mark(ax, row, y, color=color, size=6, width=2)
        y -= 0.4
    ax.set_ylim(y - 0.6, -0.2)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(unit, fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.locator_params(axis="x", nbins=5)


def _mark(ax: Axes, row: pd.Series, y: float, *, color: str, size: float, width: float) -> None:
    if np.isfinite([row["low"], row["high"]]).all():
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=width, solid_capstyle="butt")
    ax.plot(row["estimate"], y, "o", color=color, ms=size)
