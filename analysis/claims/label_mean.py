"""F3: labels that are redrawn at each step, compared with the mean of such labels."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.claims.claim import Claim
from analysis.claims.differences import Side, check_margin_of, paired_difference
from analysis.claims.effect import Effect
from analysis.claims.prediction import SIGNS, noisy_runs
from analysis.claims.quantities import quantity
from analysis.claims.variants import PAIRED_BY, SGD, select
from analysis.plan.run_config import REDRAWN

SYMMETRIC = f"symmetric{REDRAWN}"


@dataclass(frozen=True)
class RedrawnLessMean:
    """A quantity of SGD under redrawn symmetric labels minus that under their mean, paired by data set, rate and seed.

    Let a true label be flipped at a rate to one of the other classes. The mean of such labels is a smoothed label, that
    of cross-entropy on true labels with `label_smoothing` = rate C / (C - 1) for C classes. Both losses have the same
    expected gradient at each step; the redrawn labels add noise to the gradient.
    """

    quantity: str
    sign: int

    def __post_init__(self) -> None:
        check_margin_of(self.quantity, self.sign)

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        return f"{quantity(self.quantity).words}, SGD: redrawn labels less their mean {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return "SGD with redrawn symmetric labels, and on true labels with label_smoothing = rate C / (C - 1)"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean of the paired differences."""
        what = quantity(self.quantity)
        noisy = noisy_runs(table)
        grid = noisy[noisy["noise_kind"] == SYMMETRIC]
        smoothed = smoothed_runs(table).merge(grid[PAIRED_BY].drop_duplicates(), on=PAIRED_BY)
        redrawn = Side("SGD, redrawn", SGD, select(grid, SGD), grid)
        mean = Side("SGD, mean of redrawn labels", SGD, smoothed, grid)
        # the smoothed runs of a seed share their draws over all smoothings, as all of them have the noise rate 0
        draw = [name for name in PAIRED_BY if name != "noise_rate"]
        return paired_difference(self, what, table, redrawn, mean, unpaired=self.runs(), draw=draw)


def smoothed_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Plain runs on smoothed true labels, with the columns of the noise whose mean these labels are."""
    is_smoothed = (table["label_smoothing"] > 0) & (table["noise_rate"] == 0)
    runs = table[(table["method_name"] == SGD.name) & (table["mixup"] == 0) & is_smoothed]
    rate = runs["label_smoothing"] * (1 - 1 / runs["classes"])
    # rounded, because a study file writes the smoothing with few decimals
    return runs.assign(noise_rate=rate.round(6), noise_kind=SYMMETRIC)


CLAIMS = (
    Claim(
        "F3",
        "Redrawn labels flatten the network by their noise, and not only by their mean.",
        "rival to Damian, Ma and Lee 2021: the mean of redrawn labels is a smoothed label; ours to test",
        [
            RedrawnLessMean("jacobian_trace_observed", -1),
            RedrawnLessMean("sharpness_elementwise_clean", -1),
        ],
        controls=[
            RedrawnLessMean("test_accuracy", 1),
            RedrawnLessMean("uncertainty_observed", 1),
            RedrawnLessMean("jacobian_top_observed", -1),
        ],
    ),
)
