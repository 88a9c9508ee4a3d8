"""The figure of landscapes as shaded reliefs above their contours, with a panel for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy
from matplotlib import colormaps
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.scale import height_of, loss_at, robust_range, with_unit
from figures.style import RC, caption, new_figure
from landscape import Surface

COLORMAP = "viridis"
FINER = 4
"""Points of the drawn mesh between two measured ones."""
LEVELS = 17
"""Number of contours."""
DARKEST = 0.55
"""Brightness of a slope that no light reaches."""
FLOOR = 0.6
"""Distance of the floor from the lowest point, as a share of the relief's height."""


def shaded_relief(panels: Sequence[tuple[str, str, Surface]], *, loss_name: str, about: str = "") -> Figure:
    """Landscapes as reliefs lit from one side, with contours on the floor, on one scale.

    Args:
        panels: (title, numbers, surface) of each model. The numbers stand below the title.
        loss_name: name of the loss, for the caption.
        about: a sentence about data and models, for the caption.

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
    with mpl.rc_context(RC):
        figure = new_figure(4.3 * len(panels), 4.5)
        # a layout engine ignores text above axes in three dimensions
        figure.set_layout_engine("none")
        for index, (title, numbers, surface) in enumerate(panels):
            left, middle = index / len(panels), (index + 0.5) / len(panels)
            ax: Any = figure.add_axes((left, 0.06, 1 / len(panels), 0.82), projection="3d")
            alpha, beta, height = _finer(surface, low, high)
            _draw(ax, alpha, beta, height, (bottom, top, floor))
            ticks = _ticks(low, high)
            ax.set_zticks(ticks, [loss_at(tick, low, high) for tick in ticks])
            figure.text(middle, 0.98, title, ha="center", va="top", fontsize=14, fontweight="bold")
            figure.text(middle, 0.905, numbers, ha="center", va="top", fontsize=8.5)
        scale = "logarithmic" if low > 0 else "linear"
        caption(figure, f"{about} Height: {with_unit(loss_name, surfaces)}, {scale}, one scale.".strip())
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Heights of the losses at the ticks, which are 1, 3, 10, ... on a logarithmic scale."""
    if low <= 0:
        return [float(tick) for tick in np.linspace(low, high, 4)]
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    losses = [step * 10.0**decade for decade in decades for step in (1, 3)]
    return [float(np.log10(loss)) for loss in losses if low <= loss <= high]


def _finer(surface: Surface, low: float, high: float) -> tuple[NDArray, NDArray, NDArray]:
    """A finer mesh. Between measured points the height is a cubic spline, cut to the scale."""
    height = height_of(surface.loss.clip(low, high), low, high)
    alpha = np.linspace(surface.alpha[0], surface.alpha[-1], FINER * (len(surface.alpha) - 1) + 1)
    beta = np.linspace(surface.beta[0], surface.beta[-1], FINER * (len(surface.beta) - 1) + 1)
    degree = min(3, len(surface.alpha) - 1, len(surface.beta) - 1)
    spline = scipy.interpolate.RectBivariateSpline(surface.alpha, surface.beta, height, kx=degree, ky=degree)
    fine = np.clip(spline(alpha, beta), height.min(), height.max())
    return *np.meshgrid(alpha, beta, indexing="ij"), fine


def _draw(
    ax: Any, alpha: NDArray, beta: NDArray, height: NDArray, heights: tuple[float, float, float]
) -> None:
    bottom, top, floor = heights
    shades, step = LightSource(azdeg=200, altdeg=40), float(alpha[1, 0] - alpha[0, 0])
    scaled = (height - bottom) / (top - bottom)
    colors = colormaps[COLORMAP](scaled)
    # heights in units of the plane, so that the light fits the drawn relief
    shade = shades.hillshade(scaled * np.ptp(alpha), dx=step, dy=step, fraction=1.0)
    lit = np.clip(
        colors[..., :3] * (DARKEST + (1 - DARKEST) * shade[..., None]) + 0.12 * shade[..., None], 0, 1
    )
    levels = np.linspace(bottom, top, LEVELS)
    ax.contourf(alpha, beta, height, levels, zdir="z", offset=floor, cmap=COLORMAP, alpha=0.85)
    ax.contour(alpha, beta, height, levels, zdir="z", offset=floor, colors="k", linewidths=0.4, alpha=0.5)
    relief = ax.plot_surface(
        alpha, beta, height, facecolors=lit, rstride=1, cstride=1, linewidth=0, antialiased=False, shade=False
    )
    # in a vector file thousands of facets become one bitmap
    relief.set_rasterized(True)
    ax.set_zlim(floor, top)
    ax.view_init(elev=24, azim=-58)
    ax.set_box_aspect((1, 1, 0.85), zoom=1.05)
    ax.set_xlabel("α", labelpad=-6)
    ax.set_ylabel("β", labelpad=-6)
    ax.tick_params(labelsize=8, pad=-1)
    ax.locator_params(nbins=4)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("0.85")
        axis._axinfo["grid"].update(color="0.9", linewidth=0.5)
