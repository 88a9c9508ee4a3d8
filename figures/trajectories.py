"""Paths of trainings on one plane, and their distances from the plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from figures import style as style_sheet
from figures.panels import panel_grid
from figures.scale import contours_on, grids_say, holes, robust_range, scale_name, what_levels_say, with_unit
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import Surface, Trajectory
from landscape.results.wording import percent

HEIGHT = 2.6
"""Inches of a panel."""


def trajectories(
    named: Titled[Trajectory],
    *,
    surface: Surface | None = None,
    loss_name: str = "loss",
    about: str = "",
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """The paths on the plane. A second panel shows each checkpoint's distance from the plane.

    Args:
        named: (title, trajectory) of each training, all on the same plane (`landscape.shared_plane`).
        surface: a loss over that plane, whose contours are drawn below the paths.
        loss_name: what that loss is.
        about: which data and model, for the caption.
        width: of the figure in inches; in a narrow figure the distances are below the paths.
        style: how text is written.

    Raises:
        ValueError: no trajectory, or one along a single direction.
    """
    if not named:
        raise ValueError("named: holds no trajectory")
    for title, trajectory in named:
        if trajectory.coordinates.shape[1] < 2:
            raise ValueError(f"named: {title!r} is along one direction; a plane needs two")
    with style_sheet.drawing(style):
        look = style_sheet.looks(title for title, _ in named)
        figure = style_sheet.new_figure(width, HEIGHT)
        grid = panel_grid(figure, 1, 2, HEIGHT, share_x=False, share_y=False)
        plane, beside = grid.axes[0]
        said = ""
        if surface is not None:
            plane.grid(visible=False)
            low, high = robust_range([surface.loss])
            contours_on(plane, surface, low, high)
            shown = [("", surface)]
            said = f"Contours: {with_unit(loss_name, [surface])}; shades: {scale_name(low)}. "
            said += grids_say(shown, low, high) + what_levels_say(shown, high) + holes(shown)
        for index, (title, trajectory) in enumerate(named):
            _path(plane, trajectory, look[title], title, rim=surface is not None)
            _distance(beside, trajectory, index, look[title])
        _name_axes(plane, named[0][1])
        beside.set_xlabel("checkpoint")
        beside.set_ylabel("l2 distance from the plane")
        beside.set_ylim(0, None)
        style_sheet.few_ticks(beside.xaxis, 4, integer=True)
        style_sheet.few_ticks(beside.yaxis, 4)
        style_sheet.legend_above(figure, [plane])
        style_sheet.finish(figure, style, f"{about} Star: last checkpoint. {said}{_at_worst(named)}".strip())
    return figure


def _path(ax: Axes, trajectory: Trajectory, look: Mapping[str, Any], title: str, *, rim: bool) -> None:
    at = trajectory.coordinates
    effects = [withStroke(linewidth=2.6, foreground="w")] if rim else []
    ax.plot(
        at[:, 0], at[:, 1], label=style_sheet.legend_name(title), ms=3, lw=1.2, path_effects=effects, **look
    )
    ax.plot(*at[-1, :2], "*", color=look["color"], ms=8, mec="w" if rim else look["color"], mew=0.6, zorder=4)


def _distance(ax: Axes, trajectory: Trajectory, index: int, look: Mapping[str, Any]) -> None:
    count = len(trajectory.distances)
    every = style_sheet.marked(index, count)
    ax.plot(np.arange(count), trajectory.distances, ms=3, lw=1.2, markevery=every, **look)


def _name_axes(ax: Axes, trajectory: Trajectory) -> None:
    axes: tuple[XAxis | YAxis, ...] = (ax.xaxis, ax.yaxis)
    for axis, name, share in zip(axes, "αβ", trajectory.explained, strict=False):
        axis.set_label_text(
            f"{name} ({percent(round(float(share), 3))} of the variance)" if share == share else name
        )
        style_sheet.few_ticks(axis, 4)


def _at_worst(named: Titled[Trajectory]) -> str:
    """The largest distance of each training from the plane, beside its largest distance from the model."""
    words = []
    for title, trajectory in named:
        off = float(trajectory.distances.max())
        share = ""
        if trajectory.from_model is not None and (way := float(trajectory.from_model.max())) > 0:
            share = f" ({off / way:.0%} of its largest distance from the model)"
        words.append(f"{title} {off:.2g}{share}")
    return f"Farthest from the plane: {', '.join(words)}."
