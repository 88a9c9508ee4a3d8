"""Loss surfaces of several models side by side, on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from figures import style as style_sheet
from figures.scale import (
    color_bar,
    contours_on,
    finer,
    grids_say,
    height_of,
    height_ticks,
    holes,
    kinds_of_directions,
    loss_at,
    robust_range,
    round_losses_of,
    scale_name,
    what_levels_say,
    with_unit,
)
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import Surface, Trajectory

NARROW = 4
"""The largest ratio of a plane's sides that is drawn to scale; a longer plane fills its panel."""
SMALLEST = 1.2
"""Inches of a panel's side; the next panels go into a row of their own."""
BAR = 0.75
"""Inches beside the panels, for the color bar."""


def contours(
    surfaces: Titled[Surface],
    *,
    loss_name: str,
    about: str,
    trajectories: Mapping[str, Trajectory] | None = None,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """Contours of the loss, one panel a model, the model and the lowest point of the grid marked.

    Between the measured points a cubic spline is drawn where it is right, else the field is linear (`scale.is_smooth`);
    the caption says which. Each panel has about 5 to 9 lines at round losses.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: what the loss is, for the color bar.
        about: which data and seed, for the caption.
        trajectories: title -> checkpoints of the training, drawn as a path on that model's surface.
        width: of the figure in inches; panels go into as many rows as that takes.
        style: how text is written.

    Raises:
        ValueError: no point has a finite loss, or a trajectory belongs to none of the models.
    """
    low, high = robust_range([surface.loss for _, surface in surfaces])
    paths = trajectories or {}
    for title in paths:
        if title not in dict(surfaces):
            raise ValueError(
                f"trajectories: no surface has the title {title!r}; known: {', '.join(dict(surfaces))}"
            )
    with style_sheet.drawing(style, **{"axes.grid": False}):
        rows, across = _rows_and_columns(len(surfaces), width)
        side = (width - BAR - 0.45) / across
        titles = [
            style_sheet.fitted(title, side) + "\n" + style_sheet.fitted(_center(surface), side)
            for title, surface in surfaces
        ]
        text = 1.3 * style_sheet.points() / 72 * (1 + max(title.count("\n") for title in titles))
        figure = style_sheet.new_figure(width, (side + text + 0.1) * rows + 0.45, layout="compressed")
        grid = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
        axes, unused = list(grid.flatten()[: len(surfaces)]), grid.flatten()[len(surfaces) :]
        for ax in unused:
            ax.set_visible(False)
        for ax, shown, (title, surface) in zip(axes, titles, surfaces, strict=True):
            contours_on(ax, surface, low, high)
            _draw_marks(ax, surface, paths.get(title))
            ax.set_title(shown)
            ax.set_aspect(_aspect(surfaces))
        _label_planes(grid, len(surfaces))
        color_bar(figure, axes, low, high, with_unit(loss_name, (surface for _, surface in surfaces)))
        walked = "White line with dots: the training's path. " if paths else ""
        numbered = {tuple(round_losses_of(surface, low, high)) for _, surface in surfaces}
        own = (
            "Numbered lines: loss, other losses in other panels. "
            if len(numbered) > 1
            else "Numbered lines: loss. "
        )
        style_sheet.finish(
            figure,
            style,
            f"{about} Red plus: the trained model; white cross: lowest point of the grid. {walked}{own}"
            f"{_what_centers_say(surfaces)}{grids_say(surfaces, low, high)}{what_levels_say(surfaces, high)}"
            f"{holes(surfaces)}{_axes(surfaces)}",
        )
    return figure


def _draw_marks(ax: Axes, surface: Surface, trajectory: Trajectory | None) -> None:
    """The training's path, the lowest point and the model. Rims tell them from what is below, in gray too."""
    loss = np.ma.masked_invalid(surface.loss)
    if trajectory is not None:
        path = trajectory.coordinates
        rim = [withStroke(linewidth=2.2, foreground="k")]
        ax.plot(path[:, 0], path[:, 1], "-o", color="w", lw=1, ms=2, path_effects=rim)
    if loss.count():
        i, j = np.unravel_index(loss.argmin(), loss.shape)
        rim = [withStroke(linewidth=2.6, foreground="k")]
        place = surface.alpha[i], surface.beta[j]
        ax.plot(*place, "x", color="w", ms=5, mew=1.2, clip_on=False, path_effects=rim, zorder=4)
    rim = [withStroke(linewidth=3.0, foreground="w")]
    ax.plot(0, 0, "+", color="red", ms=7, mew=1.4, clip_on=False, path_effects=rim, zorder=3.5)


def _label_planes(grid: NDArray[Any], panels: int) -> None:
    """Names of the axes at the outer panels, and few ticks."""
    for axis in (grid[0, 0].xaxis, grid[0, 0].yaxis):
        style_sheet.few_ticks(axis, 4)
    across = grid.shape[1]
    for index, ax in enumerate(grid.flatten()[:panels]):
        if index % across == 0:
            ax.set_ylabel("β")
        if index + across >= panels:
            ax.set_xlabel("α")
            ax.tick_params(axis="x", labelbottom=True)


def relief(
    surfaces: Titled[Surface], *, loss_name: str, about: str, width: float = TWO_COLUMNS, style: Style = PLAIN
) -> Figure:
    """The same surfaces in three dimensions, on one scale of height and color.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: what the loss is, for the color bar.
        about: which data and seed, for the caption.
        width: of the figure in inches; panels go into as many rows as that takes.
        style: how text is written.
    """
    low, high = robust_range([surface.loss for _, surface in surfaces])
    bottom, top = height_of(np.array([low, high]), low, high)
    with style_sheet.drawing(style):
        rows, across = _rows_and_columns(len(surfaces), width)
        side = (width - BAR) / across
        titles = [style_sheet.fitted(title, side) for title, _ in surfaces]
        wrapped = 1.3 * style_sheet.points() / 72 * max(title.count("\n") for title in titles)
        figure = style_sheet.new_figure(width, (side + wrapped + 0.15) * rows + 0.1)
        # titles in three dimensions are set after the layout, upward
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - wrapped / figure.get_figheight()))  # type: ignore[union-attr,call-arg]
        axes = [figure.add_subplot(rows, across, i + 1, projection="3d") for i in range(len(surfaces))]
        for ax, title, (_, surface) in zip(axes, titles, surfaces, strict=True):
            alpha, beta, height = finer(surface, low, high)
            colors = colormaps[mpl.rcParams["image.cmap"]](
                np.ma.masked_invalid((height - bottom) / (top - bottom))
            )
            facets = ax.plot_surface(
                *np.meshgrid(alpha, beta, indexing="ij"),
                height,
                facecolors=colors,
                rstride=1,
                cstride=1,
                lw=0,
                shade=False,
            )
            # in a vector file thousands of facets are one picture
            facets.set_rasterized(True)
            ax.set_zlim(bottom, top)
            for axis in (ax.xaxis, ax.yaxis):
                style_sheet.few_ticks(axis, 3)
            ticks = height_ticks(low, high)
            ax.set_zticks(ticks, [loss_at(tick, low, high) for tick in ticks])
            ax.set_title(title)
            ax.set_xlabel("α", labelpad=-10)
            ax.set_ylabel("β", labelpad=-10)
            ax.tick_params(pad=-3)
            ax.view_init(elev=28, azim=-60)
        color_bar(figure, axes, low, high, with_unit(loss_name, (surface for _, surface in surfaces)))
        style_sheet.finish(
            figure,
            style,
            f"{about} Height: loss, {scale_name(low)}. {grids_say(surfaces, low, high)}"
            f"{what_levels_say(surfaces, high)}{holes(surfaces)}{_axes(surfaces)}",
        )
    return figure


def _rows_and_columns(panels: int, width: float) -> tuple[int, int]:
    room = width - BAR - 0.45
    # two beside one another may be smaller
    most_across = max(1, int(room / SMALLEST), min(2, int(room)))
    rows = -(-panels // most_across)
    return rows, -(-panels // rows)


def _center(surface: Surface) -> str:
    """The model's own loss, and the share of its samples that it predicts as labeled; no share without classes."""
    loss = f"{surface.center_loss:.2f}" if abs(surface.center_loss) >= 0.1 else f"{surface.center_loss:.2g}"
    accuracy = surface.center_accuracy
    return f"center {loss}" + (f", {accuracy:.1%} as labeled" if np.isfinite(accuracy) else "")


def _what_centers_say(surfaces: Titled[Surface]) -> str:
    """What the numbers above the panels are, for a caption."""
    if not any(np.isfinite(surface.center_accuracy) for _, surface in surfaces):
        return "Center: the trained model's loss. "
    return (
        "Center: the trained model's loss, and the share of the measured samples that it predicts as this loss's "
        "labels say. "
    )


def _aspect(surfaces: Titled[Surface]) -> Literal["auto", "equal"]:
    """Equal scales of both axes, unless a plane is so narrow that its panel would be a line."""
    width, height = (
        max(float(np.ptp(getattr(surface, axis))) for _, surface in surfaces) for axis in ("alpha", "beta")
    )
    return "equal" if max(width, height) <= NARROW * min(width, height) else "auto"


def _axes(surfaces: Titled[Surface]) -> str:
    return (
        f"α, β: multiples of two directions ({kinds_of_directions(s.direction_kind for _, s in surfaces)})."
    )
