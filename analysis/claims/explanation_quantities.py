"""The quantities of claims E4 to E10: wrongly labeled samples, critical steps, edges of stability, early training,
spectra of the weights."""

from __future__ import annotations

import pandas as pd

from analysis.claims.quantities import (
    DECADES,
    DECADES_MARGIN,
    NEW_INDEX,
    POINT,
    REMEASURED,
    Quantity,
    less,
    log10,
    log_ratio,
    register_quantity,
)
from analysis.store import OF_SAMPLES

SAMPLE_WORDS = dict(
    zip(OF_SAMPLES, ("gradient", "Gauss-Newton trace", "curvature in the input"), strict=True)
)
"""Measures of single samples, in words."""

BY_SAMPLE = "`ncsam measure --only samples`, with measure.by_sample = true"
CONSTANT_RATE = 'training.schedule = "constant", and `ncsam measure --only noise`'


def above_half(area: pd.Series) -> pd.Series:
    """An area under the curve less that of a random order."""
    return area - 0.5


def reach(
    clean: pd.Series, observed: pd.Series, clean_found: pd.Series, observed_found: pd.Series
) -> pd.Series:
    """The ratio of two critical learning rates, less 1. The critical rate of a loss that rises at once is 0."""
    is_known = ((clean_found == 1) | (clean == 0)) & (observed_found == 1)
    return (clean / observed - 1).where(is_known)


def _area(words: str, column: str) -> Quantity:
    return Quantity(
        f"chance that a wrong label has {words}, less 1/2",
        (column,),
        "share",
        of=above_half,
        margin=2 * POINT,
        needs=BY_SAMPLE,
    )


def _of_samples() -> dict[str, Quantity]:
    found = {"loss_separation": _area("a larger loss than a right one", "loss_auroc")}
    for name, words in SAMPLE_WORDS.items():
        larger = f"a larger {words} than a right one"
        found[f"{name}_separation"] = _area(larger, f"{name}_auroc")
        found[f"{name}_separation_at_equal_loss"] = _area(
            f"{larger} of equal loss", f"{name}_auroc_at_equal_loss"
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


def _of_edges() -> dict[str, Quantity]:
    return {
        f"to_{edge}_edge": Quantity(
            f"top eigenvalue, observed labels, to {words} edge of stability",
            ("top_eigenvalue_observed", column),
            DECADES,
            of=log_ratio,
            margin=DECADES_MARGIN,
            needs=CONSTANT_RATE,
        )
        for edge, words, column in (
            ("own", "the method's", "stability_edge"),
            ("descent", "SGD's", "descent_edge"),
        )
    }


REACH = Quantity(
    "step along the observed labels' gradient until the loss with true labels rises, by that until the loss with "
    "observed ones does, less 1",
    (
        *("critical_learning_rate_clean", "critical_learning_rate_observed"),
        *("critical_learning_rate_found_clean", "critical_learning_rate_found_observed"),
    ),
    of=reach,
    margin=0.1,
    needs=REMEASURED,
)


FITTED = f"runs that fit seven eighths of the right labels after their first epoch, and {NEW_INDEX}"
LARGE = f"weight matrices of at least 32 eigenvalues that are not 0, and {NEW_INDEX}"
EARLY = "mean over the first tenth of the epochs"
PROBED_TRACE = 'training.probe_epochs in the first tenth, with training.probe_measures = ["trace"]'


def _of_early_training() -> dict[str, Quantity]:
    shares = {
        "early_memorized": f"wrong labels memorized, {EARLY}",
        "early_fitted": f"right labels fitted, {EARLY}",
    }
    return {
        **{
            name: Quantity(words, (name,), "share", margin=2 * POINT, needs=NEW_INDEX)
            for name, words in shares.items()
        },
        "memorized_at_fit": Quantity(
            "wrong labels memorized when seven eighths of the right labels are first fitted",
            ("memorized_at_fit",),
            "share",
            margin=2 * POINT,
            needs=FITTED,
        ),
        "early_train_loss": Quantity(
            f"training loss, {EARLY}", ("early_train_loss",), "nat", needs=NEW_INDEX
        ),
        # the Fisher trace of a network that is linear in each single weight, such as a ReLU network
        "early_trace": Quantity(
            "trace of the Hessian, observed labels, at the end of the first tenth of the epochs",
            ("early_trace",),
            DECADES,
            of=log10,
            margin=DECADES_MARGIN,
            needs=PROBED_TRACE,
        ),
    }


OF_WEIGHTS = {
    "weight_tail_index": Quantity(
        "tail index of the weight matrices' spectra", ("weight_tail_index",), margin=0.1, needs=LARGE
    ),
    "weight_norm": Quantity(
        "norm of the weight matrices",
        ("weight_norm",),
        DECADES,
        of=log10,
        margin=DECADES_MARGIN,
        needs=LARGE,
    ),
}


def register_explanation_quantities() -> None:
    """Adds the quantities to those that claims may name."""
    for name, found in {
        **_of_samples(),
        "reach": REACH,
        **_of_edges(),
        **_of_early_training(),
        **OF_WEIGHTS,
    }.items():
        register_quantity(name, found)
