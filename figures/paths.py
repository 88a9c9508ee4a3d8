"""The figure of loss and accuracy on paths between two solutions."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from figures import style as style_sheet
from figures.panels import panel_grid
from figures.scale import holes, with_unit
from figures.style import PLAIN, TWO_COLUMNS, Style, Titled
from landscape import Path


def paths(
    named: Titled[Path], *, loss_name: str, about: str, width: float = TWO_COLUMNS, style: Style = PLAIN
) -> Figure:
    """One curve a path, its barrier in the legend.

    Args:
        named: (title, path) of each.
        loss_name: what the loss is.
        about: which data and models, for the caption.
        width: of the figure in inches; in a narrow figure the accuracy is below the loss.
        style: how text is written.
    """
    with style_sheet.drawing(style):
        look = style_sheet.looks(title for title, _ in named)
        figure = style_sheet.new_figure(width, 3.4)
        grid = panel_grid(figure, 1, 2, 2.2, share_y=False)
        left, right = grid.axes[0]
        for index, (title, path) in enumerate(named):
            every = {"markevery": style_sheet.marked(index, len(path.position)), "ms": 3.5}
            label = style_sheet.legend_name(f"{title}: barrier {path.barrier:.2g} {path.loss_unit}".rstrip())
            left.plot(path.position, path.loss, label=label, **look[title], **every)
            right.plot(path.position, path.accuracy, **look[title], **every)
        left.set_ylabel(with_unit(loss_name, (path for _, path in named)))
        right.set_ylabel("accuracy")
        style_sheet.few_ticks(left.yaxis)
        style_sheet.few_ticks(right.yaxis)
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        for ax in (left, right):
            ax.set_xlabel("position on the path")
        style_sheet.legend_above(figure, [left])
        batch_norm = ", ".join(dict.fromkeys(path.batch_norm for _, path in named))
        style_sheet.finish(
            figure,
            style,
            f"{about} Barrier: largest loss above the straight line between the ends' losses. {holes(named)}"
            f"BatchNorm: {batch_norm}.",
        )
    return figure
