"""The figure of sharpness against clean test accuracy: are flatter models better?"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures.style import (
    RC,
    caption,
    data_of,
    legend_above,
    legend_name,
    logarithmic,
    looks,
    new_figure,
    wrong_labels,
)

MEASURES = (
    ("sharpness_observed", "worst-case sharpness,\nobserved labels (nat)"),
    ("top_eigenvalue_observed", "largest Hessian eigenvalue,\nobserved labels"),
    ("sharpness_clean", "worst-case sharpness,\ntrue labels (nat)"),
)


def sharpness_accuracy(runs: pd.DataFrame, *, measures: Sequence[tuple[str, str]] = MEASURES) -> Figure:
    """A point for each run, with a column for each noise rate and a row for each measure.

    Args:
        runs: one row for each run: `method`, `noise_rate`, `seed`, `test_accuracy` and the measures.
        measures: (column, words) of each row.
    """
    rates = sorted(runs["noise_rate"].unique())
    style = looks(runs["method"])
    with mpl.rc_context(RC):
        figure = new_figure(max(2.5 * len(rates) + 0.6, 6.0), 2.3 * len(measures) + 0.6)
        axes = figure.subplots(len(measures), len(rates), squeeze=False, sharex="row")
        for column, rate in enumerate(rates):
            of_rate = runs[runs["noise_rate"] == rate]
            for row, (measure, label) in enumerate(measures):
                ax = axes[row, column]
                for method, points in of_rate.groupby("method", sort=False):
                    look = style[str(method)]
                    ax.scatter(
                        points[measure],
                        points["test_accuracy"],
                        color=look["color"],
                        marker=look["marker"],
                        # an outline distinguishes methods that share color and marker
                        edgecolors="none" if look["linestyle"] == "-" else "black",
                        label=legend_name(str(method)),
                        s=28,
                    )
                logarithmic(ax.xaxis, runs[measure])
                ax.yaxis.set_major_formatter(PercentFormatter(1.0))
                ax.set_xlabel(label)
                if column == 0:
                    ax.set_ylabel("accuracy on clean test data")
            axes[0, column].set_title(wrong_labels(rate))
        legend_above(figure, axes[0])
        caption(
            figure,
            f"{data_of(runs)} a method: one point a run at its last epoch. If flatter were better, "
            "points would fall from left to right. Vertical scales differ."
            f"{_missing(runs, measures)}",
        )
    return figure


def _missing(runs: pd.DataFrame, measures: Sequence[tuple[str, str]]) -> str:
    drawn = ["test_accuracy", *(measure for measure, _ in measures)]
    count = int((~np.isfinite(runs[drawn].to_numpy(dtype=np.float64))).any(axis=1).sum())
    return f" {count} of {len(runs)} runs lack a number and are left out where they do." if count else ""
