"""The figures of loss surfaces of several models side by side, and of lines through them, on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures.scale import height_of, holes, loss_at, loss_scale, robust_range, what_levels_say, with_unit
from figures.style import RC, caption, fitted, legend_above, legend_name, logarithmic, looks, new_figure
from landscape import Line, Surface, Trajectory

COLORMAP = "viridis"
NARROW = 4
"""The largest ratio of a plane's sides that is drawn to scale. A longer plane fills its panel."""
MOST_ACROSS = 5
"""Largest number of panels in a row, so that a page is wide enough."""


def contours(
    surfaces: Sequence[tuple[str, Surface]],
    *,
    loss_name: str,
    about: str,
    trajectories: Mapping[str, Trajectory] | None = None,
) -> Figure:
    """Contours of the loss, a panel for each model, with marks for the model and the lowest point of the grid.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: name of the loss, for the color bar.
        about: a sentence about data and seed, for the caption.
        trajectories: title -> checkpoints of the training, drawn as a path on the surface of that model.

    Raises:
        ValueError: no point has a finite loss, or a trajectory belongs to none of the models.
    """
    low, high = robust_range([surface.loss for _, surface in surfaces])
    norm, levels = loss_scale(low, high)
    paths = trajectories or {}
    titles = [fitted(title, 2.2) for title, _ in surfaces]
    for title in paths:
        if title not in dict(surfaces):
            raise ValueError(
                f"trajectories: no surface has the title {title!r}; known: {', '.join(dict(surfaces))}"
            )
    with mpl.rc_context({**RC, "axes.grid": False}):
        rows, across = _rows_and_columns(len(surfaces))
        wrapped = max(title.count("\n") for title in titles)
        figure = new_figure(2.4 * across + 0.9, (2.6 + 0.15 * wrapped) * rows + 0.65, layout="compressed")
        grid = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
        axes, unused = list(grid.flatten()[: len(surfaces)]), grid.flatten()[len(surfaces) :]
        for ax in unused:
            ax.set_visible(False)
        for ax, shown, (title, surface) in zip(axes, titles, surfaces, strict=True):
            loss = np.ma.masked_invalid(surface.loss)
            drawn = loss.clip(low).T
            ax.set_facecolor("0.85")
            ax.contourf(surface.alpha, surface.beta, drawn, levels, norm=norm, cmap=COLORMAP, extend="both")
            ax.contour(surface.alpha, surface.beta, drawn, levels, colors="w", linewidths=0.4, alpha=0.7)
            if title in paths:
                path = paths[title].coordinates
                ax.plot(path[:, 0], path[:, 1], "-o", color="k", lw=1, ms=2.5)
            if loss.count():
                i, j = np.unravel_index(loss.argmin(), loss.shape)
                ax.plot(
                    surface.alpha[i],
                    surface.beta[j],
                    "o",
                    mfc="none",
                    color="w",
                    ms=6,
                    mew=1.2,
                    clip_on=False,
                )
            ax.plot(0, 0, "+", color="red", ms=9, mew=1.8, clip_on=False)
            ax.set_title(f"{shown}\n{_center(surface)}")
            ax.set_xlabel("α")
            ax.set_aspect(_aspect(surfaces))
        # few ticks, whose number stays when the layout changes the size of panels
        for axis in (grid[0, 0].xaxis, grid[0, 0].yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        for ax in grid[:, 0]:
            ax.set_ylabel("β")
        _colorbar(figure, axes, norm, with_unit(loss_name, (surface for _, surface in surfaces)))
        walked = "Black: the training's path. " if paths else ""
        caption(
            figure,
            f"{about} Red cross: the trained model; white ring: lowest point of the grid. {walked}"
            f"{what_levels_say(surfaces, high)}{holes(surfaces)}{_axes(surfaces)}",
        )
    return figure


def relief(surfaces: Sequence[tuple[str, Surface]], *, loss_name: str, about: str) -> Figure:
    """Surfaces in three dimensions, on one scale of height and color.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: name of the loss, for the color bar.
        about: a sentence about data and seed, for the caption.
    """
    low, high = robust_range([surface.loss for _, surface in surfaces])
    norm, _ = loss_scale(low, high)
    with mpl.rc_context({**RC, "axes.grid": True}):
        rows, across = _rows_and_columns(len(surfaces))
        titles = [fitted(title, 2.7) for title, _ in surfaces]
        wrapped = 0.15 * max(title.count("\n") for title in titles)
        figure = new_figure(3.0 * across + 0.9, (3.3 + wrapped) * rows)
        # titles in three dimensions are moved up after the layout
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - wrapped / figure.get_figheight()))  # type: ignore[union-attr,call-arg]
        axes = [figure.add_subplot(rows, across, i + 1, projection="3d") for i in range(len(surfaces))]
        for ax, title, (_, surface) in zip(axes, titles, surfaces, strict=True):
            alpha, beta = np.meshgrid(surface.alpha, surface.beta, indexing="ij")
            height = height_of(surface.loss, low, high)
            # zero has no logarithm; it is drawn as the smallest loss
            colors = colormaps[COLORMAP](norm(np.ma.masked_invalid(surface.loss).clip(low, high)))
            ax.plot_surface(alpha, beta, height, facecolors=colors, rstride=1, cstride=1, lw=0, shade=False)
            ax.set_zlim(*height_of(np.array([low, high]), low, high))
            if low > 0:
                ax.zaxis.set_major_formatter(lambda exponent, _: loss_at(exponent, low, high))
            ax.set_title(title)
            ax.set_xlabel("α")
            ax.set_ylabel("β")
            ax.view_init(elev=28, azim=-60)
        _colorbar(figure, axes, norm, with_unit(loss_name, (surface for _, surface in surfaces)))
        scale = "logarithmic" if low > 0 else "linear"
        caption(
            figure,
            f"{about} Height: loss, {scale}. {what_levels_say(surfaces, high)}{holes(surfaces)}{_axes(surfaces)}",
        )
    return figure


def lines(series: Sequence[tuple[str, Sequence[tuple[str, Line]]]], *, about: str) -> Figure:
    """Loss and accuracy along one direction, with a column for each data set and a curve for each model.

    Args:
        series: (title of the column, [(title of the model, line)]) for each column.
        about: a sentence about data and seed, for the caption.

    Raises:
        ValueError: there is no line.
    """
    style = looks(title for _, models in series for title, _ in models)
    losses = [line.loss for _, models in series for _, line in models]
    if not losses:
        raise ValueError("series: holds no line")
    estimated = False
    with mpl.rc_context(RC):
        figure = new_figure(3.1 * len(series) + 0.4, 5.0)
        axes = figure.subplots(2, len(series), sharex=True, sharey="row", squeeze=False)
        for column, (title, models) in enumerate(series):
            for name, line in models:
                color, stroke = style[name]["color"], style[name]["linestyle"]
                axes[0, column].plot(
                    line.alpha, line.loss, stroke, color=color, label=legend_name(name), lw=1.4
                )
                axes[1, column].plot(line.alpha, line.accuracy, stroke, color=color, lw=1.4)
                if line.loss_error is not None:
                    estimated = True
                    band = line.loss - 2 * line.loss_error, line.loss + 2 * line.loss_error
                    axes[0, column].fill_between(line.alpha, *band, color=color, alpha=0.2, lw=0)
            axes[0, column].set_title(title)
            # all columns share one scale
            logarithmic(axes[0, column].yaxis, np.concatenate(losses))
            axes[1, column].yaxis.set_major_formatter(PercentFormatter(1.0))
            axes[1, column].set_xlabel("α")
        axes[0, 0].set_ylabel(with_unit("mean loss", (line for _, models in series for _, line in models)))
        axes[1, 0].set_ylabel("accuracy")
        legend_above(figure, axes[0])
        left_out = holes(each for _, models in series for each in models)
        bands = "Bands: two standard errors. " if estimated else ""
        caption(
            figure,
            f"{about} The trained model is at α = 0. {bands}{left_out}α: multiple of a direction "
            f"({_kinds(line.direction_kind for _, models in series for _, line in models)}).",
        )
    return figure


def _rows_and_columns(panels: int) -> tuple[int, int]:
    rows = -(-panels // MOST_ACROSS)
    return rows, -(-panels // rows)


def _center(surface: Surface) -> str:
    """Loss and accuracy of the model itself; no accuracy if targets are not classes."""
    loss = f"{surface.center_loss:.2f}" if abs(surface.center_loss) >= 0.1 else f"{surface.center_loss:.2g}"
    accuracy = surface.center_accuracy
    return f"center {loss}" + (f", accuracy {accuracy:.1%}" if np.isfinite(accuracy) else "")


def _aspect(surfaces: Sequence[tuple[str, Surface]]) -> Literal["auto", "equal"]:
    """Equal scales of both axes, unless a plane is so narrow that its panel would be a line."""
    width, height = (
        max(float(np.ptp(getattr(surface, axis))) for _, surface in surfaces) for axis in ("alpha", "beta")
    )
    return "equal" if max(width, height) <= NARROW * min(width, height) else "auto"


def _axes(surfaces: Sequence[tuple[str, Surface]]) -> str:
    return f"α, β: multiples of two directions ({_kinds(s.direction_kind for _, s in surfaces)})."


def _kinds(kinds: Iterable[str]) -> str:
    """How the directions were made. Older results do not store this; their directions were filter-normalized."""
    named = {"filter-normalized": "random, filter-normalized, the same draw for all"}
    return "; ".join(dict.fromkeys(named.get(kind, kind) for kind in kinds))


def _colorbar(figure: Figure, axes: Sequence[object], norm: Normalize, name: str) -> None:
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=list(axes), shrink=0.85, pad=0.02, extend="both")  # type: ignore[arg-type]
    bar.set_label(name)
    logarithmic(bar.ax.yaxis, np.array([norm.vmin, norm.vmax], dtype=np.float64))
