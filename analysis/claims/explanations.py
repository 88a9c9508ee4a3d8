"""E: what the field says about why flat-minima methods are robust to label noise."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Difference, Level
from analysis.claims.variants import (
    FISHER_PENALTY,
    JACOBIAN_PENALTY,
    JACOBIAN_SAM,
    LOGIT_SAM,
    NCSAM,
    SAM,
    SGD,
)

CLAIMS = (
    Claim(
        "E1",
        "SAM is robust to label noise by the outputs' Jacobian, and not by the loss's gradient in the outputs.",
        "Baek, Kolter and Raghunathan 2024 (arXiv:2405.03676)",
        [
            Difference("test_accuracy", JACOBIAN_SAM, SGD, 1),
            Difference("test_accuracy", LOGIT_SAM, JACOBIAN_SAM, -1),
            Difference("jacobian_trace_observed", JACOBIAN_SAM, SGD, -1),
        ],
        controls=[
            Difference("test_accuracy", JACOBIAN_SAM, SAM, 0),
            Difference("test_accuracy", LOGIT_SAM, SGD, 0),
            *(Difference("memorized", method, SGD, -1) for method in (JACOBIAN_SAM, LOGIT_SAM)),
            *(Difference("jacobian_trace_observed", method, SGD, -1) for method in (LOGIT_SAM, SAM)),
            Difference("uncertainty_observed", SAM, SGD, 1),
            # the same perturbation with other gradients: equal radii do not make equal lengths
            Difference("perturbation_norm", JACOBIAN_SAM, SAM, 0),
            Difference("perturbation_norm", LOGIT_SAM, SAM, 0),
        ],
    ),
    Claim(
        "E2",
        "Rightly labeled samples are fitted first: true labels that training recovered are lost again, and less with "
        "SAM.",
        "Arpit et al. 2017; Liu et al. 2020 (early learning); Baek et al. 2024 for SAM",
        [Level("recovered_lost", SGD, 1), Difference("recovered_lost", SAM, SGD, -1)],
        controls=[
            Difference("recovered_lost", NCSAM, SAM, -1),
            Difference("best_recovered", SAM, SGD, 1),
            Difference("best_recovered", NCSAM, SAM, 1),
        ],
    ),
    Claim(
        "E3",
        "Flatness itself protects from wrong labels: with a penalty on tr J^T J the network is flatter, memorizes "
        "fewer wrong labels, and is more accurate.",
        "ours to test, by the intervention of Jastrzebski et al. 2021 (arXiv:2012.14193) on the Fisher trace",
        [
            Difference("jacobian_trace_observed", JACOBIAN_PENALTY, SGD, -1),
            Difference("memorized", JACOBIAN_PENALTY, SGD, -1),
            Difference("test_accuracy", JACOBIAN_PENALTY, SGD, 1),
        ],
        controls=[
            Difference("gauss_newton_trace_observed", FISHER_PENALTY, SGD, -1),
            Difference("jacobian_trace_observed", FISHER_PENALTY, SGD, -1),
            Difference("memorized", FISHER_PENALTY, SGD, -1),
            Difference("test_accuracy", FISHER_PENALTY, SGD, 1),
            # a flat network that learned less is no better: what is recovered must not be lost
            Difference("recovered", JACOBIAN_PENALTY, SGD, 1),
            Difference("best_recovered", JACOBIAN_PENALTY, SGD, 1),
            Difference("uncertainty_observed", JACOBIAN_PENALTY, SGD, 1),
            Difference("sharpness_elementwise_clean", JACOBIAN_PENALTY, SGD, -1),
            Difference("test_accuracy", JACOBIAN_PENALTY, SAM, 0),
            Difference("jacobian_trace_observed", JACOBIAN_PENALTY, SAM, 0),
        ],
    ),
)
