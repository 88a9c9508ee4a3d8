"""The figure of curvature and sharpness at the end of training against the noise rate."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.style import (
    RC,
    caption,
    data_of,
    legend_above,
    legend_name,
    logarithmic,
    looks,
    new_figure,
)
from landscape.results.wording import percent

QUANTITIES = (
    ("top_eigenvalue", "largest Hessian eigenvalue"),
    ("trace", "Hessian trace"),
    ("sharpness", "worst-case sharpness (nat)"),
)
LOSSES = (
    ("observed", "training loss with observed labels"),
    ("clean", "training loss with true labels"),
)


def curvature(runs: pd.DataFrame) -> Figure:
    """Top eigenvalue, trace and worst-case sharpness against the noise rate, for the losses of both labels.

    Args:
        runs: one row for each run: `method`, `noise_rate`, `seed`, and `<quantity>_<loss>`, with the residual of the
            eigenvalue and the standard error of the trace.
    """
    # infinite values have no mean
    runs = runs.replace([np.inf, -np.inf], np.nan)
    style = looks(runs["method"])
    rates = np.sort(runs["noise_rate"].unique())
    # half of the distance to the next rate stays free
    shift = min(0.08, 0.5 / len(style)) * (np.diff(rates).min() if len(rates) > 1 else 0.1)
    with mpl.rc_context(RC):
        figure = new_figure(9.6, 5.6)
        axes = figure.subplots(2, 3, sharex=True, sharey="col")
        for row, (loss, loss_label) in enumerate(LOSSES):
            for column, (quantity, label) in enumerate(QUANTITIES):
                ax = axes[row, column]
                for index, (method, of_method) in enumerate(runs.groupby("method", sort=False)):
                    by_rate = of_method.groupby("noise_rate")[f"{quantity}_{loss}"]
                    mean = by_rate.mean()
                    # the mean of equal values may differ from them by rounding
                    spread = [(mean - by_rate.min()).clip(lower=0), (by_rate.max() - mean).clip(lower=0)]
                    at = mean.index.to_numpy() + (index - (len(style) - 1) / 2) * shift
                    look, name = style[str(method)], legend_name(str(method))
                    ax.errorbar(at, mean, spread, **look, label=name, ms=4, lw=1.2, capsize=2)
                # both rows have one scale
                logarithmic(ax.yaxis, runs[[f"{quantity}_{each}" for each, _ in LOSSES]])
                ax.set_xticks(rates, labels=map(percent, rates))
                if row == 0:
                    ax.set_title(label)
                if row == 1:
                    ax.set_xlabel("wrong labels in training")
                if column == 0:
                    ax.set_ylabel(loss_label)
        legend_above(figure, axes.flat)
        rho = runs["sharpness_rho_observed"].dropna().unique()
        radius = f"; sharpness: largest rise found within l2 radius {rho[0]:g}" if len(rho) == 1 else ""
        caption(
            figure,
            f"{data_of(runs)}: mean over seeds, bars from smallest to largest; points are shifted sideways to "
            f"be told apart. {_missing(runs)}{_errors(runs)}{radius}.",
        )
    return figure


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
