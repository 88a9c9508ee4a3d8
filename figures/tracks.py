"""The metrics of a tracker along a training, one panel for each metric."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import rows_and_columns
from figures.style import PLAIN, TWO_COLUMNS, Style
from landscape import Track

BESIDE = ("_residual", "_converged", "_products", "_passes", "_low", "_high", "_error")
"""Endings of metrics that are the error or the cost of another metric."""
WIDE = 5.0
"""A metric has a logarithmic axis if its largest number is more than this multiple of the smallest."""
NARROWEST = 1.6
"""Inches of a panel."""


def tracks(track: Track, *, about: str = "", width: float = TWO_COLUMNS, style: Style = PLAIN) -> Figure:
    """All metrics over the optimizer's steps, a curve for each objective.

    Bands are intervals, for metrics that have them (`trace_low`, `trace_high`). Marks are looks that did not converge.

    Args:
        track: the track of a `landscape.Tracker`.
        about: the training, for the caption.
        width: of the figure in inches; panels go into as many rows as that takes.
        style: how text is written.

    Raises:
        ValueError: the track holds no number.
    """
    shown = [
        str(name)
        for column, name in enumerate(track.metric)
        if not _is_beside(str(name)) and np.isfinite(track.values[:, :, column]).any()
    ]
    if not shown:
        raise ValueError("track: holds no number yet")
    with style_sheet.drawing(style):
        look = style_sheet.looks(map(str, track.objective))
        down, across = rows_and_columns(len(shown), width, NARROWEST)
        figure = style_sheet.new_figure(width, 1.5 * down + 0.5)
        axes = figure.subplots(down, across, sharex=True, squeeze=False).flatten()
        missed = 0
        for ax, name in zip(axes, shown, strict=False):
            for index, objective in enumerate(look):
                missed += _curve(ax, track, name, objective, index, look[objective])
            _scale(ax, np.concatenate([track.of(name, each) for each in look]))
            style_sheet.few_ticks(ax.xaxis, 4, integer=True)
            unit = str(track.unit[list(track.metric).index(name)])
            words = name.replace("_", " ") + (f" ({unit})" if unit else "")
            ax.set_title(style_sheet.fitted(words, width / across - 0.2))
        for index, ax in enumerate(axes):
            ax.set_visible(index < len(shown))
            if index < len(shown) <= index + across:
                ax.set_xlabel("step")
                ax.tick_params(axis="x", labelbottom=True)
        if len(look) > 1:
            style_sheet.legend_above(figure, axes[:1])
        doubt = f" Open rings: {missed} numbers that did not converge." if missed else ""
        bands = " Bands: 95% intervals." if any(name.endswith("_low") for name in track.metric) else ""
        style_sheet.finish(figure, style, f"{about}{doubt}{bands}".strip())
    return figure


def _scale(ax: Axes, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if finite.min() > 0 and finite.max() > WIDE * finite.min():
        style_sheet.logarithmic(ax.yaxis, finite, 4)
    else:
        style_sheet.few_ticks(ax.yaxis, 4)


def _is_beside(name: str) -> bool:
    # the second eigenvalue's residual is top_eigenvalue_residual_2
    return name.rstrip("0123456789").rstrip("_").endswith(BESIDE)


def _curve(ax: Axes, track: Track, name: str, objective: str, index: int, look: dict[str, str]) -> int:
    """Draws one metric of one objective. Returns the number of looks that did not converge."""
    values = track.of(name, objective)
    there = np.isfinite(values)
    step = track.step[there]
    every = style_sheet.marked(index, len(step))
    curve: dict[str, Any] = {"ms": 3.5, "markevery": every, "lw": 1.2, **look}
    ax.plot(step, values[there], label=style_sheet.legend_name(objective), **curve)
    names = list(map(str, track.metric))
    low, high = f"{name}_low", f"{name}_high"
    if low in names and high in names:
        band = track.of(low, objective)[there], track.of(high, objective)[there]
        ax.fill_between(step, *band, color=look["color"], alpha=0.2, lw=0)
    base, _, number = name.rpartition("_")
    converged = f"{base}_converged_{number}" if number.isdigit() else f"{name}_converged"
    if converged not in names:
        return 0
    failed = there & (track.of(converged, objective) == 0)
    ax.plot(track.step[failed], values[failed], "o", mfc="none", mec="k", ms=6, mew=0.8)
    return int(failed.sum())
