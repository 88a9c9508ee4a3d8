"""The figure of quantities of several series of runs against the noise rate, with a point for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import RC, caption, legend_above, legend_name, logarithmic, looks, new_figure
from landscape.results.wording import percent


class Panel(NamedTuple):
    """One panel of the figure.

    Attributes:
        column: column of the table of runs.
        label: label of the vertical axis.
        is_logarithmic: whether the vertical axis is logarithmic.
    """

    column: str
    label: str
    is_logarithmic: bool = True


def against_noise_rate(runs: pd.DataFrame, panels: Sequence[Panel], *, about: str) -> Figure:
    """The mean over seeds against the noise rate as a line, with a point for each seed and a panel for each quantity.

    In a logarithmic panel the mean is the geometric one.

    Args:
        runs: one row for each run: `series`, `noise_rate`, and the columns of the panels. NaN is left out.
        panels: the panels.
        about: words about the data, for the caption.
    """
    style = looks(runs["series"])
    rates = np.sort(runs["noise_rate"].unique())
    with mpl.rc_context(RC):
        figure = new_figure(3.2 * len(panels), 3.2)
        axes = np.atleast_1d(figure.subplots(1, len(panels), sharex=True))
        for ax, panel in zip(axes, panels, strict=True):
            for name, of_series in runs.groupby("series", sort=False):
                _draw(ax, of_series.dropna(subset=[panel.column]), panel, str(name), style[str(name)])
            if panel.is_logarithmic:
                ax.set_yscale("log")
                logarithmic(ax.yaxis, runs[panel.column])
            ax.set_ylabel(panel.label)
            ax.set_xticks(rates, labels=map(percent, rates))
            ax.set_xlabel("wrong labels")
        legend_above(figure, axes)
        caption(figure, f"{about}: lines are means over seeds, points are seeds.")
    return figure


def _draw(ax: Axes, runs: pd.DataFrame, panel: Panel, name: str, look: dict[str, str]) -> None:
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
        label=legend_name(name),
    )
