"""The critical-difference diagram: mean ranks of methods on a line, with a bar over those that are not told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from figures.style import PLAIN, TWO_COLUMNS, Style, drawing, finish, new_figure, points


def critical_difference(
    methods: Sequence[str],
    mean_ranks: ArrayLike,
    intervals: ArrayLike,
    groups: Sequence[Sequence[int]],
    *,
    difference: float,
    about: str = "",
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """One row a method, the best on top: its mean rank with an interval, and bars that join methods not told apart.

    Args:
        methods: titles.
        mean_ranks: (methods,), 1 is the best.
        intervals: (methods, 2), lower and upper ends of the intervals of the mean ranks.
        groups: places of the methods of each bar.
        difference: the critical difference of mean ranks, drawn to scale.
        about: what was compared, for the caption.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: the sizes do not fit each other.
    """
    ranks, ends = np.asarray(mean_ranks, dtype=np.float64), np.asarray(intervals, dtype=np.float64)
    if ranks.shape != (len(methods),) or ends.shape != (len(methods), 2):
        raise ValueError(
            f"mean_ranks, intervals: must be ({len(methods)},) and ({len(methods)}, 2), got {ranks.shape} and "
            f"{ends.shape}"
        )
    order = ranks.argsort(kind="stable")
    row_of = {int(method): row for row, method in enumerate(order)}
    with drawing(style):
        line = 1.7 * points() / 72
        figure = new_figure(width, line * (len(methods) + 3.5))
        ax = figure.subplots()
        for method, row in row_of.items():
            ax.plot(ends[method], [row, row], color="0.6", lw=1.6, solid_capstyle="butt")
            ax.plot(ranks[method], row, "o", color="#0072B2", ms=4.5)
        ax.set_yticks(range(len(methods)), [methods[place] for place in order])
        _bars(ax, [sorted(row_of[place] for place in group) for group in groups], len(methods))
        low = min(1.0, float(ends.min()))
        ax.plot([low, low + difference], [-1.1, -1.1], color="black", lw=1.6, solid_capstyle="butt")
        ax.text(
            low + difference, -1.1, f"  critical difference {difference:.2f}", va="center", fontsize="small"
        )
        ax.set_ylim(len(methods) - 0.4, -1.8)
        ax.set_xlabel("mean rank (1 is the best)")
        ax.grid(axis="y", visible=False)
        finish(
            figure,
            style,
            f"Dots: mean ranks{f' over {about}' if about else ''}; gray lines: 95% intervals of the mean rank. "
            "Black bars at the right join methods that are not told apart at 5%.",
        )
    return figure


def _bars(ax: Axes, groups: list[list[int]], count: int) -> None:
    """A vertical bar for each group at the right of the panel, side by side."""
    right = count + 0.6
    for number, rows in enumerate(groups):
        x = right + 0.35 * number
        ax.plot([x, x], [rows[0] - 0.25, rows[-1] + 0.25], color="black", lw=2.2, solid_capstyle="butt")
    ax.set_xlim(0.5, right + 0.35 * len(groups) + 0.2)
