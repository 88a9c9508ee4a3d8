"""The figure of effects with their intervals, the pooled effect above those at each noise rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.style import ONE_COLUMN, PLAIN, Style

VERDICT_COLORS = {
    "supported": style_sheet.COLORS[2],
    "supported in these cells": style_sheet.COLORS[2],
    "contradicted": style_sheet.COLORS[3],
    "contradicted in these cells": style_sheet.COLORS[3],
    "equivalent": style_sheet.COLORS[0],
    "equivalent in these cells": style_sheet.COLORS[0],
    "mixed": style_sheet.COLORS[4],
    "inconclusive": "0.35",
}

BESIDE = 1.03
"""Where the numbers begin, as a share of the panel's width."""


def forest(effects: pd.DataFrame, *, width: float = ONE_COLUMN, style: Style = PLAIN) -> Figure:
    """One row an effect with its numbers at the right, a panel for each unit, effects that do not matter in gray.

    Args:
        effects: one row an effect or a part of one: `name`, `estimate`, `low`, `high`, `unit`, `margin`,
            `verdict`, and `is_part`, which parts have true; a part follows its effect.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no effect was estimated.
    """
    found = effects[np.isfinite(effects["estimate"].to_numpy(dtype=np.float64))]
    if found.empty:
        raise ValueError("effects: none was estimated")
    panels = [(str(unit), rows) for unit, rows in found.groupby("unit", sort=False)]
    with style_sheet.drawing(style):
        # of bold text, which is a little wider
        longest = max(len(_words(row)) for _, row in found.iterrows())
        text = (
            1.1 * longest * style_sheet.points("small") / style_sheet.CHARACTERS + 0.1 + (BESIDE - 1) * width
        )
        heights = [sum(_height(row, width) for _, row in rows.iterrows()) + 1.2 for _, rows in panels]
        # inches to a line of text
        line = 1.45 * style_sheet.points() / 72
        figure = style_sheet.new_figure(width, line * sum(heights) + 2 * line * len(panels) + 0.1)
        figure.get_layout_engine().set(rect=(0, 0, 1 - text / width, 1))  # type: ignore[union-attr,call-arg]
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, (unit, rows) in zip(axes, panels, strict=True):
            _panel(ax, rows, style_sheet.fitted(unit, width - text - 0.1), width)
        style_sheet.finish(figure, style, "")
    return figure


def _lines(row: pd.Series, width: float) -> list[str]:
    # a comparison is not broken
    name = str(row["name"]).replace(" > ", "\N{NO-BREAK SPACE}>\N{NO-BREAK SPACE}")
    return style_sheet.fitted(
        name.replace(" < ", "\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}"), width - 0.1
    ).split("\n")


def _height(row: pd.Series, width: float) -> float:
    """Lines that a row takes: the lines of its label, and one for the interval."""
    return 1.0 if row["is_part"] else len(_lines(row, width)) + 1.4


def _panel(ax: Axes, rows: pd.DataFrame, unit: str, width: float) -> None:
    margins = rows["margin"].dropna()
    if len(margins) and margins.nunique() == 1:
        ax.axvspan(-margins.iloc[0], margins.iloc[0], color="0.9", lw=0)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.grid(visible=False)
    y = 0.0
    for _, row in rows.iterrows():
        if row["is_part"]:
            y -= 1
            _mark(ax, row, y, color="0.5", size=2.5, width=0.9)
            _write(ax, BESIDE, y, _words(row), fontsize=style_sheet.points("small"), color="0.3")
            continue
        for text in _lines(row, width):
            y -= 1
            _write(ax, 0.0, y, text)
        y -= 1
        color = VERDICT_COLORS.get(row["verdict"], "0.35")
        _mark(ax, row, y, color=color, size=5, width=2)
        _write(ax, BESIDE, y, _words(row), fontsize=style_sheet.points("small"), fontweight="bold")
        y -= 0.4
    ax.set_ylim(y - 0.6, -0.2)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(unit)
    style_sheet.few_ticks(ax.xaxis, 4)


def _write(ax: Axes, x: float, y: float, text: str, **settings: Any) -> None:
    """A text at a share of the panel's width, which may go beyond the panel."""
    written = ax.text(x, y, text, transform=ax.get_yaxis_transform(), va="center", **settings)
    # room for it is left by the layout's rectangle
    written.set_in_layout(False)
    if x < 1:
        # lines of the plot would cross a label
        written.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})


def _words(row: pd.Series) -> str:
    """Estimate and interval to three digits, with the name of a part before them."""
    name = f"{row['name']}: " if row["is_part"] else ""
    if not np.isfinite([row["low"], row["high"]]).all():
        return f"{name}{row['estimate']:+.3g}"
    return f"{name}{row['estimate']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"


def _mark(ax: Axes, row: pd.Series, y: float, *, color: str, size: float, width: float) -> None:
    if np.isfinite([row["low"], row["high"]]).all():
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=width, solid_capstyle="butt")
    ax.plot(row["estimate"], y, "o", color=color, ms=size)
