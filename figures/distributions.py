"""Distributions of numbers, such as measures of single samples or the entries of a diagonal."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from figures import style as style_sheet
from figures.panels import rows_and_columns
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled

BINS = 30
NARROWEST = 1.5
"""Inches of a panel."""


def distributions(
    named: Titled[ArrayLike], *, counted: str, about: str, width: float = TWO_COLUMNS, style: Style = PLAIN
) -> Figure:
    """A histogram of each quantity. Values beyond its ends count in the outermost bars.

    Args:
        named: (name with the unit, values) of each quantity; values that are not finite are left out and counted.
        counted: the things that have the values, such as "samples".
        about: which model and data, for the caption.
        width: of the figure in inches; panels go into as many rows as that takes.
        style: how text is written.

    Raises:
        ValueError: a quantity has no finite value, or there is no quantity.
    """
    held = [(name, np.asarray(values, dtype=np.float64).ravel()) for name, values in named]
    if not held:
        raise ValueError("named: holds no quantity")
    with style_sheet.drawing(style):
        down, across = rows_and_columns(len(held), width, NARROWEST)
        figure = style_sheet.new_figure(width, 1.5 * down + 0.4)
        axes = figure.subplots(down, across, squeeze=False).flatten()
        left_out = 0
        for ax, (name, values) in zip(axes, held, strict=False):
            finite = values[np.isfinite(values)]
            if not len(finite):
                raise ValueError(f"named: {name!r} has no finite value")
            left_out += len(values) - len(finite)
            low, high = np.percentile(finite, style_sheet.OUTERMOST)
            ax.hist(finite.clip(low, high), BINS, color=style_sheet.COLORS[0])
            ax.set_xlabel(style_sheet.fitted(name, width / across - 0.3))
            style_sheet.few_ticks(ax.xaxis, 3)
            style_sheet.few_ticks(ax.yaxis, 3, integer=True)
        for ax in axes[len(held) :]:
            ax.set_visible(False)
        for ax in axes[::across]:
            ax.set_ylabel(counted)
        without = f" {left_out} numbers that are not finite are left out." if left_out else ""
        style_sheet.finish(
            figure, style, f"{about} The outermost bars hold what is beyond them.{without}".strip()
        )
    return figure
