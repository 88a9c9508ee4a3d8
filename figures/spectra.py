"""The figure of spectra of several models on one scale, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from figures.style import RC, caption, legend_above, legend_name, looks, new_figure
from landscape import SpectralDensity

LINTHRESH = 0.02
"""Share of the largest eigenvalue: the axis is linear below it and logarithmic above."""


def spectra(densities: Sequence[tuple[str, SpectralDensity]], *, matrix_name: str, about: str) -> Figure:
    """The cumulative count of eigenvalues above and below each value, with its band, and the outliers.

    Thousands of eigenvalues lie near zero, and a few lie far from zero. A density shows only one of the two groups. The
    number of eigenvalues beyond a value shows both, and needs no smoothing.

    Args:
        densities: (title, density) of each model.
        matrix_name: name of the matrix and its loss.
        about: a sentence about data and seed, for the caption.
    """
    style = looks(title for title, _ in densities)
    undefined = [title for title, density in densities if not np.isfinite(density.nodes).all()]
    densities = [pair for pair in densities if pair[0] not in undefined]
    low = min((min(d.nodes.min(initial=0), d.outliers.min(initial=0)) for _, d in densities), default=0)
    high = max((max(d.nodes.max(initial=0), d.outliers.max(initial=0)) for _, d in densities), default=0)
    with mpl.rc_context(RC):
        figure = new_figure(7.2, 4.2)
        ax = figure.subplots()
        for title, density in densities:
            values, count, error = _staircase(density)
            color, marker, stroke = (style[title][part] for part in ("color", "marker", "linestyle"))
            for side in (values < 0, values >= 0):
                label = legend_name(title) if side[-1] else None
                # between two values the count is that of the value further from zero
                steps: Literal["pre", "post"] = "pre" if side[-1] else "post"
                ax.step(values[side], count[side], stroke, where=steps, color=color, lw=1.3, label=label)
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
                ax.plot(outliers, np.arange(1, len(outliers) + 1), marker, color=color, ms=4)
        ax.set_xscale("symlog", linthresh=max(LINTHRESH * max(high, -low), 1e-12), linscale=0.7)
        ax.set_yscale("log")
        ax.set_ylim(0.7, 1.5 * max((d.dimension for _, d in densities), default=1))
        ax.axvline(0, color="0.5", lw=0.8)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("eigenvalues further from zero")
        ax.set_title(matrix_name)
        legend_above(figure, [ax])
        probes = max((len(d.nodes) for _, d in densities), default=0)
        missing = f" Not finite: {', '.join(undefined)}." if undefined else ""
        caption(
            figure,
            f"{about} Points: eigenvalues found one by one. Lines: the rest, by Lanczos quadrature; bands: two "
            f"standard errors over {probes} probes. Logarithmic beyond the inner ticks.{missing}",
        )
    return figure


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
