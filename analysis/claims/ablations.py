"""A: the effects of the method's own settings."""

from __future__ import annotations

from analysis.claims.best import Best
from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.trends import Trend
from analysis.claims.variants import CONSTANT_SCHEDULE, NCSAM, NOT_PROJECTED

CLAIMS = (
    Claim(
        "A1",
        "The best flip ratio is near the noise rate at 40% and below it at 60%.",
        "Table VI",
        [
            Best("flip_ratio", "test_accuracy", NCSAM, 0.4, 0, margin=0.1),
            Best("flip_ratio", "test_accuracy", NCSAM, 0.6, -1),
        ],
        controls=[Trend("test_accuracy", NCSAM, 1, against="flip_ratio")],
        changed="judged by the mean of each seed's best ratio at first, which can lie where no ratio is good",
    ),
    Claim(
        "A2",
        "A strength that grows over training is better than a constant one.",
        "Table VII",
        [Difference("test_accuracy", NCSAM, CONSTANT_SCHEDULE, 1)],
        controls=[
            Difference("best_test_accuracy", NCSAM, CONSTANT_SCHEDULE, 1),
            Difference("test_accuracy", NCSAM, NOT_PROJECTED, 1),
        ],
    ),
    Claim(
        "A3",
        "Under symmetric noise a small strength kappa is best.",
        "Table VIII",
        [Trend("test_accuracy", NCSAM, -1, against="strength", noise_kinds=("symmetric", "symmetric-all"))],
    ),
)
