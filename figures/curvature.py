"""The figure of curvature and sharpness at the end of training against the noise rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import panel_grid
from figures.style import LOSSES, PLAIN, TWO_COLUMNS, Style
from landscape.results.wording import percent

QUANTITIES = (
    ("top_eigenvalue", "largest Hessian eigenvalue"),
    ("trace", "Hessian trace"),
    ("sharpness", "worst-case sharpness (nat)"),
)


def curvature(runs: pd.DataFrame, *, width: float = TWO_COLUMNS, style: Style = PLAIN) -> Figure:
    """Top eigenvalue, trace and worst-case sharpness against the noise rate, for both labels' loss.

    Args:
        runs: one row a run: `method`, `noise_rate`, `seed`, and `<quantity>_<loss>`, with the eigenvalue's
            residual and the trace's standard error beside them.
        width: of the figure in inches; a narrow figure has one row for each quantity.
        style: how text is written.
    """
    # infinite values have no mean
    runs = runs.replace([np.inf, -np.inf], np.nan)
    rates = np.sort(runs["noise_rate"].unique())
    with style_sheet.drawing(style):
        look = style_sheet.looks(runs["method"])
        figure = style_sheet.new_figure(width, 5.6)
        grid = panel_grid(figure, len(LOSSES), len(QUANTITIES), 2.0, share_y=False)
        for column, (quantity, _) in enumerate(QUANTITIES):
            above, below = grid.axes[:, column]
            below.sharey(above)
            for ax, (loss, _) in zip((above, below), LOSSES, strict=True):
                _draw(ax, runs, f"{quantity}_{loss}", look)
                # both losses have one scale
                style_sheet.logarithmic(ax.yaxis, runs[[f"{quantity}_{each}" for each, _ in LOSSES]])
                ax.set_xticks(rates, labels=map(percent, rates))
        names = [label for _, label in QUANTITIES]
        grid.label([f"cross-entropy,\n{label}" for _, label in LOSSES], names, "wrong labels in training")
        style_sheet.legend_above(figure, grid.axes.flat)
        rho = runs["sharpness_rho_observed"].dropna().unique()
        radius = f"; sharpness: largest rise found within l2 radius {rho[0]:g}" if len(rho) == 1 else ""
        style_sheet.finish(
            figure,
            style,
            f"{style_sheet.data_of(runs)}: mean over seeds, bars from smallest to largest; points are shifted sideways "
            f"to be told apart. {_missing(runs)}{_errors(runs)}{radius}.",
        )
    return figure


def _draw(ax: Axes, runs: pd.DataFrame, column: str, looks: Mapping[str, Mapping[str, Any]]) -> None:
    rates = np.sort(runs["noise_rate"].unique())
    # half the way to the next rate is left free
    shift = min(0.08, 0.5 / len(looks)) * (np.diff(rates).min() if len(rates) > 1 else 0.1)
    for index, (method, of_method) in enumerate(runs.groupby("method", sort=False)):
        by_rate = of_method.groupby("noise_rate")[column]
        mean = by_rate.mean()
        # the mean of equal values may be a rounding beside them
        spread = [(mean - by_rate.min()).clip(lower=0), (by_rate.max() - mean).clip(lower=0)]
        at = mean.index.to_numpy() + (index - (len(looks) - 1) / 2) * shift
        name = style_sheet.legend_name(str(method))
        ax.errorbar(at, mean, spread, **looks[str(method)], label=name, ms=3.5, lw=1.2, capsize=2)


def _missing(runs: pd.DataFrame) -> str:
    drawn = [f"{quantity}_{loss}" for quantity, _ in QUANTITIES for loss, _ in LOSSES]
    count = int(runs[drawn].isna().any(axis=1).sum())
    return f"{count} of {len(runs)} runs lack a value and are left out of its mean. " if count else ""


def _errors(runs: pd.DataFrame) -> str:
    eigenvalue, trace = (
        pd.concat([runs[f"{error}_{loss}"] / runs[f"{quantity}_{loss}"] for loss, _ in LOSSES]).abs().max()
        for quantity, error in (
            ("top_eigenvalue", "top_eigenvalue_residual"),
            ("trace", "trace_standard_error"),
        )
    )
    return (
        f"Largest relative error: eigenvalue {eigenvalue:.1%} (residual), trace {trace:.1%} (standard error)"
    )
