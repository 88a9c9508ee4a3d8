"""Named numbers with their errors, one row each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from figures import style as style_sheet
from figures.style import ONE_COLUMN, PLAIN, Style


def estimates(
    names: Sequence[str],
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    quantity: str,
    about: str,
    width: float = ONE_COLUMN,
    style: Style = PLAIN,
) -> Figure:
    """One row for each number: a dot with its interval, and at the right both in digits.

    Args:
        names: names of the rows, from the top.
        values: (rows,), the numbers; NaN for a missing one.
        low: (rows,), lower ends of the intervals; NaN for a number without interval.
        high: (rows,), upper ends.
        quantity: the quantity of the numbers, with its unit.
        about: the kind of the intervals, for the caption.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no row, or sizes that do not match.
    """
    middle, lower, upper = (np.asarray(each, dtype=np.float64) for each in (values, low, high))
    if not len(names) or not middle.shape == lower.shape == upper.shape == (len(names),):
        raise ValueError(f"values: must be one for each of {len(names)} names, got {middle.shape}")
    with style_sheet.drawing(style):
        labels = [style_sheet.fitted(name, 0.35 * width) for name in names]
        # a row is as high as its label
        heights = np.array([1.0 + label.count("\n") for label in labels])
        y = heights / 2 - np.cumsum(heights)
        figure = style_sheet.new_figure(width, 1.45 * style_sheet.points() / 72 * (heights.sum() + 4.5))
        ax = figure.subplots()
        ax.hlines(y, lower, upper, color=style_sheet.COLORS[0], lw=1.6)
        ax.plot(middle, y, "o", color=style_sheet.COLORS[0], ms=3.5)
        if np.nanmin([*lower, *middle, np.inf]) <= 0 <= np.nanmax([*upper, *middle, -np.inf]):
            ax.axvline(0, color="0.4", lw=0.8)
        ax.set_yticks(y, labels)
        ax.set_ylim(-heights.sum() - 0.1, 0.1)
        numbers = [_words(*row) for row in zip(middle, lower, upper, strict=True)]
        room = max(map(len, numbers)) * style_sheet.points("small") / style_sheet.CHARACTERS
        for place, text in zip(y, numbers, strict=True):
            written = ax.text(
                1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize="small"
            )
            written.set_in_layout(False)
        figure.get_layout_engine().set(rect=(0, 0, 1 - (room + 0.1) / width, 1))  # type: ignore[union-attr,call-arg]
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(style_sheet.fitted(quantity, width - room - 0.6))
        style_sheet.few_ticks(ax.xaxis, 4)
        style_sheet.finish(figure, style, about)
    return figure


def _words(value: float, low: float, high: float) -> str:
    middle, *ends = (f"{number:.3g}" for number in (value, low, high))
    # an interval that is too narrow for three digits is left out
    hidden = not np.isfinite([low, high]).all() or ends == [middle, middle]
    return middle if hidden else f"{middle} [{', '.join(ends)}]"
