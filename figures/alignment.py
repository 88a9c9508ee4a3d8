"""The figure of cosines between perturbations in training and those from the true labels."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from figures.style import COLORS, RC, caption, data_of, legend_above, marker_of_one, new_figure, wrong_labels

CURVES = (
    ("cos_compensated_sam_clean", "SAM's perturbation and the true labels'", COLORS[1]),
    ("cos_plus_clean", "NCSAM's (+s g*) and the true labels'", COLORS[2]),
    ("cos_minus_clean", "opposite sign's (-s g*) and the true labels'", COLORS[3]),
    ("cos_gstar_noise", "g* and the true noise gradient", COLORS[6]),
)


def alignment(histories: pd.DataFrame, method: str) -> Figure:
    """Cosines over the epochs of one compensating method, with a column for each noise rate above 0.

    Args:
        histories: one row for each epoch: `method`, `noise_rate`, `seed`, `epoch`, and the alignment metrics.
        method: the method of the runs. All cosines are those of the same batches at the same weights.

    Raises:
        ValueError: the method has no run with wrong labels.
    """
    runs = histories[(histories["method"] == method) & (histories["noise_rate"] > 0)]
    if runs.empty:
        raise ValueError(f"method: no run of {method!r} with wrong labels")
    rates = sorted(runs["noise_rate"].unique())
    with mpl.rc_context(RC):
        figure = new_figure(3.0 * len(rates) + 0.6, 3.2)
        axes = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
        for ax, rate in zip(axes, rates, strict=True):
            of_rate = runs[runs["noise_rate"] == rate]
            for metric, label, color in CURVES:
                by_epoch = of_rate.groupby("epoch")[metric]
                mean = by_epoch.mean()
                ax.plot(mean.index, mean, marker_of_one(mean) + "-", color=color, label=label, lw=1.4, ms=4)
                ax.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=color, alpha=0.18, lw=0)
            ax.axhline(0, color="0.5", lw=0.8)
            ax.set_title(wrong_labels(rate))
            ax.set_xlabel("epoch")
        axes[0].set_ylabel("cosine")
        legend_above(figure, axes[:1])
        caption(
            figure,
            f"{data_of(runs)}: {method} from the end of its warm-up; mean over seeds, band: smallest to "
            "largest. The claim: green above orange, black above 0.",
        )
    return figure
