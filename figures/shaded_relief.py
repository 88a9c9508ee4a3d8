"""The figure of landscapes as shaded reliefs above their contours, with a panel for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.scale import (
    finer,
    grids_say,
    height_of,
    height_ticks,
    loss_at,
    robust_range,
    scale_name,
    with_unit,
)
from figures.style import PLAIN, TWO_COLUMNS, Style, drawing, finish, fitted, new_figure, points
from landscape import Surface

LEVELS = 17
"""Number of contours."""
DARKEST = 0.55
"""Brightness of a slope that no light reaches."""
FLOOR = 0.6
"""Distance of the floor from the lowest point, as a share of the relief's height."""


def shaded_relief(
    panels: Sequence[tuple[str, str, Surface]],
    *,
    loss_name: str,
    about: str = "",
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """Each landscape as a relief lit from one side, its contours on the floor; one scale for all.

    Args:
        panels: (title, numbers, surface) of each model; the numbers stand below the title.
        loss_name: what the loss is, for the caption.
        about: which data and models, for the caption.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: there is no panel, or a surface has points without a finite loss.
    """
    if not panels:
        raise ValueError("panels: holds no surface")
    surfaces = [surface for _, _, surface in panels]
    if not all(np.isfinite(surface.loss).all() for surface in surfaces):
        raise ValueError("panels: a surface has points without a finite loss; draw `contours` of it")
    low, high = robust_range([surface.loss for surface in surfaces])
    bottom, top = height_of(np.array([low, high]), low, high)
    floor = bottom - FLOOR * (top - bottom)
    with drawing(style):
        side = width / len(panels)
        wrapped = [
            (fitted(title, side - 0.2, "large"), fitted(numbers, side - 0.1)) for title, numbers, _ in panels
        ]
        above = max(
            1.4 * (points("large") * (1 + title.count("\n")) + points() * (1 + numbers.count("\n")))
            for title, numbers in wrapped
        )
        # inches: text, the relief, and the caption below
        top_margin, bottom_margin = above / 72 + 0.05, 0.3
        figure = new_figure(width, side + top_margin + bottom_margin)
        # a layout engine would not see what stands above axes in three dimensions
        figure.set_layout_engine("none")
        tall = figure.get_figheight()
        for index, ((title, numbers), (_, _, surface)) in enumerate(zip(wrapped, panels, strict=True)):
            box = (index / len(panels), bottom_margin / tall, 1 / len(panels), side / tall)
            ax: Any = figure.add_axes(box, projection="3d")
            alpha, beta, height = finer(surface, low, high)
            _draw(ax, *np.meshgrid(alpha, beta, indexing="ij"), height, (bottom, top, floor))
            # numbers beside a small relief take more of its room
            ax.set_box_aspect((1, 1, 0.85), zoom=min(1.0, 0.78 + 0.055 * side))
            ticks = height_ticks(low, high)
            ax.set_zticks(ticks, [loss_at(tick, low, high) for tick in ticks])
            ax.tick_params(pad=-2)
            middle, under = (index + 0.5) / len(panels), 1.4 * points("large") * (1 + title.count("\n")) / 72
            figure.text(middle, 0.99, title, ha="center", va="top", fontsize="large", fontweight="bold")
            figure.text(middle, 0.99 - under / tall, numbers, ha="center", va="top")
        named = [("", surface) for surface in surfaces]
        finish(
            figure,
            style,
            f"{about} Height: {with_unit(loss_name, surfaces)}, {scale_name(low)}, one scale. "
            f"{grids_say(named, low, high)}".strip(),
        )
    return figure


def _draw(
    ax: Any, alpha: NDArray, beta: NDArray, height: NDArray, heights: tuple[float, float, float]
) -> None:
    bottom, top, floor = heights
    shades = LightSource(azdeg=200, altdeg=40)
    scaled = (height - bottom) / (top - bottom)
    colors = colormaps[mpl.rcParams["image.cmap"]](scaled)
    # both sides of the relief are drawn with one length, whatever their extents and numbers of points are
    along_alpha, along_beta = (1 / (count - 1) for count in height.shape)
    shade = shades.hillshade(scaled, dx=along_beta, dy=along_alpha, fraction=1.0)
    lit = np.clip(
        colors[..., :3] * (DARKEST + (1 - DARKEST) * shade[..., None]) + 0.12 * shade[..., None], 0, 1
    )
    levels = np.linspace(bottom, top, LEVELS)
    ax.contourf(
        alpha, beta, height, levels, zdir="z", offset=floor, cmap=mpl.rcParams["image.cmap"], alpha=0.85
    )
    ax.contour(alpha, beta, height, levels, zdir="z", offset=floor, colors="k", linewidths=0.4, alpha=0.5)
    relief = ax.plot_surface(
        alpha, beta, height, facecolors=lit, rstride=1, cstride=1, linewidth=0, antialiased=False, shade=False
    )
    # in a vector file thousands of facets become one bitmap
    relief.set_rasterized(True)
    ax.set_zlim(floor, top)
    ax.view_init(elev=24, azim=-58)
    ax.set_xlabel("α", labelpad=-8)
    ax.set_ylabel("β", labelpad=-8)
    ax.locator_params(nbins=4)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("0.85")
        axis._axinfo["grid"].update(color="0.9", linewidth=0.5)
