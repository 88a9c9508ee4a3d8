"""The figure of a quantity along several trainings against the training loss that each has reached."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.style import PLAIN, TWO_COLUMNS, Style


def against_training_loss(
    looks: pd.DataFrame,
    label: str,
    *,
    about: str,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """One line a run, from a high training loss at the left to a low one at the right.

    Both axes are logarithmic. Color and marker are those of the noise rate. The second series has dashed lines and
    hollow markers.

    Args:
        looks: one row a look at a training, in the order of time: `series` (at most two), `noise_rate`, `seed`, `loss`
            and `value`. Rows without two positive numbers are left out.
        label: label of the vertical axis.
        about: what the caption says of the data.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no look has a positive loss and value, or there are more than two series.
    """
    shown = looks[(looks["loss"] > 0) & (looks["value"] > 0) & np.isfinite(looks["value"])]
    if shown.empty:
        raise ValueError("looks: none has a positive loss and a positive value")
    if shown["series"].nunique() > 2:
        raise ValueError(f"looks: has {shown['series'].nunique()} series; at most two can be told apart")
    rates, series = np.sort(shown["noise_rate"].unique()), list(dict.fromkeys(shown["series"]))
    of_rate = dict(zip(rates, style_sheet.looks(map(str, rates)).values(), strict=True))
    with style_sheet.drawing(style):
        figure = style_sheet.new_figure(width, 3.4)
        ax = figure.add_subplot()
        of_series = dict(zip(series, [{"linestyle": "-"}, {"linestyle": "--", "mfc": "white"}], strict=False))
        for (name, rate, _), run in shown.groupby(["series", "noise_rate", "seed"], sort=False):
            ax.plot(run["loss"], run["value"], **{**of_rate[rate], **of_series[name]}, lw=1, ms=3)
        ax.set(xlabel="training loss (nat), falling to the right", ylabel=label)
        style_sheet.logarithmic(ax.xaxis, shown["loss"])
        style_sheet.logarithmic(ax.yaxis, shown["value"])
        ax.invert_xaxis()
        for rate, look in of_rate.items():
            ax.plot([], [], **{**look, "linestyle": "-"}, ms=3, label=style_sheet.wrong_labels(rate))
        for name, look in of_series.items():
            ax.plot([], [], color="0.3", marker="o", ms=3, label=style_sheet.legend_name(name), **look)
        style_sheet.legend_above(figure, [ax])
        style_sheet.finish(figure, style, f"{about}: one line a run, one point a look.")
    return figure
