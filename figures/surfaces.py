"""Loss surfaces of several models side by side, and lines through them, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures.style import RC, caption, logarithmic, looks, new_figure
from landscape import Line, Surface

LEVELS = 21
COLORMAP = "viridis"


def contours(surfaces: Sequence[tuple[str, Surface]], *, loss_name: str, about: str) -> Figure:
    """Contours of the loss, one panel a model, the model marked at the centre.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: what the loss is, for the colour bar.
        about: which data and seed, for the caption.
    """
    low, high = _range(surfaces)
    norm = LogNorm(low, high)
    levels = np.geomspace(low, high, LEVELS)
    with mpl.rc_context({**RC, "axes.grid": False}):
        figure = new_figure(2.4 * len(surfaces) + 0.9, 3.25, layout="compressed")
        axes = figure.subplots(1, len(surfaces), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (title, surface) in zip(axes, surfaces, strict=True):
            loss = np.ma.masked_invalid(surface.loss)
            ax.set_facecolor("0.85")
            ax.contourf(surface.alpha, surface.beta, loss.T, levels, norm=norm, cmap=COLORMAP, extend="both")
            ax.contour(surface.alpha, surface.beta, loss.T, levels, colors="w", linewidths=0.4, alpha=0.7)
            ax.plot(0, 0, "+", color="red", ms=9, mew=1.8)
            ax.set_title(f"{title}\ncentre {surface.center_loss:.2f}, accuracy {surface.center_accuracy:.1%}")
            ax.set_xlabel("α")
            ax.set_aspect("equal")
        axes[0].set_ylabel("β")
        _colorbar(figure, axes, norm, loss_name)
        caption(figure, f"{about} Red cross: the trained model. {_holes(surfaces)}{_AXES}")
    return figure


def relief(surfaces: Sequence[tuple[str, Surface]], *, loss_name: str, about: str) -> Figure:
    """The same surfaces in three dimensions, on one scale of height and colour.

    Args:
        surfaces: (title, surface) of each model.
        loss_name: what the loss is, for the colour bar.
        about: which data and seed, for the caption.
    """
    low, high = _range(surfaces)
    norm = LogNorm(low, high)
    with mpl.rc_context({**RC, "axes.grid": True}):
        figure = new_figure(3.0 * len(surfaces) + 0.9, 3.3)
        axes = [figure.add_subplot(1, len(surfaces), i + 1, projection="3d") for i in range(len(surfaces))]
        for ax, (title, surface) in zip(axes, surfaces, strict=True):
            alpha, beta = np.meshgrid(surface.alpha, surface.beta, indexing="ij")
            height = np.log10(np.where(np.isfinite(surface.loss), surface.loss, np.nan).clip(low))
            colors = colormaps[COLORMAP](norm(surface.loss))
            ax.plot_surface(alpha, beta, height, facecolors=colors, rstride=1, cstride=1, lw=0, shade=False)
            ax.set_zlim(np.log10(low), np.log10(high))
            ax.zaxis.set_major_formatter(lambda exponent, _: f"{10**exponent:.2g}")
            ax.set_title(title)
            ax.set_xlabel("α")
            ax.set_ylabel("β")
            ax.view_init(elev=28, azim=-60)
        _colorbar(figure, axes, norm, loss_name)
        caption(figure, f"{about} Height: loss, logarithmic. {_holes(surfaces)}{_AXES}")
    return figure


def lines(series: Sequence[tuple[str, Sequence[tuple[str, Line]]]], *, about: str) -> Figure:
    """Loss and accuracy along one direction, one column for each data set, one curve a model.

    Args:
        series: (column title, [(model's title, line)]) of each column.
        about: which data and seed, for the caption.
    """
    style = looks(title for _, models in series for title, _ in models)
    with mpl.rc_context(RC):
        figure = new_figure(3.1 * len(series) + 0.4, 5.0)
        axes = figure.subplots(2, len(series), sharex=True, sharey="row", squeeze=False)
        for column, (title, models) in enumerate(series):
            for name, line in models:
                color = style[name]["color"]
                axes[0, column].plot(line.alpha, line.loss, color=color, label=name, lw=1.4)
                axes[1, column].plot(line.alpha, line.accuracy, color=color, lw=1.4)
            axes[0, column].set_title(title)
            logarithmic(axes[0, column].yaxis, np.concatenate([line.loss for _, line in models]))
            axes[1, column].yaxis.set_major_formatter(PercentFormatter(1.0))
            axes[1, column].set_xlabel("α")
        axes[0, 0].set_ylabel("mean loss (nat)")
        axes[1, 0].set_ylabel("accuracy")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        caption(
            figure,
            f"{about} The trained model is at α = 0; α: multiple of a filter-normalised random direction, the "
            "same draw for all models.",
        )
    return figure


_AXES = "α, β: multiples of two filter-normalised random directions, the same draw for all models."


def _range(surfaces: Sequence[tuple[str, Surface]]) -> tuple[float, float]:
    """Smallest and largest finite positive loss of all surfaces."""
    values = np.concatenate([surface.loss.ravel() for _, surface in surfaces])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise ValueError("surfaces: no point has a finite, positive loss")
    return float(values.min()), float(max(values.max(), values.min() * 1.01))


def _holes(surfaces: Sequence[tuple[str, Surface]]) -> str:
    count = sum(int((~np.isfinite(surface.loss)).sum()) for _, surface in surfaces)
    return f"{count} points without a finite loss are left grey. " if count else ""


def _colorbar(figure: Figure, axes: Sequence[object], norm: LogNorm, name: str) -> None:
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=list(axes), shrink=0.85, pad=0.02)  # type: ignore[arg-type]
    bar.set_label(f"{name} (nat)")
    logarithmic(bar.ax.yaxis, np.array([norm.vmin, norm.vmax], dtype=np.float64))
