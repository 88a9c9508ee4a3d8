"""Scores of rightly and of wrongly labeled samples over the training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from figures import style as style_sheet
from figures.style import PLAIN, TWO_COLUMNS, Style

KINDS = (("right labels", style_sheet.COLORS[0], "-"), ("wrong labels", style_sheet.COLORS[3], "--"))
BINS = 25


def label_scores(
    scores: ArrayLike,
    is_wrong: ArrayLike,
    *,
    score_name: str,
    about: str,
    epochs: Sequence[int] | None = None,
    width: float = TWO_COLUMNS,
    style: Style = PLAIN,
) -> Figure:
    """Median and middle half of the scores over all epochs, and their distributions after some of them.

    Args:
        scores: (all epochs, n), such as losses or margins; NaN where there is none.
        is_wrong: bool (n,).
        score_name: what the scores are, with the unit.
        about: which data and network, for the caption.
        epochs: counted from 1, whose distributions are drawn; the first, a middle and the last one if not given.
        width: inches; the panels stand below each other in a narrow figure.
        style: how text is written.

    Raises:
        ValueError: sizes that do not match, or an epoch that there is not.
    """
    values, wrong = np.asarray(scores, dtype=np.float64), np.asarray(is_wrong, dtype=bool)
    if values.ndim != 2 or values.shape[1:] != wrong.shape or len(values) == 0:
        raise ValueError(f"scores: must be (epochs, {len(wrong)}), got {values.shape}")
    last = len(values)
    drawn = list(dict.fromkeys((1, (last + 1) // 2, last))) if epochs is None else list(epochs)
    for epoch in drawn:
        if not 1 <= epoch <= last:
            raise ValueError(f"epochs: must lie in 1..{last}, got {epoch}")
    rows, columns = (1 + len(drawn), 1) if width < 5 else (1, 1 + len(drawn))
    with style_sheet.drawing(style):
        figure = style_sheet.new_figure(width, 1.7 * rows + 1.0)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        _over_epochs(axes[0], values, wrong, score_name)
        finite = values[[epoch - 1 for epoch in drawn]]
        finite = finite[np.isfinite(finite)]
        ends = style_sheet.OUTERMOST
        low, high = np.percentile(finite, ends) if len(finite) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        for ax, epoch in zip(axes[1:], drawn, strict=True):
            _distribution(ax, values[epoch - 1], wrong, edges)
            ax.set_title(f"after epoch {epoch}")
            ax.set_xlabel(score_name)
        axes[1].set_ylabel("share of the kind")
        style_sheet.legend_above(figure, axes[:1])
        style_sheet.finish(
            figure,
            style,
            f"{about} {int(wrong.sum()):,} of {len(wrong):,} labels are wrong. Line: median; band: middle half. "
            f"Histograms: values outside of the {ends[0]:g} and {ends[1]:g}% percentiles count in the outermost bars.",
        )
    return figure


def _over_epochs(ax: Axes, values: NDArray[np.float64], wrong: NDArray[np.bool_], score_name: str) -> None:
    position = np.arange(1, len(values) + 1)
    for (label, color, stroke), members in zip(KINDS, (~wrong, wrong), strict=True):
        known = np.isfinite(values[:, members]).any(1) if members.any() else np.zeros(len(values), bool)
        quartiles = np.full((3, len(values)), np.nan)
        if known.any():
            part = np.where(np.isfinite(values), values, np.nan)[known][:, members]
            quartiles[:, known] = np.nanpercentile(part, (25, 50, 75), axis=1)
        marker = "o" if known.sum() == 1 else ""
        ax.plot(position, quartiles[1], marker + stroke, color=color, label=label, lw=1.4, ms=4)
        ax.fill_between(position, quartiles[0], quartiles[2], color=color, alpha=0.18, lw=0)
    ax.set(xlabel="epoch", ylabel=score_name)
    style_sheet.few_ticks(ax.xaxis, integer=True)


def _distribution(
    ax: Axes, values: NDArray[np.float64], wrong: NDArray[np.bool_], edges: NDArray[np.float64]
) -> None:
    for (_, color, stroke), members in zip(KINDS, (~wrong, wrong), strict=True):
        numbers = values[members][np.isfinite(values[members])]
        counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
        if len(numbers):
            ax.stairs(counts / len(numbers), edges, color=color, linestyle=stroke, lw=1.2)
            ax.stairs(counts / len(numbers), edges, color=color, fill=True, alpha=0.15, lw=0)
