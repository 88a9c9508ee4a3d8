"""F2 and F5: is the label noise that NCSAM simulates like labels that are redrawn at each step?"""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.redraw import Redrawn
from analysis.claims.variants import NCSAM, OPPOSITE_SIGN, RANDOM_FLIPS, SGD, SLN, UNCOMPENSATED

RELATIVE = "curvature_of_uncertainty_observed"

CLAIMS = (
    Claim(
        "F2",
        "The labels that NCSAM simulates at each step flatten the network, as redrawn labels do.",
        "rival to Eq. 11-13: NCSAM's simulated noise is fresh at each step (compare claim F1); ours to test",
        [
            Difference("jacobian_trace_observed", NCSAM, UNCOMPENSATED, -1),
            Difference("jacobian_trace_observed", RANDOM_FLIPS, UNCOMPENSATED, -1),
        ],
        controls=[
            # positive control: noise that is drawn anew at each step and enters the gradient itself
            Difference("jacobian_trace_observed", SLN, SGD, -1),
            Difference("sharpness_elementwise_clean", SLN, SGD, -1),
            Difference("test_accuracy", SLN, SGD, 1),
            Difference("sharpness_elementwise_clean", NCSAM, UNCOMPENSATED, -1),
            Difference("uncertainty_observed", NCSAM, UNCOMPENSATED, 1),
            Difference("test_accuracy", NCSAM, UNCOMPENSATED, 1),
            Difference("jacobian_trace_observed", OPPOSITE_SIGN, UNCOMPENSATED, 1),
            Difference("jacobian_trace_observed", UNCOMPENSATED, SGD, -1),
        ],
    ),
    Claim(
        "F5",
        "Relative to the uncertainty of the predictions, the labels that NCSAM simulates at each step flatten the "
        "network, as redrawn labels do.",
        "claim F2, whose methods also differ in how sure their networks are",
        [Difference(RELATIVE, method, UNCOMPENSATED, -1) for method in (NCSAM, RANDOM_FLIPS)],
        controls=[
            Difference(RELATIVE, SLN, SGD, -1),
            Redrawn(RELATIVE, SGD, -1),
            Difference(RELATIVE, OPPOSITE_SIGN, UNCOMPENSATED, 1),
            Difference(RELATIVE, UNCOMPENSATED, SGD, -1),
            *(
                Difference("uncertainty_observed", method, UNCOMPENSATED, 0)
                for method in (RANDOM_FLIPS, OPPOSITE_SIGN)
            ),
        ],
        changed="written when the means of F2's methods were known; read its p-values as those of an exploration",
    ),
)
