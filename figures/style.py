"""The look that all figures share: one colour and marker a method, a caption that explains the picture."""

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

# Okabe and Ito's palette, distinguishable with any kind of colour vision
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
    "legend.frameon": False,
}


LINES = ("-", "--", ":", "-.")


def looks(methods: Iterable[str]) -> dict[str, dict[str, str]]:
    """Colour, marker and line of each method, by its place in the study; lines tell apart what shares a colour."""
    return {
        method: {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
        }
        for i, method in enumerate(dict.fromkeys(methods))
    }


def legend_above(figure: Figure, ax: Axes) -> None:
    """What the marks of `ax` stand for, above all panels, in as many columns as fit; the figure grows by their rows."""
    handles, labels = ax.get_legend_handles_labels()
    # about 15 characters of this size to the inch, and half an inch for the mark
    inches = max(map(len, labels), default=0) / 15 + 0.5
    columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * (rows - 1))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def new_figure(width: float, height: float, *, layout: str = "constrained") -> Figure:
    """An empty figure in inches, laid out so that nothing overlaps; no window, no global state.

    `layout="compressed"` is for axes of a fixed aspect.
    """
    with mpl.rc_context(RC):
        return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def caption(figure: Figure, text: str) -> None:
    """Lines below the picture that say what its marks mean."""
    # about 15 characters of this size to the inch
    width = int(15 * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(text, width), x=0.01, ha="left", fontsize=7.5, color="0.3")


def logarithmic(axis: XAxis | YAxis, values: ArrayLike) -> None:
    """A logarithmic scale with plain numbers, 0.5, 1, 2, 5, 10, if the values that are numbers are positive."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0 or numbers.min() <= 0:
        return
    set_scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def percent(rate: float) -> str:
    """A noise rate for a title."""
    return f"{rate:.0%} wrong labels"


def data_of(table: pd.DataFrame) -> str:
    """What was trained on and how often, for a caption: "mnist-5k, symmetric label noise, 3 seeds"."""
    names = ", ".join(map(str, table["dataset"].unique()))
    kinds = ", ".join(map(str, table["noise_kind"].unique()))
    count = table["seed"].nunique()
    return f"{names}, {kinds} label noise, {count} seed{'s' if count != 1 else ''}"
