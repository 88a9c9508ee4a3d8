"""The quantities of claims E7 and E8: what is learned early in training, and how curved the loss is then."""

from __future__ import annotations

from analysis.claims.quantities import DECADES, DECADES_MARGIN, NEW_INDEX, POINT, Quantity, less, log10

FITTED = f"runs that fit seven eighths of the right labels after their first epoch, and {NEW_INDEX}"
EARLY = "mean over the first tenth of the epochs"
PROBED_TRACE = 'training.probe_epochs in the first tenth, with training.probe_measures = ["trace"]'


def of_early_training() -> dict[str, Quantity]:
    """Name -> quantity."""
    shares = {
        "early_memorized": f"wrong labels memorized, {EARLY}",
        "early_fitted": f"right labels fitted, {EARLY}",
    }
    return {
        **{
            name: Quantity(words, (name,), "share", margin=2 * POINT, needs=NEW_INDEX, never_negative=True)
            for name, words in shares.items()
        },
        # not the best epoch's: a maximum less one of its values is never negative
        "early_recovered_lost": Quantity(
            f"true labels of wrongly labeled samples recovered, {EARLY}, less the last one's",
            ("early_recovered", "recovered"),
            "share",
            of=less,
            margin=2 * POINT,
            needs=NEW_INDEX,
        ),
        "memorized_at_fit": Quantity(
            "wrong labels memorized when seven eighths of the right labels are first fitted",
            ("memorized_at_fit",),
            "share",
            margin=2 * POINT,
            needs=FITTED,
            told_by=("early_fitted",),
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
