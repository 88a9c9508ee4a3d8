"""E: what the field says about why flat-minima methods are robust to label noise."""

from __future__ import annotations

from analysis.claims.associations import Association
from analysis.claims.claim import Claim
from analysis.claims.differences import Difference, Level
from analysis.claims.early_quantities import of_early_training
from analysis.claims.quantities import register_quantity
from analysis.claims.redraw import Redrawn
from analysis.claims.sample_quantities import of_samples
from analysis.claims.step_quantities import REACH, of_edges
from analysis.claims.trends import Trend
from analysis.claims.variants import (
    EQUALLY_STEEP,
    EQUALLY_UNSURE,
    FISHER_PENALTY,
    JACOBIAN_PENALTY,
    JACOBIAN_SAM,
    LOGIT_SAM,
    NCSAM,
    SAM,
    SGD,
)
from analysis.claims.weight_quantities import OF_WEIGHTS

for _name, _quantity in {
    **of_samples(),
    "reach": REACH,
    **of_edges(),
    **of_early_training(),
    **OF_WEIGHTS,
}.items():
    register_quantity(_name, _quantity)

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
        [Level("early_recovered_lost", SGD, 1), Difference("recovered_lost", SAM, SGD, -1)],
        controls=[
            Difference("recovered_lost", NCSAM, SAM, -1),
            Difference("best_recovered", SAM, SGD, 1),
            Difference("best_recovered", NCSAM, SAM, 1),
        ],
        changed="its first prediction, the best epoch less the last one, could not fail and was replaced",
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
    Claim(
        "E4",
        "At the end of training wrongly labeled samples have a larger curvature of their own loss in the input, and "
        "not only because their loss is larger.",
        "Garg and Roy 2023 (arXiv:2307.05831), who average the curvature over training; at equal loss ours to test",
        [
            Level("input_curvature_separation", SGD, 1),
            Level("input_curvature_separation_at_equal_loss", SGD, 1),
        ],
        controls=[
            # does the curvature tell more than the loss, which costs nothing?
            Level("input_curvature_gain", SGD, 1),
            Level("loss_separation", SGD, 1),
            *(
                Level(f"{name}_separation{where}", SGD, 1)
                for name in ("gradient_norm", "gauss_newton_trace")
                for where in ("", "_at_equal_loss")
            ),
            *(Level(f"input_curvature_separation{where}", SAM, 1) for where in ("", "_at_equal_loss")),
            # labels that no training has seen: what is left is disagreement, and not memorization
            *(Redrawn(f"input_curvature_separation{where}", SGD, -1) for where in ("", "_at_equal_loss")),
        ],
    ),
    Claim(
        "E5",
        "A step on wrong labels soon harms: along the gradient of the observed labels the loss with true labels rises "
        "earlier than that with observed ones, the earlier the more labels are wrong.",
        "the relative critical sharpness of Kalra et al. 2026 (arXiv:2601.16979); of label noise ours to test",
        [Level("reach", SGD, -1), Trend("reach", SGD, -1)],
        controls=[
            Level("reach", SAM, -1),
            Trend("reach", SAM, -1),
            Difference("reach", SAM, SGD, 1),
            Redrawn("reach", SGD, 1),
        ],
    ),
    Claim(
        "E6",
        "At a constant learning rate the top eigenvalue ends below the edge of stability: SGD's below that of descent "
        "with momentum, SAM's below SAM's own.",
        "Cohen et al. 2021 (arXiv:2103.00065); Long and Bartlett 2024 (arXiv:2309.12488) for SAM; with momentum and a "
        "batch's gradient ours",
        [Level("to_own_edge", SGD, -1), Level("to_own_edge", SAM, -1)],
        controls=[
            # at the edge itself, as descent on the whole data is
            Level("to_own_edge", SGD, 0),
            Level("to_own_edge", SAM, 0),
            Level("to_descent_edge", SAM, -1),
            Trend("to_own_edge", SGD, 1),
            Trend("to_own_edge", SAM, 1),
            Difference("to_own_edge", SAM, SGD, 1),
        ],
    ),
    Claim(
        "E7",
        "The Fisher trace early in training predicts what is lost late: across methods at a fixed rate, a larger one "
        "goes with more wrong labels memorized and more accuracy lost.",
        "Jastrzebski et al. 2021 (arXiv:2012.14193), across methods in place of learning rates",
        [Association("early_trace", outcome, 1) for outcome in ("memorized", "late_decay")],
        controls=[
            # does the trace tell more than how far the training got, which costs nothing?
            Association("early_train_loss", "memorized", -1),
            Association("early_trace", "memorized", 1, given="early_train_loss"),
            Association("early_trace", "test_accuracy", -1),
            *(
                Difference("early_trace", method, SGD, -1)
                for method in (FISHER_PENALTY, JACOBIAN_PENALTY, SAM)
            ),
            *(Difference("memorized", method, SGD, -1) for method in (FISHER_PENALTY, JACOBIAN_PENALTY, SAM)),
        ],
        changed="the early trace was the mean of epochs 1 and 3 at first; after one epoch it had "
        "not converged, and epoch 3 counts",
    ),
    Claim(
        "E8",
        "SAM learns less noise than SGD from the start: fewer wrong labels early in training, and fewer when the right "
        "labels are equally fitted.",
        "Chen et al. 2023 (arXiv:2310.07269), who prove it for two-layer convolutional networks",
        [Difference(name, SAM, SGD, -1) for name in ("early_memorized", "memorized_at_fit")],
        controls=[
            Difference("early_fitted", SAM, SGD, 0),
            Difference("memorized", SAM, SGD, -1),
            *(Difference(name, NCSAM, SAM, -1) for name in ("early_memorized", "memorized_at_fit")),
        ],
    ),
    Claim(
        "E9",
        "Wrong labels make the tails of the weight matrices' spectra lighter: their tail index grows with the rate.",
        "Loftus 2026 (arXiv:2603.27885), in the direction of Martin and Mahoney 2021",
        [Trend("weight_tail_index", SGD, 1)],
        controls=[
            Trend("weight_tail_index", SAM, 1),
            # a rival that is cheaper still
            *(Trend("weight_norm", method, 1) for method in (SGD, SAM)),
            # the noise alone, or that it is memorized?
            Redrawn("weight_tail_index", SGD, -1),
            Redrawn("weight_norm", SGD, -1),
            Association("weight_tail_index", "test_accuracy", -1),
        ],
    ),
    Claim(
        "E10",
        "Flatness protects at equal uncertainty: across methods at a fixed rate, given the uncertainty of the "
        "predictions, a smaller tr J^T J goes with fewer wrong labels memorized and a higher accuracy.",
        "what claim E3 leaves open: all that flattens here also makes predictions less sure",
        [
            Association("jacobian_trace_observed", outcome, sign, given="uncertainty_observed")
            for outcome, sign in (("memorized", 1), ("test_accuracy", -1))
        ],
        controls=[
            *(
                Association("jacobian_trace_observed", outcome, sign)
                for outcome, sign in (("memorized", 1), ("test_accuracy", -1))
            ),
            # and the other way round
            *(
                Association("uncertainty_observed", outcome, sign, given=given)
                for given in ("jacobian_trace_observed", None)
                for outcome, sign in (("memorized", -1), ("test_accuracy", 1))
            ),
        ],
    ),
    Claim(
        "E14",
        "A penalty on tr J^T J protects more than equal uncertainty explains: of two equally unsure networks, the one "
        "with this penalty memorizes fewer wrong labels and is more accurate than one with a penalty on confidence.",
        "what claims E3 and E10 leave open, by an intervention; the penalty is that of Pereyra et al. 2017 "
        "(arXiv:1701.06548)",
        [
            Difference("memorized", JACOBIAN_PENALTY, EQUALLY_UNSURE, -1),
            Difference("test_accuracy", JACOBIAN_PENALTY, EQUALLY_UNSURE, 1),
        ],
        controls=[
            # that the two are matched, and what the match leaves apart
            Difference("uncertainty_observed", JACOBIAN_PENALTY, EQUALLY_UNSURE, 0),
            Difference("jacobian_trace_observed", JACOBIAN_PENALTY, EQUALLY_UNSURE, -1),
            # what the penalty on confidence does at that strength
            Difference("jacobian_trace_observed", EQUALLY_UNSURE, SGD, -1),
            Difference("memorized", EQUALLY_UNSURE, SGD, -1),
            Difference("test_accuracy", EQUALLY_UNSURE, SGD, 1),
            # if being unsure protected, of two networks with equal tr J^T J the less sure one would memorize less
            Difference("jacobian_trace_observed", EQUALLY_STEEP, JACOBIAN_PENALTY, 0),
            Difference("uncertainty_observed", EQUALLY_STEEP, JACOBIAN_PENALTY, 1),
            Difference("memorized", EQUALLY_STEEP, JACOBIAN_PENALTY, -1),
            Difference("test_accuracy", EQUALLY_STEEP, JACOBIAN_PENALTY, 1),
        ],
        changed="its signs were known from a pilot of one other seed; its statement said at first that what flattens "
        "protects, which is more than the predictions test",
    ),
)
