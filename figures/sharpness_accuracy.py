"""The figure of sharpness against clean test accuracy: are flatter models better?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import Grid, panel_grid
from figures.style import PLAIN, TWO_COLUMNS, Style

MEASURES = (
    ("sharpness_observed", "worst-case sharpness, observed labels (nat)"),
    ("top_eigenvalue_observed", "largest eigenvalue, observed labels"),
    ("sharpness_clean", "worst-case sharpness, true labels (nat)"),
)


FEWEST = 3
"""Methods whose order can be compared."""


def sharpness_accuracy(
    runs: pd.DataFrame,
    *,
    measures: Sequence[tuple[str, str]] = MEASURES,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """One point a run, a column for each noise rate, a row for each measure; Kendall's tau in each panel.

    Args:
        runs: one row for each run: `method`, `noise_rate`, `seed`, `test_accuracy` and the measures.
        measures: (column, words) of each row.
        width: of the figure in inches; a narrow figure has one row for each noise rate.
        style: how text is written.
    """
    rates = sorted(runs["noise_rate"].unique())
    with style_sheet.drawing(style):
        look = style_sheet.looks(runs["method"])
        figure = style_sheet.new_figure(width, 2.0)
        grid = panel_grid(figure, len(measures), len(rates), 1.9, share_x=False, share_y=False)
        for column, rate in enumerate(rates):
            of_rate = runs[runs["noise_rate"] == rate]
            for row, (measure, _) in enumerate(measures):
                ax = grid.axes[row, column]
                _draw(ax, of_rate, measure, look)
                if column:
                    ax.sharex(grid.axes[row, 0])
                if row:
                    ax.sharey(grid.axes[0, column])
                style_sheet.logarithmic(ax.xaxis, runs[measure], most=4)
                style_sheet.few_ticks(ax.yaxis, 4)
                ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
                words = [style_sheet.wrong_labels(rate)] if row == 0 and not grid.is_turned else []
                ax.set_title(grid.fitted("\n".join([*words, _tau(of_rate, measure)])))
        _label(grid, [words for _, words in measures], [style_sheet.wrong_labels(rate) for rate in rates])
        style_sheet.legend_above(figure, grid.axes[0])
        style_sheet.finish(
            figure,
            style,
            f"{style_sheet.data_of(runs)} a method: one point a run at its last epoch. If flatter were better, "
            "points would fall from left to right, and Kendall's tau of the methods' means would be -1; its p is of "
            "one panel alone. "
            f"Vertical scales differ.{_missing(runs, measures)}",
        )
    return figure


def _label(grid: Grid, measures: Sequence[str], rates: Sequence[str]) -> None:
    """Measures below the panels, accuracy at their left, with the noise rate where rates are below one another."""
    for row, measure in enumerate(measures):
        for ax in grid.axes[row, -1:] if grid.is_turned else grid.axes[row]:
            ax.set_xlabel(grid.fitted(measure))
        for ax in grid.axes[row, :-1] if grid.is_turned else ():
            ax.tick_params(labelbottom=False)
        for ax in grid.axes[row] if grid.is_turned and row else ():
            ax.tick_params(labelleft=False)
    for column, rate in enumerate(rates):
        if grid.is_turned:
            grid.axes[0, column].set_ylabel(f"test accuracy,\n{rate}")
    for ax in () if grid.is_turned else grid.axes[:, 0]:
        ax.set_ylabel("test accuracy")


def _draw(ax: Axes, runs: pd.DataFrame, measure: str, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for method, points in runs.groupby("method", sort=False):
        look = looks[str(method)]
        ax.scatter(
            points[measure],
            points["test_accuracy"],
            color=look["color"],
            marker=look["marker"],
            label=style_sheet.legend_name(str(method)),
            s=18,
        )


def _tau(runs: pd.DataFrame, measure: str) -> str:
    """Kendall's tau of measure and accuracy, each the mean of a method's runs, with its p and their number."""
    means = (
        runs.replace([np.inf, -np.inf], np.nan).groupby("method")[[measure, "test_accuracy"]].mean().dropna()
    )
    if len(means) < FEWEST:
        return ""
    found = scipy.stats.kendalltau(means[measure], means["test_accuracy"])
    defined = np.isfinite(found.statistic) and np.isfinite(found.pvalue)
    return f"τ = {found.statistic:+.2f}, p = {found.pvalue:.2g}\n{len(means)} methods" if defined else ""


def _missing(runs: pd.DataFrame, measures: Sequence[tuple[str, str]]) -> str:
    drawn = ["test_accuracy", *(measure for measure, _ in measures)]
    count = int((~np.isfinite(runs[drawn].to_numpy(dtype=np.float64))).any(axis=1).sum())
    return f" {count} of {len(runs)} runs lack a number and are left out where they do." if count else ""
