"""Spectra of several models on one scale, as counts of eigenvalues, which need no smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from figures import style as style_sheet
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import SpectralDensity

LINTHRESH = 0.02
"""Share of the largest eigenvalue: the axis is linear below it and logarithmic above."""


def spectra(
    densities: Titled[SpectralDensity],
    *,
    matrix_name: str,
    about: str,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """The cumulative count of eigenvalues above and below each value, with its band, and the outliers.

    Thousands of eigenvalues lie near zero, and a few lie far from zero. A density shows only one of the two groups. The
    number of eigenvalues beyond a value shows both, and needs no smoothing.

    Args:
        densities: (title, density) of each model.
        matrix_name: which matrix of which loss.
        about: which data and seed, for the caption.
        width: of the figure in inches.
        style: how text is written.
    """
    undefined = [title for title, density in densities if not np.isfinite(density.nodes).all()]
    densities = [pair for pair in densities if pair[0] not in undefined]
    low = min((min(d.nodes.min(initial=0), d.outliers.min(initial=0)) for _, d in densities), default=0)
    high = max((max(d.nodes.max(initial=0), d.outliers.max(initial=0)) for _, d in densities), default=0)
    with style_sheet.drawing(style):
        look = style_sheet.looks([title for title, _ in densities] + undefined)
        figure = style_sheet.new_figure(width, min(3.6, 0.85 * width) + 0.4)
        ax = figure.subplots()
        for title, density in densities:
            _draw(ax, title, density, look[title])
        inner = _round(max(LINTHRESH * max(high, -low), 1e-12))
        ax.set_xscale("symlog", linthresh=inner, linscale=0.7)
        decades = 10.0 ** np.arange(np.floor(np.log10(inner)), np.log10(max(high, -low, 10 * inner)) + 1)
        beyond = [float(decade) for decade in decades if decade > 2 * inner]
        ax.xaxis.set_major_locator(FixedLocator([*(-each for each in beyond), -inner, 0, inner, *beyond]))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_yscale("log")
        ax.set_ylim(0.7, 1.5 * max((d.dimension for _, d in densities), default=1))
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("eigenvalues further from zero")
        ax.set_title(style_sheet.fitted(matrix_name, width - 0.6))
        style_sheet.legend_above(figure, [ax])
        probes = max((len(d.nodes) for _, d in densities), default=0)
        missing = f" Not finite: {', '.join(undefined)}." if undefined else ""
        style_sheet.finish(
            figure,
            style,
            f"{about} Points: eigenvalues found one by one. Lines: the rest, by Lanczos quadrature; bands: two "
            f"standard errors over {probes} probes. Logarithmic beyond the inner ticks.{missing}",
        )
    return figure


def _round(value: float) -> float:
    """1, 2 or 5 times a power of ten, at most the value."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9)))


def _draw(ax: Axes, title: str, density: SpectralDensity, look: Mapping[str, Any]) -> None:
    """The stairs of the negative and of the other eigenvalues, each with its band and its outliers."""
    values, count, error = _staircase(density)
    color, marker, stroke = look["color"], look["marker"], look["linestyle"]
    for side in (values < 0, values >= 0):
        # between two values there are as many beyond as at the one further out
        steps: Literal["pre", "post"] = "pre" if side[-1] else "post"
        ax.step(values[side], count[side], stroke, where=steps, color=color, lw=1.2)
        ax.fill_between(
            values[side],
            np.maximum(count - 2 * error, 0.3)[side],
            np.maximum(count + 2 * error, 0.3)[side],
            color=color,
            step=steps,
            alpha=0.2,
            lw=0,
        )
    positive = np.sort(density.outliers[density.outliers > 0])[::-1]
    negative = np.sort(density.outliers[density.outliers < 0])
    for outliers in (positive, negative):
        ax.plot(outliers, np.arange(1, len(outliers) + 1), marker, color=color, ms=3.5)
    # of the line and the marks in one
    ax.plot(
        [],
        [],
        color=color,
        marker=marker,
        linestyle=stroke,
        ms=3.5,
        lw=1.2,
        label=style_sheet.legend_name(title),
    )


def _staircase(density: SpectralDensity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each node and outlier, the number of eigenvalues there or further from zero, and its standard error."""
    values = np.unique(np.concatenate([density.nodes.ravel(), density.outliers, [0.0]]))
    side = np.where(values < 0, -1, 1)

    def further(points: np.ndarray) -> np.ndarray:
        return side[:, None] * points >= (side * values)[:, None]

    per_probe = np.array(
        [
            (further(nodes) * weights).sum(1)
            for nodes, weights in zip(density.nodes, density.weights, strict=True)
        ]
    )
    rest = density.dimension - len(density.outliers)
    count = rest * per_probe.mean(0) + further(density.outliers).sum(1)
    return values, count, rest * per_probe.std(0, ddof=1) / np.sqrt(len(per_probe))
