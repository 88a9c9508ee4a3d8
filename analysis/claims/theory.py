"""T: Theorem 1 and its assumption."""

from __future__ import annotations

from analysis.bound import DELTA
from analysis.claims.associations import Association
from analysis.claims.claim import Claim
from analysis.claims.differences import Level
from analysis.claims.shares import Holds
from analysis.claims.trends import Trend
from analysis.claims.variants import SGD

LOSSES = ("zero_one", "cross_entropy")

CLAIMS = (
    Claim(
        "T1",
        "The loss on clean data is at most the noisy loss's maximum near the weights, scaled, plus two terms of size.",
        "Theorem 1, Eq. 6",
        # the theorem holds with a probability of 1 - delta, and the maximum found is a lower bound of its maximum: a
        # failure counts only if the search for the maximum converged
        [Holds(f"bound_{loss}_slack", DELTA, vacuous=f"bound_{loss}_excess") for loss in LOSSES],
        controls=[
            *(Level(f"bound_{loss}_excess", None, -1) for loss in LOSSES),
            *(Association(f"bound_{loss}_right", "test_loss", 1) for loss in LOSSES),
            *(Association(f"bound_{loss}_empirical", "test_loss", 1) for loss in LOSSES),
        ],
    ),
    Claim(
        "T2",
        "Gaussian perturbation of the weights does not lower the loss on clean data.",
        "Assumption 1, Eq. 5",
        [Level(f"assumption_{loss}_gap", None, 1, non_inferior=True) for loss in LOSSES],
    ),
    Claim(
        "T3",
        "Label noise loosens the bound: each of its terms grows with the noise rate at equal training.",
        "section 2, after Theorem 1",
        [Trend(f"bound_zero_one_{term}", SGD, 1) for term in ("empirical", "complexity")],
        controls=[
            # grows by its formula, whatever is trained
            Trend("bound_zero_one_sampling", SGD, 1),
            Trend("bound_zero_one_right", SGD, 1),
            Trend("bound_cross_entropy_empirical", SGD, 1),
        ],
        changed="its prediction on the sampling term could not fail and is a control now",
    ),
)
