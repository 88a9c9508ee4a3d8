"""Spectral densities on a logarithmic scale, one panel a model, with a tick for each outlier."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from figures import style as style_sheet
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import SpectralDensity

HEIGHT = 0.85
"""Inches of a panel."""
LEAST = 0.1
"""Eigenvalues within the width of smoothing: what is less is below the panel."""


def spectral_densities(
    densities: Titled[SpectralDensity],
    *,
    matrix_name: str,
    about: str,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """The logarithm of each model's spectral density, as Ghorbani et al. (2019) draw it, on one scale.

    The share of eigenvalues per unit of the axis, smoothed by a Gaussian; eigenvalues that were found one by one are
    ticks. `figures.spectra` counts the same eigenvalues without smoothing.

    Args:
        densities: (title, density) of each model.
        matrix_name: which matrix of which loss.
        about: which data and seed, for the caption.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no density is finite.
    """
    finite = [(title, density) for title, density in densities if np.isfinite(density.density).all()]
    if not finite:
        raise ValueError("densities: none is finite")
    undefined = [title for title, density in densities if not np.isfinite(density.density).all()]
    # of the density of one eigenvalue, smoothed
    floor = min(LEAST / (2.5 * d.smoothing * d.dimension) for _, d in finite)
    with style_sheet.drawing(style, **{"axes.grid": False}):
        look = style_sheet.looks(title for title, _ in densities)
        figure = style_sheet.new_figure(width, HEIGHT * len(finite) + 0.6)
        panels = figure.subplots(len(finite), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, (title, density) in zip(panels, finite, strict=True):
            _draw(ax, density, look[title]["color"], floor)
            largest = max([*density.outliers, float(density.nodes.max(initial=-np.inf))])
            words = f"{title}\nlargest {largest:.3g}, {len(density.outliers)} outliers"
            ax.text(
                0.995,
                0.93,
                style_sheet.fitted(words, 0.55 * width),
                transform=ax.transAxes,
                ha="right",
                va="top",
            )
        panels[0].set_ylim(floor, 3 * max(float(density.density.max()) for _, density in finite))
        panels[0].yaxis.set_major_locator(LogLocator(numticks=4))
        style_sheet.few_ticks(panels[0].xaxis, 8)
        panels[0].set_title(style_sheet.fitted(matrix_name, width - 0.6))
        panels[-1].set_xlabel("eigenvalue")
        figure.supylabel("density", fontsize="medium")
        missing = f" Not finite: {', '.join(undefined)}." if undefined else ""
        style_sheet.finish(
            figure,
            style,
            f"{about} Share of eigenvalues per unit of the axis, smoothed; darker: two standard errors over the "
            f"probes; ticks: eigenvalues found one by one.{missing}",
        )
    return figure


def _draw(ax: Axes, density: SpectralDensity, color: str, floor: float) -> None:
    at, error = density.eigenvalue, 2 * density.density_error
    ax.set_yscale("log")
    ax.fill_between(at, floor, density.density.clip(floor), color=color, alpha=0.25, lw=0)
    ax.fill_between(
        at,
        (density.density - error).clip(floor),
        (density.density + error).clip(floor),
        color=color,
        alpha=0.5,
        lw=0,
    )
    ax.plot(at, np.maximum(density.density, floor), color=color, lw=1)
    ax.vlines(density.outliers, 0, 0.3, color=color, lw=1, transform=ax.get_xaxis_transform())
