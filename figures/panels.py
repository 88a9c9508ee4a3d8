"""Panels that fit the width of a figure, and names of curves beside their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from pandas.core.groupby import SeriesGroupBy

from figures.style import CHARACTERS, fitted, legend_above, legend_name, marked, points

NARROWEST = 1.35
"""Inches: a grid whose panels would be narrower is turned on its side."""
MARGIN = 0.6
"""Inches beside the panels, for numbers and a label."""
MOST_OF_WIDTH = 0.24
"""Share of a figure's width that names beside curves may take."""
SPARSEST = 0.6
"""Share of a panel's height that names beside curves may take."""


class Grid(NamedTuple):
    """Panels of quantities (rows) and cells (columns); in a narrow figure cells are below one another instead.

    Attributes:
        figure: whose panels.
        axes: by quantity and cell, wherever they are in the figure.
        is_turned: whether cells are below one another.
    """

    figure: Figure
    axes: NDArray[Any]
    is_turned: bool

    @property
    def last(self) -> Axes:
        """The panel in the upper right corner."""
        last: Axes = self.axes[-1, 0] if self.is_turned else self.axes[0, -1]
        return last

    def label(self, quantities: Sequence[str], cells: Sequence[str], below: str) -> None:
        """Writes what the rows, the columns and the horizontal axes are, each where the grid has its edge."""
        drawn = self.axes.T if self.is_turned else self.axes
        down, across = (cells, quantities) if self.is_turned else (quantities, cells)
        for ax, text in zip(drawn[0], across, strict=True):
            ax.set_title(self.fitted(text))
        for ax, text in zip(drawn[:, 0], down, strict=True):
            ax.set_ylabel(fitted(text, self.figure.get_figheight() / len(drawn) - 0.4))
        for ax in drawn[-1]:
            ax.set_xlabel(self.fitted(below))

    def fitted(self, text: str) -> str:
        """The text in lines that are no wider than a panel and what is beside it."""
        across = self.axes.shape[0 if self.is_turned else 1]
        return fitted(text, (self.figure.get_figwidth() - 0.4) / across - 0.1)


def panel_grid(
    figure: Figure, quantities: int, cells: int, height: float, *, share_x: bool = True, share_y: bool = True
) -> Grid:
    """Panels of quantities and cells. The panels of a quantity share its scale.

    Args:
        figure: empty; its height becomes that of the rows.
        quantities: number of rows.
        cells: number of columns.
        height: of a row, in inches.
        share_x: whether all panels have one horizontal axis.
        share_y: whether the panels of one quantity have one vertical axis.
    """
    width = (figure.get_figwidth() - MARGIN) / cells
    is_turned = width < NARROWEST and cells > quantities
    down, across = (cells, quantities) if is_turned else (quantities, cells)
    # panels that are turned are wide: less height does
    figure.set_figheight((0.85 if is_turned else 1.0) * height * down + 0.5)
    axes = figure.subplots(
        down,
        across,
        sharex=share_x,
        sharey=("col" if is_turned else "row") if share_y else False,
        squeeze=False,
    )
    return Grid(figure, axes.T if is_turned else axes, is_turned)


def name_curves(
    figure: Figure,
    axes: Sequence[Axes],
    beside: Axes,
    height: float,
    looks: Mapping[str, Mapping[str, Any]],
    ends: Mapping[str, tuple[float, float]],
) -> None:
    """Names each curve beside its end; a legend above the panels where there is no room for that.

    Args:
        figure: whose curves.
        axes: all panels, for the legend.
        beside: the panel at whose right the names stand.
        height: of that panel in inches, about.
        looks: of each name.
        ends: last point of each curve in that panel.
    """
    names = [name for name in looks if name in ends and np.isfinite(ends[name]).all()]
    inches = max((len(name) for name in names), default=0) * points() / CHARACTERS + 0.25
    gap = 1.25 * points() / 72 / height
    fits = inches <= MOST_OF_WIDTH * figure.get_figwidth() and len(names) * gap <= 1.0 + SPARSEST
    if len(names) < len(looks) or not fits:
        legend_above(figure, axes)
        return
    # the limits are settled when they are asked for, and not by the transforms
    beside.get_ylim()
    to_share = beside.transScale + beside.transLimits
    places = {name: float(to_share.transform(ends[name])[1]) for name in names}
    names.sort(key=places.__getitem__)
    beyond_mark, beyond_axes = (
        beside.transAxes + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans) for offset in (14, 9)
    )
    for name, place in zip(names, spread_out([places[name] for name in names], gap), strict=True):
        look = looks[name]
        beside.annotate(
            legend_name(name),
            xy=ends[name],
            xytext=(1.0, place),
            textcoords=beyond_mark,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": look["color"], "lw": 0.6, "shrinkA": 5, "shrinkB": 1},
        )
        beside.plot(
            [1.0], [place], look["marker"], color=look["color"], ms=4, clip_on=False, transform=beyond_axes
        )


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Rising places moved apart by at least `gap`, as little as that takes, about where they were."""
    groups: list[tuple[float, int]] = []
    for place in places:
        middle, count = place, 1
        # a group of neighbors that touch stands around the mean of its places
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            before, of_before = groups.pop()
            middle, count = (before * of_before + middle * count) / (count + of_before), count + of_before
        groups.append((middle, count))
    return [middle + gap * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]


def rows_and_columns(count: int, width: float, narrowest: float) -> tuple[int, int]:
    """Rows and columns of panels that are at least so many inches wide, of which a row has at most four."""
    across = max(1, min(count, int((width - 0.3) / narrowest), 4))
    return -(-count // across), across


def mean_over_seeds(
    ax: Axes, by_epoch: SeriesGroupBy[Any, Any], method: str, looks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draws a method's mean over seeds against the epoch, and a band from the smallest to the largest value.

    Args:
        ax: the panel.
        by_epoch: values of all seeds, grouped by epoch.
        method: the label of the curve.
        looks: color, marker and line of each method.
    """
    curve_with_band(ax, by_epoch, legend_name(method), looks[method], list(looks).index(method))


def curve_with_band(
    ax: Axes, by_epoch: SeriesGroupBy[Any, Any], label: str, look: Mapping[str, Any], place: int
) -> None:
    """The same of any quantity, with its label and look; `place` moves its marks away from those of other curves."""
    mean = by_epoch.mean()
    ax.plot(mean.index, mean, label=label, ms=3.5, markevery=marked(place, len(mean)), **look)
    ax.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=look["color"], alpha=0.18, lw=0)
