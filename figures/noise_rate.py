"""The figure of quantities of several series of runs against the noise rate, with a point for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import panel_grid
from figures.style import PLAIN, TWO_COLUMNS, Style
from landscape.results.wording import percent


class Panel(NamedTuple):
    """One panel of the figure.

    Attributes:
        column: column of the table of runs.
        label: label of the vertical axis.
        is_logarithmic: whether the vertical axis is logarithmic, where all numbers are positive.
    """

    column: str
    label: str
    is_logarithmic: bool = True


def against_noise_rate(
    runs: pd.DataFrame,
    panels: Sequence[Panel],
    *,
    about: str,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """The mean over seeds against the noise rate as a line, with a point for each seed; a panel for each quantity.

    In a logarithmic panel the mean is the geometric one.

    Args:
        runs: one row a run: `series`, `noise_rate`, and the columns of the panels. NaN is left out.
        panels: what is drawn.
        about: what the caption says of the data.
        width: of the figure in inches; in a narrow figure the panels are below one another.
        style: how text is written.
    """
    rates = np.sort(runs["noise_rate"].unique())
    with style_sheet.drawing(style):
        look = style_sheet.looks(runs["series"])
        figure = style_sheet.new_figure(width, 3.2)
        axes = panel_grid(figure, 1, len(panels), 2.2, share_y=False).axes[0]
        for ax, asked in zip(axes, panels, strict=True):
            # a number of at most 0 has no logarithm
            positive = not (runs[asked.column] <= 0).any()
            panel = asked._replace(is_logarithmic=asked.is_logarithmic and positive)
            for name, of_series in runs.groupby("series", sort=False):
                _draw(ax, of_series.dropna(subset=[panel.column]), panel, str(name), look[str(name)])
            if panel.is_logarithmic:
                style_sheet.logarithmic(ax.yaxis, runs[panel.column])
            else:
                style_sheet.few_ticks(ax.yaxis)
            ax.set_ylabel(panel.label)
            ax.set_xticks(rates, labels=map(percent, rates))
            ax.set_xlabel("wrong labels")
        style_sheet.legend_above(figure, axes)
        style_sheet.finish(figure, style, f"{about}: lines are means over seeds, points are seeds.")
    return figure


def _draw(ax: Axes, runs: pd.DataFrame, panel: Panel, name: str, look: Mapping[str, Any]) -> None:
    values = np.log(runs[panel.column]) if panel.is_logarithmic else runs[panel.column]
    mean = values.groupby(runs["noise_rate"]).mean()
    if panel.is_logarithmic:
        mean = np.exp(mean)
    ax.plot(mean.index, mean, color=look["color"], linestyle=look["linestyle"])
    ax.plot(
        runs["noise_rate"],
        runs[panel.column],
        color=look["color"],
        marker=look["marker"],
        linestyle="",
        ms=4,
        alpha=0.6,
        label=style_sheet.legend_name(name),
    )
