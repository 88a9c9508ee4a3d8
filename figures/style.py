"""The look that all figures share: width, text, one color, marker and line a method, a caption below the picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import font_scalings
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from landscape.results.wording import percent

T = TypeVar("T")

Titled = Sequence[tuple[str, T]]
"""What is drawn: (title, thing) of each, such as `Titled[Surface]`."""

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9
"""Inches: the widths of most journals."""

LOSSES = (("observed", "observed labels"), ("clean", "true labels"))
"""(end of a column's name, words) of the labels that a measured loss has."""

# Okabe and Ito's palette, distinguishable with any kind of color vision; gray in place of its yellow, which white hides
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#888888")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*", "<", ">", "p", "h", "d", "8", "H", "1")
LINES = ("-", "--", "-.", ":")

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": "medium",
    "axes.labelsize": "medium",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "medium",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "legend.frameon": False,
}

OUTERMOST = (0.5, 99.5)
"""Percentiles at the ends of histograms, so that a few far values do not squeeze all others."""
MOST_DECADES = 3
"""A logarithmic axis of more decades has one tick a decade."""
LOGARITHMIC = "Axes whose ticks grow by factors are logarithmic."
"""Said below each figure that has such an axis, unless its caption names the scale itself."""
CHARACTERS = 135
"""Characters to an inch, times the points of the text."""


@dataclass(frozen=True)
class Style:
    """How a figure is written. Matplotlib's `rcParams` hold for all that is not named here.

    Attributes:
        font: family of the text, such as "serif".
        size: of the text in points; captions and ticks are smaller by a sixth.
        caption: whether the lines that explain the picture are drawn below it.
    """

    font: str | None = None
    size: float | None = None
    caption: bool = True

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 100:
            raise ValueError(f"size: must be between 1 and 100 points, got {self.size}")


PLAIN = Style()


def drawing(style: Style, **settings: Any) -> AbstractContextManager[None]:
    """The settings of Matplotlib while a figure is drawn: ours, then what the user has changed, then the style's."""
    ours = {**RC, **settings}
    chosen: dict[Any, Any] = {
        name: value for name, value in ours.items() if mpl.rcParams[name] == mpl.rcParamsDefault[name]
    }
    if style.font is not None:
        chosen["font.family"] = style.font
    if style.size is not None:
        chosen["font.size"] = style.size
    return mpl.rc_context(chosen)


def points(size: str = "medium") -> float:
    """Points of a text of that relative size, while a figure is drawn."""
    return float(mpl.rcParams["font.size"]) * font_scalings[size]


def looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Color, marker and line of each method, by its place in the study. The first 16 have markers of their own."""
    cycle = mpl.rcParams["axes.prop_cycle"]
    is_default = cycle == mpl.rcParamsDefault["axes.prop_cycle"]
    colors = COLORS if is_default else cycle.by_key().get("color", COLORS)
    return {
        method: {
            "color": colors[i % len(colors)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[(i + i // len(MARKERS)) % len(LINES)],
        }
        for i, method in enumerate(dict.fromkeys(methods))
    }


def marked(index: int, count: int) -> tuple[int, int]:
    """`markevery` of a curve of so many points: a few markers, at other places than those of the other curves."""
    step = max(1, count // 4)
    return (index * max(1, step // 3) % step, step)


def legend_name(title: str) -> str:
    """A title as a legend's label. A space goes before an underscore, because matplotlib hides such labels."""
    return f" {title}" if title.startswith("_") else title


def fitted(text: str, inches: float, size: str = "medium") -> str:
    """The text in lines of at most that width."""
    most = max(1, int(CHARACTERS / points(size) * inches))
    return "\n".join(textwrap.fill(line, most) for line in text.split("\n"))


def legend_above(figure: Figure, axes: Iterable[Axes]) -> None:
    """A legend of all axes above the panels, in as many columns as fit. The figure grows by its rows."""
    marks = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    # the mark takes half an inch
    labels = [fitted(label, figure.get_figwidth() - 0.5) for label in marks]
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    inches = longest * points() / CHARACTERS + 0.5
    columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
    rows = -(-len(labels) // columns) + sum(label.count("\n") for label in labels)
    figure.set_figheight(figure.get_figheight() + 1.5 * points() / 72 * max(0, rows - 1))
    if labels:
        figure.legend(marks.values(), labels, loc="outside upper center", ncols=columns, handlelength=2.8)


class ShownFigure(Figure):
    """A figure that a notebook shows as a cell's last line.

    Figures that pyplot did not make are shown only after `%matplotlib inline`, which then takes the place of this.
    """

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=150)
        return drawn.getvalue()


def new_figure(width: float, height: float, *, layout: str = "constrained") -> Figure:
    """An empty figure of a size in inches, with a layout without overlaps. It opens no window and has no global state.

    `layout="compressed"` is for axes of a fixed aspect.

    Raises:
        ValueError: a width that holds no text.
    """
    if not 1 <= width <= 100:
        raise ValueError(f"width: must be between 1 and 100 inches, got {width}")
    return ShownFigure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def finish(figure: Figure, style: Style, caption: str) -> None:
    """Adds the caption, and fixes the text of ticks, which Matplotlib makes only when the figure is drawn."""
    sizes = {"x": mpl.rcParams["xtick.labelsize"], "y": mpl.rcParams["ytick.labelsize"]}
    family: Any = mpl.rcParams["font.family"]
    for ax in figure.axes:
        for axis, size in sizes.items():
            chosen = points(size) if isinstance(size, str) else size
            ax.tick_params(axis=axis, labelsize=chosen, labelfontfamily=family)  # type: ignore[arg-type]
    said = " ".join([caption, *(ax.get_ylabel() for ax in figure.axes)]).lower()
    if "logarithmic" not in said and any("log" in (ax.get_xscale(), ax.get_yscale()) for ax in figure.axes):
        caption = f"{caption.strip()} {LOGARITHMIC}"
    if style.caption and caption.strip():
        text = fitted(caption.strip(), figure.get_figwidth() - 0.1, "small")
        figure.set_figheight(figure.get_figheight() + 1.25 * points("small") / 72 * (1 + text.count("\n")))
        figure.supxlabel(text, x=0.01, ha="left", fontsize="small", color="0.3")


class LogTicks(LogLocator):
    """Ticks at 1, 2 and 5 of each decade if there are few decades. Plain `LogLocator` can end with no tick at all.

    Args:
        most: ticks; with more of them only those at 1 and 5, or at 1, stay.
    """

    def __init__(self, most: int = 8) -> None:
        super().__init__()
        self.most = most

    def nonsingular(self, v0: float, v1: float) -> tuple[float, float]:
        """The limits of the axis, wide enough to be drawn; values that differ by rounding count as one value."""
        if np.isclose(v0, v1, rtol=1e-9, atol=0):
            v1 = v0
        low, high = super().nonsingular(v0, v1)
        return float(low), float(high)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Positions of the ticks between two values."""
        low, high = sorted((vmin, vmax))
        few_decades = np.log10(high / low) <= MOST_DECADES
        for subs in ((1.0, 2.0, 5.0), (1.0, 5.0)) if few_decades else ():
            self.set_params(subs=subs)
            ticks = np.asarray(super().tick_values(low, high))
            if ((ticks >= low) & (ticks <= high)).sum() <= self.most:
                return ticks
        self.set_params(subs=(1.0,))
        return super().tick_values(low, high)


def logarithmic(axis: XAxis | YAxis, values: ArrayLike, most: int = 8) -> None:
    """Makes the axis logarithmic, with plain numbers (0.5, 1, 2), if all finite values are positive.

    Otherwise the axis has ticks at few whole steps.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0 or numbers.min() <= 0:
        few_ticks(axis)
        return
    set_scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogTicks(most))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())
    # the limits are this locator's, not those of Matplotlib's own
    axis.axes.autoscale_view(scalex=isinstance(axis, XAxis), scaley=isinstance(axis, YAxis))


def few_ticks(axis: XAxis | YAxis, most: int = 5, **settings: Any) -> None:
    """Ticks in steps of 1, 2 or 5."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], **settings))


def wrong_labels(rate: float) -> str:
    """A noise rate for a title."""
    return f"{percent(rate)} wrong labels"


def data_of(table: pd.DataFrame) -> str:
    """Data, noise and number of seeds for a caption, such as "mnist-5k, symmetric label noise, 3 seeds"."""
    names = ", ".join(map(str, table["dataset"].unique()))
    kinds = ", ".join(map(str, table["noise_kind"].unique()))
    count = table["seed"].nunique()
    return f"{names}, {kinds} label noise, {count} seed{'s' if count != 1 else ''}"
