"""F1 and F4: labels that stay the same at all steps, compared with labels that are drawn anew at each step."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.claims.claim import Claim
from analysis.claims.differences import Side, check_margin_of, paired_difference
from analysis.claims.effect import Effect
from analysis.claims.prediction import SIGNS, noisy_runs
from analysis.claims.quantities import EQUAL_LOSS, LEVELS, at_equal_loss, quantity
from analysis.claims.variants import SAM, SGD, Variant, select
from analysis.plan.run_config import REDRAWN


@dataclass(frozen=True)
class Redrawn:
    """A quantity of one method under redrawn labels minus that under fixed ones, paired by data set, rate and seed."""

    quantity: str
    method: Variant
    sign: int

    def __post_init__(self) -> None:
        check_margin_of(self.quantity, self.sign)

    def describe(self) -> str:
        """Quantity, comparison and sign."""
        words = quantity(self.quantity).words
        return f"{words}, {self.method.title}: redrawn labels less fixed ones {SIGNS[self.sign]}"

    def runs(self) -> str:
        """The runs that it needs."""
        return f"{self.method.title} with fixed and with redrawn labels (noise.redraw) at the same rates and seeds"

    def effect(self, table: pd.DataFrame) -> Effect:
        """The mean of the paired differences."""
        what = quantity(self.quantity)
        noisy = noisy_runs(table)
        is_redrawn = noisy["noise_kind"].str.endswith(REDRAWN)
        # paired with the fixed labels of the same kind of noise
        noisy = noisy.assign(noise_kind=noisy["noise_kind"].str.removesuffix(REDRAWN))
        redrawn, fixed = (
            Side(f"{self.method.title}, {words}", self.method, select(grid, self.method), grid)
            for words, grid in (("redrawn", noisy[is_redrawn]), ("fixed", noisy[~is_redrawn]))
        )
        return paired_difference(self, what, table, redrawn, fixed, unpaired=self.runs())


CLAIMS = (
    Claim(
        "F1",
        "At one noise rate, labels redrawn at each step flatten the network, and fixed wrong labels do not.",
        "Damian, Ma and Lee 2021 (label noise SGD prefers flat minimizers); ours to test",
        [
            Redrawn("jacobian_trace_observed", SGD, -1),
            Redrawn("sharpness_elementwise_clean", SGD, -1),
            Redrawn("test_accuracy", SGD, 1),
        ],
        controls=[
            Redrawn("jacobian_trace_observed", SAM, -1),
            Redrawn("sharpness_elementwise_clean", SAM, -1),
            Redrawn("test_accuracy", SAM, 1),
            *(
                Redrawn(f"{name}_observed", SGD, -1)
                for name in ("gauss_newton_trace", "functional_norm", "top_eigenvalue", "sharpness")
            ),
            Redrawn("uncertainty_observed", SGD, 1),
        ],
    ),
    Claim(
        "F4",
        "At equal training loss, redrawn labels flatten the network, and fixed wrong labels do not.",
        "Damian, Ma and Lee 2021, without the confound of how far the training got (compare claim F1); ours to test",
        # the loss of redrawn labels hardly falls, so that the lowest level is passed late, and the highest early
        [Redrawn(at_equal_loss("jacobian_trace", level, "pair"), SGD, -1) for level in LEVELS],
        controls=[
            Redrawn(at_equal_loss(name, level, "pair"), SGD, 1 if name == "uncertainty" else -1)
            for name in EQUAL_LOSS
            if name != "jacobian_trace"
            for level in LEVELS
        ],
        changed="the rule for the level of the loss was changed twice; read its p-values as those of an exploration",
    ),
)
