"""The figure of loss and accuracy on paths between two solutions."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures.scale import holes, with_unit
from figures.style import RC, caption, legend_above, legend_name, looks, new_figure
from landscape import Path


def paths(named: Sequence[tuple[str, Path]], *, loss_name: str, about: str) -> Figure:
    """A curve for each path, with its barrier in the legend.

    Args:
        named: (title, path) of each path.
        loss_name: name of the loss.
        about: a sentence about data and models, for the caption.
    """
    style = looks(title for title, _ in named)
    with mpl.rc_context(RC):
        figure = new_figure(7.4, 3.4)
        left, right = figure.subplots(1, 2)
        for title, path in named:
            color, stroke = style[title]["color"], style[title]["linestyle"]
            label = legend_name(f"{title}: barrier {path.barrier:.2g} {path.loss_unit}".rstrip())
            left.plot(path.position, path.loss, stroke, color=color, label=label, lw=1.4)
            right.plot(path.position, path.accuracy, stroke, color=color, lw=1.4)
        left.set_ylabel(with_unit(loss_name, (path for _, path in named)))
        right.set_ylabel("accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        for ax in (left, right):
            ax.set_xlabel("position on the path")
        legend_above(figure, [left])
        batch_norm = ", ".join(dict.fromkeys(path.batch_norm for _, path in named))
        caption(
            figure,
            f"{about} Barrier: largest loss above the straight line between the ends' losses. {holes(named)}"
            f"BatchNorm: {batch_norm}.",
        )
    return figure
