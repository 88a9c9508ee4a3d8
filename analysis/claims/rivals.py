"""H: explanations of NCSAM's results that rival the paper's."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference, Level
from analysis.claims.variants import (
    LARGER_SAM,
    NCSAM,
    NOT_PROJECTED,
    OPPOSITE_SIGN,
    RANDOM_DIRECTION,
    RANDOM_FLIPS,
    SAM_AS_LONG,
    SAM_AS_LONG_AS_NOT_PROJECTED,
    UNCOMPENSATED,
)

CLAIMS = (
    Claim(
        "H1",
        "NCSAM down-weights ambiguous samples, clean or wrong, rather than restoring clean flatness.",
        "rival to Eq. 11-13: to first order +s g* descends on the observed labels of ambiguous samples",
        [
            Level("gstar_noise_cosine", NCSAM, -1),
            # the study gives SAM another radius and no warm-up
            Difference("damping_wrong", NCSAM, UNCOMPENSATED, -1),
            Difference("damping_ambiguous", NCSAM, UNCOMPENSATED, -1),
            Difference("damping_contrast", NCSAM, UNCOMPENSATED, -1),
        ],
        controls=[
            Difference("damping_confident", NCSAM, UNCOMPENSATED, -1),
            Difference("damping_contrast", OPPOSITE_SIGN, UNCOMPENSATED, 1),
            Difference("damping_contrast", RANDOM_FLIPS, UNCOMPENSATED, -1),
        ],
    ),
    Claim(
        "H2",
        "NCSAM is as accurate as SAM with perturbations as long, as with a random direction in place of g*, and as "
        "without compensation.",
        "rival to Tables I-III: ||s g*|| is far above rho",
        [
            Difference("test_accuracy", SAM_AS_LONG, NCSAM, 0),
            Difference("test_accuracy", RANDOM_DIRECTION, NCSAM, 0),
            # NCSAM's warm-up and radius alone; SAM with perturbations as long has no warm-up
            Difference("test_accuracy", UNCOMPENSATED, NCSAM, 0),
        ],
        controls=[
            *(
                Difference("perturbation_norm", other, NCSAM, 0)
                for other in (SAM_AS_LONG, RANDOM_DIRECTION, UNCOMPENSATED)
            ),
            Difference("test_accuracy", LARGER_SAM, NCSAM, 0),
            Difference("test_accuracy", SAM_AS_LONG_AS_NOT_PROJECTED, NOT_PROJECTED, 0),
            Difference("test_accuracy", RANDOM_FLIPS, NCSAM, 0),
            Difference("test_accuracy", NOT_PROJECTED, NCSAM, 1),
            Difference("memorized", UNCOMPENSATED, NCSAM, 0),
            Difference("memorized", RANDOM_DIRECTION, NCSAM, 0),
        ],
    ),
)
