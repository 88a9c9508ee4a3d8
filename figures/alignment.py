"""The figure of cosines between perturbations in training and those from the true labels."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import style as style_sheet
from figures.panels import curve_with_band, panel_grid
from figures.style import PLAIN, TWO_COLUMNS, Style

CURVES = (
    ("cos_compensated_sam_clean", "SAM's perturbation and the true labels'"),
    ("cos_plus_clean", "NCSAM's (+s g*) and the true labels'"),
    ("cos_minus_clean", "opposite sign's (-s g*) and the true labels'"),
    ("cos_gstar_noise", "g* and the true noise gradient"),
)


def alignment(
    histories: pd.DataFrame, method: str, *, width: float = TWO_COLUMNS, style: Style = PLAIN
) -> Figure:
    """Cosines over the epochs of one compensating method, a column for each noise rate above 0.

    Args:
        histories: one row an epoch: `method`, `noise_rate`, `seed`, `epoch`, and the alignment metrics.
        method: whose runs; all cosines are of the same batches at the same weights.
        width: of the figure in inches; a narrow figure has one row for each noise rate.
        style: how text is written.

    Raises:
        ValueError: the method has no run with wrong labels.
    """
    runs = histories[(histories["method"] == method) & (histories["noise_rate"] > 0)]
    if runs.empty:
        raise ValueError(f"method: no run of {method!r} with wrong labels")
    rates = sorted(runs["noise_rate"].unique())
    with style_sheet.drawing(style):
        look = style_sheet.looks(label for _, label in CURVES)
        figure = style_sheet.new_figure(width, 3.2)
        grid = panel_grid(figure, 1, len(rates), 2.0)
        for ax, rate in zip(grid.axes[0], rates, strict=True):
            of_rate = runs[runs["noise_rate"] == rate]
            for index, (metric, label) in enumerate(CURVES):
                curve_with_band(ax, of_rate.groupby("epoch")[metric], label, look[label], index)
            ax.axhline(0, color="0.5", lw=0.8)
            style_sheet.few_ticks(ax.xaxis, 4, integer=True)
            style_sheet.few_ticks(ax.yaxis)
        grid.label(["cosine"], [style_sheet.wrong_labels(rate) for rate in rates], "epoch")
        style_sheet.legend_above(figure, grid.axes[0, :1])
        style_sheet.finish(
            figure,
            style,
            f"{style_sheet.data_of(runs)}: {method} from the end of its warm-up; mean over seeds, band: smallest to "
            "largest. The claim: squares above circles, inverted triangles above 0.",
        )
    return figure
