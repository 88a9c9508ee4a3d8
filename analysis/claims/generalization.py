"""G: accuracy on clean test data, late decay, memorization."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.variants import NCSAM, OPPOSITE_SIGN, ORACLE, SAM, SGD

CLAIMS = (
    Claim(
        "G1",
        "NCSAM is more accurate on clean test data than SAM, and SAM than SGD.",
        "Tables I-III",
        [Difference("test_accuracy", NCSAM, SAM, 1), Difference("test_accuracy", SAM, SGD, 1)],
        controls=[
            Difference("best_test_accuracy", NCSAM, SAM, 1),
            Difference("best_test_accuracy", SAM, SGD, 1),
            Difference("test_accuracy", OPPOSITE_SIGN, NCSAM, 0),
            Difference("test_accuracy", ORACLE, NCSAM, 1),
        ],
    ),
    Claim(
        "G2",
        "SGD and SAM decay late in training, NCSAM does not.",
        "Fig. 1",
        # the gap between the best and the last epoch is never negative, so only the gaps of two methods can be compared
        [Difference("late_decay", SGD, NCSAM, 1), Difference("late_decay", SAM, NCSAM, 1)],
    ),
    Claim(
        "G3",
        "NCSAM memorizes fewer wrong labels than SAM and recovers more true ones.",
        "section 4",
        [Difference("memorized", NCSAM, SAM, -1), Difference("recovered", NCSAM, SAM, 1)],
        controls=[Difference("memorized", SAM, SGD, -1), Difference("memorized", OPPOSITE_SIGN, NCSAM, 0)],
    ),
)
