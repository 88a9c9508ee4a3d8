"""Sharpness and curvature over the epochs, for the loss with observed and the loss with true labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import mean_over_seeds, panel_grid
from figures.style import LOSSES, PLAIN, TWO_COLUMNS, Style

EIGENVALUE = "probe_top_eigenvalue"
QUANTITIES = (
    (EIGENVALUE, "largest Hessian eigenvalue"),
    ("probe_trace", "Hessian trace"),
    ("probe_sharpness", "worst-case sharpness (nat)"),
)


def sharpness_over_epochs(
    histories: pd.DataFrame,
    noise_rate: float,
    *,
    momentum: float | None = 0.0,
    weight_decay: float = 0.0,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """What a study's probes measured while it trained: a row a quantity, a column for each loss.

    The largest eigenvalue has a dashed line at the edge of stability, 2 (1 + momentum) / learning rate less the weight
    decay, beyond which gradient descent is unstable (Cohen et al. 2021); small batches move that edge.

    Args:
        histories: one row an epoch: `method`, `noise_rate`, `seed`, `epoch`, `learning_rate`, and
            `probe_<quantity>_<loss>`, which are NaN in epochs without a probe.
        noise_rate: whose runs.
        momentum: heavy-ball momentum of the training; None for an optimizer without such an edge, and then no line.
        weight_decay: of the training, part of each gradient.
        width: of the figure in inches.
        style: how text is written.

    Raises:
        ValueError: no run of that noise rate has a probe.
    """
    runs = histories[histories["noise_rate"] == noise_rate].replace([np.inf, -np.inf], np.nan)
    measured = [pair for pair in QUANTITIES if _columns(runs, pair[0])]
    if not measured:
        raise ValueError(f"histories: no probe at noise rate {noise_rate:g}; give [training] probe_epochs")
    with style_sheet.drawing(style):
        look = style_sheet.looks(runs["method"])
        figure = style_sheet.new_figure(width, 4.0)
        grid = panel_grid(figure, len(measured), len(LOSSES), 1.9)
        for row, (quantity, _) in enumerate(measured):
            for ax, (loss, _) in zip(grid.axes[row], LOSSES, strict=True):
                for method, of_method in runs.groupby("method", sort=False):
                    _curve(ax, of_method, f"{quantity}_{loss}", str(method), look)
                style_sheet.logarithmic(ax.yaxis, runs[_columns(runs, quantity)])
                style_sheet.few_ticks(ax.xaxis, 5, integer=True)
                if quantity == EIGENVALUE and momentum is not None:
                    _stability(ax, runs, momentum, weight_decay)
        losses = [f"{words}, {style_sheet.wrong_labels(noise_rate)}" for _, words in LOSSES]
        grid.label([words for _, words in measured], [words.replace(", ", "\n") for words in losses], "epoch")
        style_sheet.legend_above(figure, grid.axes.flat)
        style_sheet.finish(
            figure,
            style,
            f"{style_sheet.data_of(runs)}: line: mean over seeds; band: smallest to largest; the same training samples "
            f"for all. {_what_the_edge_says(momentum, weight_decay) if measured[0][0] == EIGENVALUE else ''}"
            f"{_missing(runs, measured)}",
        )
    return figure


def _columns(runs: pd.DataFrame, quantity: str) -> list[str]:
    """The columns of a quantity that hold a number."""
    names = [f"{quantity}_{loss}" for loss, _ in LOSSES]
    return [name for name in names if name in runs and runs[name].notna().any()]


def _curve(
    ax: Axes, runs: pd.DataFrame, column: str, method: str, looks: Mapping[str, Mapping[str, Any]]
) -> None:
    if column not in runs:
        return
    by_epoch = runs.dropna(subset=[column]).groupby("epoch")[column]
    mean_over_seeds(ax, by_epoch, method, looks)


def _what_the_edge_says(momentum: float | None, weight_decay: float) -> str:
    if momentum is None:
        return ""
    edge = f"2 (1 + {momentum:g}) / learning rate" if momentum else "2 / learning rate"
    edge += f" - {weight_decay:g}" if weight_decay else ""
    return f"Beyond the dashed line, {edge}, gradient descent is unstable; small batches move that edge. "


def _stability(ax: Axes, runs: pd.DataFrame, momentum: float, weight_decay: float) -> None:
    """The edge of stability of each epoch, where it is within sight of the eigenvalues."""
    rate = runs.groupby("epoch")["learning_rate"].mean()
    low, high = ax.get_ylim()
    bound = 2 * (1 + momentum) / rate[rate > 0] - weight_decay
    ax.plot(bound.index, bound, color="0.4", lw=1, ls=(0, (6, 2)), label="edge of stability")
    # at the end of a schedule the bound grows without limit
    ax.set_ylim(low, max(high, min(1.3 * float(bound.min()), 30 * high)))


def _missing(runs: pd.DataFrame, measured: list[tuple[str, str]]) -> str:
    columns = [column for quantity, _ in measured for column in _columns(runs, quantity)]
    probed = runs[runs[columns].notna().any(axis=1)]
    count = int(probed[columns].isna().any(axis=1).sum())
    return f"{count} of {len(probed)} looks lack a number, which the mean leaves out." if count else ""
