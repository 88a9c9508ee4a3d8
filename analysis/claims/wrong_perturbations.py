"""S: what SAM loses by wrong labels in its perturbation, each method at a radius of its own."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.variants import (
    CLEAN_PERTURBATION,
    CLEAN_SAM,
    ORACLE,
    SAM,
    SGD,
    WARMED_SAM,
)

FREED = (ORACLE, CLEAN_PERTURBATION)
"""SAM with a perturbation in which no wrong label has a part."""

CLAIMS = (
    Claim(
        "S1",
        "Wrong labels spoil SAM's perturbation: with a perturbation of true labels, or of the rightly labeled samples, "
        "SAM is more accurate.",
        "the premise of Eq. 9 to 12 (arXiv:2601.19947); that each method has its own best radius is ours",
        [Difference("test_accuracy", method, SAM, 1) for method in FREED],
        controls=[
            *(Difference("best_test_accuracy", method, SAM, 1) for method in FREED),
            *(Difference("memorized", method, SAM, -1) for method in FREED),
            # the ceiling: no wrong label has a part in the gradient either
            Difference("test_accuracy", CLEAN_SAM, SAM, 1),
            # what a warm-up gives, which NCSAM has and SAM lacks
            Difference("test_accuracy", WARMED_SAM, SAM, 1),
            Difference("test_accuracy", SAM, SGD, 1),
        ],
    ),
)
