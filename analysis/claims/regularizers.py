"""E12: weight decay and augmentation, which may make networks better and sharper at once."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.variants import SGD, Variant

DECAYED = Variant("SGD with weight decay", "plain", changed=("training.weight_decay",))
AUGMENTED = Variant("SGD with random crops", "plain", changed=("training.crop",))
REGULARIZED = (DECAYED, AUGMENTED)
SHARPNESS = (
    *("top_eigenvalue_observed", "jacobian_trace_observed", "functional_norm_observed"),
    *("relative_flatness_observed", "sharpness_clean"),
)
"""Other measures of sharpness."""

CLAIMS = (
    Claim(
        "E12",
        "What regularizes makes a network sharper and better at once: weight decay and random crops each raise the "
        "accuracy, and the sharpness of the loss.",
        "Mason-Williams, Mason-Williams and Yannakoudakis 2025 (arXiv:2510.12451), on clean labels; of wrong ones ours "
        "to test",
        [
            Difference(name, method, SGD, 1)
            for method in REGULARIZED
            for name in ("test_accuracy", "sharpness_observed")
        ],
        controls=[
            # where the claim comes from
            *(
                Difference(name, method, SGD, 1, clean=True)
                for method in REGULARIZED
                for name in ("test_accuracy", "sharpness_observed")
            ),
            *(Difference(name, method, SGD, 1) for method in REGULARIZED for name in SHARPNESS),
            *(Difference("memorized", method, SGD, -1) for method in REGULARIZED),
            *(Difference("uncertainty_observed", method, SGD, 1) for method in REGULARIZED),
        ],
    ),
)
