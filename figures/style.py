"""The style of all figures: a color and a marker for each method, and a caption that explains the figure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from landscape.results.wording import percent

# Okabe and Ito's palette, distinguishable with any kind of color vision
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")

RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 150,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "legend.frameon": False,
}


LINES = ("-", "--", ":", "-.")

MOST_DECADES = 3
"""A logarithmic axis of more decades has one tick a decade."""


def looks(methods: Iterable[str]) -> dict[str, dict[str, str]]:
    """Color, marker and line of each method, by its place in the study. Methods of one color have different lines."""
    return {
        method: {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
        }
        for i, method in enumerate(dict.fromkeys(methods))
    }


def legend_name(title: str) -> str:
    """A title as a legend's label. A space goes before an underscore, because matplotlib hides such labels."""
    return f" {title}" if title.startswith("_") else title


def fitted(text: str, inches: float) -> str:
    """The text, broken into lines of at most this width."""
    # about 15 characters of these sizes fit into an inch
    return textwrap.fill(text, max(1, int(15 * inches)))


def legend_above(figure: Figure, axes: Iterable[Axes]) -> None:
    """A legend of all axes above the panels, in as many columns as fit. The figure grows by its rows."""
    marks = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    # the mark takes half an inch
    labels = [fitted(label, figure.get_figwidth() - 0.5) for label in marks]
    inches = max((len(line) for label in labels for line in label.split("\n")), default=0) / 15 + 0.5
    columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
    rows = -(-len(labels) // columns) + sum(label.count("\n") for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.19 * max(0, rows - 1))
    if labels:
        figure.legend(marks.values(), labels, loc="outside upper center", ncols=columns)


def new_figure(width: float, height: float, *, layout: str = "constrained") -> Figure:
    """An empty figure of a size in inches, with a layout without overlaps. It opens no window and has no global state.

    `layout="compressed"` is for axes of a fixed aspect.
    """
    with mpl.rc_context(RC):
        return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def caption(figure: Figure, text: str) -> None:
    """Adds lines below the figure that explain its marks."""
    figure.supxlabel(fitted(text, figure.get_figwidth()), x=0.01, ha="left", fontsize=7.5, color="0.3")


class LogTicks(LogLocator):
    """Ticks at 1, 2 and 5 of each decade if there are few decades. Plain `LogLocator` can end with no tick at all."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Positions of the ticks between two values."""
        self.set_params(subs=(1.0, 2.0, 5.0) if abs(np.log10(vmax / vmin)) <= MOST_DECADES else (1.0,))
        return super().tick_values(vmin, vmax)


def logarithmic(axis: XAxis | YAxis, values: ArrayLike) -> None:
    """Makes the axis logarithmic, with plain numbers (0.5, 1, 2), if all finite values are positive."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0 or numbers.min() <= 0:
        return
    set_scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def wrong_labels(rate: float) -> str:
    """A noise rate for a title."""
    return f"{percent(rate)} wrong labels"


def marker_of_one(values: pd.Series) -> str:
    """The marker of a curve: a dot for a curve of one point, which a line would not show; else none."""
    return "o" if values.notna().sum() == 1 else ""


def data_of(table: pd.DataFrame) -> str:
    """Data, noise and number of seeds for a caption, such as "mnist-5k, symmetric label noise, 3 seeds"."""
    names = ", ".join(map(str, table["dataset"].unique()))
    kinds = ", ".join(map(str, table["noise_kind"].unique()))
    count = table["seed"].nunique()
    return f"{names}, {kinds} label noise, {count} seed{'s' if count != 1 else ''}"
