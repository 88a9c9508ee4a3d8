"""Basins of a surface: where they are, how deep, and how they merge."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from figures.panels import panel_grid
from figures.scale import contours_on, grids_say, holes, robust_range, with_unit
from figures.style import (
    COLORS,
    PLAIN,
    TWO_COLUMNS,
    Style,
    drawing,
    few_ticks,
    finish,
    legend_above,
    new_figure,
)
from landscape import Surface, Topology

HEIGHT = 2.5
"""Inches of a panel."""
RIM = [withStroke(linewidth=2.4, foreground="k")]


def basins(
    topology: Topology,
    *,
    surface: Surface | None = None,
    loss_name: str = "loss",
    about: str = "",
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """The persistence diagram and the merge tree; before them the surface with its minima and saddles, if given.

    A line leads from each minimum to the saddle where its basin ends. In the diagram each basin is a point whose height
    above the diagonal is its persistence, with its error as a bar.

    Args:
        topology: of `landscape.topology`.
        surface: the surface that it is of.
        loss_name: what the loss is.
        about: which data and model, for the caption.
        width: of the figure in inches; in a narrow figure the panels are below one another.
        style: how text is written.
    """
    with drawing(style):
        figure = new_figure(width, HEIGHT)
        panels = 2 if surface is None else 3
        axes = list(panel_grid(figure, 1, panels, HEIGHT, share_x=False, share_y=False).axes[0])
        said = ""
        if surface is not None:
            low, high = robust_range([surface.loss])
            _on_surface(axes[0], surface, topology, low, high)
            said = grids_say([("", surface)], low, high) + holes([("", surface)])
        _diagram(axes[-2], topology)
        _tree(axes[-1], topology)
        unit = f" ({topology.loss_unit})" if topology.loss_unit else ""
        axes[-2].set_xlabel(f"minimum{unit}")
        axes[-2].set_ylabel(f"saddle{unit}")
        axes[-1].set_ylabel(with_unit(loss_name, [topology]))
        legend_above(figure, axes[-2:-1])
        inside = int((~topology.at_border).sum())
        finish(
            figure,
            style,
            f"{about} {len(topology.loss)} basins, {inside} with their minimum inside the grid; total persistence "
            f"{topology.total_persistence:.3g} {topology.loss_unit}".rstrip()
            + f", {topology.roughness:.1%} of the range. {said}",
        )
    return figure


def _on_surface(ax: Axes, surface: Surface, topology: Topology, low: float, high: float) -> None:
    ax.grid(visible=False)
    contours_on(ax, surface, low, high)
    for basin in np.flatnonzero(topology.parent >= 0):
        ends = [topology.alpha[basin], topology.saddle_alpha[basin]]
        ax.plot(
            ends, [topology.beta[basin], topology.saddle_beta[basin]], color="w", lw=0.8, path_effects=RIM
        )
    ax.plot(topology.saddle_alpha, topology.saddle_beta, "x", color="w", ms=5, mew=1.4, path_effects=RIM)
    for border, marker in ((False, "o"), (True, "s")):
        kept = topology.at_border == border
        ax.plot(
            topology.alpha[kept],
            topology.beta[kept],
            marker,
            color="w",
            mec="k",
            ms=5,
            clip_on=False,
            zorder=4,
        )
    ax.set_xlabel("α")
    ax.set_ylabel("β")
    ax.set_title("o, □: minima   x: saddles")
    few_ticks(ax.xaxis, 4)
    few_ticks(ax.yaxis, 4)


def _diagram(ax: Axes, topology: Topology) -> None:
    merges = np.isfinite(topology.persistence)
    drawn = np.concatenate([topology.loss, topology.saddle_loss[merges]])
    low, high = float(drawn.min()), float(drawn.max())
    margin = 0.08 * (high - low) or 1.0
    ends = [low - margin, high + 2 * margin]
    ax.plot(ends, ends, color="0.5", lw=0.8)
    # a basin that never ends is at the upper edge
    heights = np.where(merges, topology.saddle_loss, high + 1.5 * margin)
    for border, marker, label in ((False, "o", "minimum inside"), (True, "s", "minimum at the border")):
        kept = topology.at_border == border
        if kept.any():
            error = np.nan_to_num(topology.persistence_error[kept])
            ax.errorbar(
                topology.loss[kept], heights[kept], error, fmt=marker, color=COLORS[border], ms=4, label=label
            )
    ax.plot(topology.loss[~merges], heights[~merges], "^", color="k", ms=6, mfc="none", label="never merges")
    ax.set_xlim(*ends)
    few_ticks(ax.xaxis, 4)
    few_ticks(ax.yaxis, 4)


def _tree(ax: Axes, topology: Topology) -> None:
    """Each basin is an upright line from its minimum to its saddle, and there a level line leads to the deeper one."""
    place = {basin: float(rank) for rank, basin in enumerate(_in_order(topology))}
    high = np.nanmax([*topology.loss, *topology.saddle_loss])
    low = float(topology.loss.min())
    top = high + 0.1 * (high - low or 1.0)
    for basin, x in place.items():
        end = top if np.isnan(topology.saddle_loss[basin]) else topology.saddle_loss[basin]
        ax.plot([x, x], [topology.loss[basin], end], color="k", lw=1.2)
        if topology.parent[basin] >= 0:
            ax.plot([x, place[int(topology.parent[basin])]], [end, end], color="k", lw=1.2)
        border = bool(topology.at_border[basin])
        ax.plot(x, topology.loss[basin], "s" if border else "o", color=COLORS[border], ms=4)
    ax.set_xticks([])
    ax.set_xlabel("basins")
    ax.grid(axis="x", visible=False)
    few_ticks(ax.yaxis, 4)


def _in_order(topology: Topology) -> list[int]:
    """Basins from left to right: those that end in one are at its right, those that end first nearest."""
    order: list[int] = []
    # a stack rather than calls, because each basin of a slope may end in the one before
    waiting = np.flatnonzero(topology.parent < 0)[::-1].tolist()
    while waiting:
        basin = waiting.pop()
        order.append(basin)
        children = np.flatnonzero(topology.parent == basin)
        waiting += children[np.argsort(topology.saddle_loss[children], kind="stable")][::-1].tolist()
    return order
