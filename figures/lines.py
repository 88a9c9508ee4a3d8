"""Loss and accuracy along one direction, several models on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures import style as style_sheet
from figures.panels import Grid, name_curves, panel_grid
from figures.scale import holes, kinds_of_directions, with_unit
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import Line

Series = Titled[Titled[Line]]
HEIGHT = 1.7
"""Inches of a panel."""


def lines(series: Series, *, about: str, width: float = TWO_COLUMNS, style: Style = PLAIN) -> Figure:
    """Loss and accuracy along one direction, one column for each data set, one curve a model.

    Args:
        series: (column title, [(model's title, line)]) of each column.
        about: which data and seed, for the caption.
        width: of the figure in inches; a narrow figure has one row for each data set.
        style: how text is written.

    Raises:
        ValueError: no line.
    """
    drawn = [line for _, models in series for _, line in models]
    if not drawn:
        raise ValueError("series: holds no line")
    losses = np.concatenate([line.loss for line in drawn])
    with style_sheet.drawing(style):
        look = style_sheet.looks(title for _, models in series for title, _ in models)
        figure = style_sheet.new_figure(width, 5.0)
        grid = panel_grid(figure, 2, len(series), HEIGHT)
        for column, (_, models) in enumerate(series):
            for name, line in models:
                _curve(grid, column, name, line, look)
            # all columns have one scale
            style_sheet.logarithmic(grid.axes[0, column].yaxis, losses)
            grid.axes[1, column].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            style_sheet.few_ticks(grid.axes[1, column].yaxis)
            style_sheet.few_ticks(grid.axes[1, column].xaxis, 4)
        titles = [title for title, _ in series]
        scale = ", logarithmic" if grid.axes[0, 0].get_yscale() == "log" else ""
        grid.label([with_unit("mean loss", drawn) + scale, "predicted as labeled"], titles, "α")
        # the panel at the upper right shows the last loss; in a turned grid, the first accuracy
        ends = {
            name: (float(line.alpha[-1]), float(line.accuracy[-1] if grid.is_turned else line.loss[-1]))
            for name, line in series[0 if grid.is_turned else -1][1]
        }
        name_curves(figure, grid.axes[0].tolist(), grid.last, HEIGHT - 0.4, look, ends)
        bands = "Bands: two standard errors. " if any(line.loss_error is not None for line in drawn) else ""
        style_sheet.finish(
            figure,
            style,
            f"{about} The trained model is at α = 0. Predicted as labeled: share of the measured "
            f"samples, by the labels of each loss. {bands}{holes(('', line) for line in drawn)}"
            f"α: multiple of a direction ({kinds_of_directions(line.direction_kind for line in drawn)}).",
        )
    return figure


def _curve(grid: Grid, column: int, name: str, line: Line, looks: Mapping[str, Mapping[str, Any]]) -> None:
    above, below = grid.axes[:, column]
    look = {
        **looks[name],
        "markevery": style_sheet.marked(list(looks).index(name), len(line.alpha)),
        "ms": 3.5,
    }
    above.plot(line.alpha, line.loss, label=style_sheet.legend_name(name), **look)
    below.plot(line.alpha, line.accuracy, **look)
    if line.loss_error is not None:
        band = line.loss - 2 * line.loss_error, line.loss + 2 * line.loss_error
        above.fill_between(line.alpha, *band, color=look["color"], alpha=0.2, lw=0)
