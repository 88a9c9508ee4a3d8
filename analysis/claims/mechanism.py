"""M: the effect of label noise on the perturbation, and the effect of compensation."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference, Level
from analysis.claims.trends import Trend
from analysis.claims.variants import NCSAM, OPPOSITE_SIGN, RANDOM_DIRECTION, RANDOM_FLIPS, SAM, SGD

CLAIMS = (
    Claim(
        "M1",
        "The gradients of rightly and of wrongly labeled samples point against each other.",
        "section 3, after Eq. 9",
        [Level("clean_noise_cosine", method, -1) for method in (SGD, SAM)],
        controls=[Level("clean_noise_cosine", NCSAM, -1), Trend("clean_noise_cosine", SGD, -1, noisy=True)],
    ),
    Claim(
        "M2",
        "Label noise rotates SAM's perturbation away from the clean one, the more the more noise there is.",
        "section 3, after Eq. 9",
        [Trend("sam_clean_cosine", SAM, -1, noisy=True)],
        controls=[Trend("sam_clean_cosine", SGD, -1, noisy=True)],
    ),
    Claim(
        "M3",
        "Compensation turns the perturbation back toward the clean one, as g* imitates the noise gradient.",
        "Eq. 11-13",
        [Level("gain_plus", NCSAM, 1), Level("gstar_noise_cosine", NCSAM, 1)],
        controls=[
            Level("gain_minus", NCSAM, 1),
            Level("gain_minus", OPPOSITE_SIGN, 1),
            Level("gain_plus", RANDOM_FLIPS, 1),
            Level("gain_plus", RANDOM_DIRECTION, 1),
            Level("gstar_noise_cosine", RANDOM_FLIPS, 1),
        ],
    ),
    Claim(
        "M4",
        "Drawn samples are wrongly labeled, and temporary labels true, more often than by chance.",
        "Eq. 16-18",
        [Level("draw_gain", NCSAM, 1), Level("temporary_label_gain", NCSAM, 1)],
        controls=[Difference("mean_temporary_label_precision", NCSAM, RANDOM_FLIPS, 1)],
    ),
)
