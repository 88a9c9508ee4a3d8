"""The quantities of claim E4: how well measures of single samples separate wrong labels from right ones."""

from __future__ import annotations

import pandas as pd

from analysis.claims.quantities import POINT, Quantity, less
from analysis.store import OF_SAMPLES

SAMPLE_WORDS = dict(
    zip(OF_SAMPLES, ("gradient", "Gauss-Newton trace", "curvature in the input"), strict=True)
)
"""Measures of single samples, in words."""

BY_SAMPLE = "`ncsam measure --only samples`, with measure.by_sample = true"


def above_half(area: pd.Series) -> pd.Series:
    """An area under the curve less that of a random order, or a share less one half."""
    return area - 0.5


def _area(words: str, column: str, *told_by: str) -> Quantity:
    return Quantity(
        f"chance that a wrong label has {words}, less 1/2",
        (column,),
        "share",
        of=above_half,
        margin=2 * POINT,
        needs=BY_SAMPLE,
        told_by=told_by,
    )


def of_samples() -> dict[str, Quantity]:
    """Name -> quantity."""
    found = {"loss_separation": _area("a larger loss than a right one", "loss_auroc")}
    for name, words in SAMPLE_WORDS.items():
        larger = f"a larger {words} than a right one"
        found[f"{name}_separation"] = _area(larger, f"{name}_auroc")
        found[f"{name}_separation_at_equal_loss"] = _area(
            f"{larger} of equal loss", f"{name}_auroc_at_equal_loss", f"{name}_auroc"
        )
        found[f"{name}_gain"] = Quantity(
            f"chance that a wrong label has {larger}, less that of a larger loss",
            (f"{name}_auroc", "loss_auroc"),
            "share",
            of=less,
            margin=2 * POINT,
            needs=BY_SAMPLE,
        )
    return found
