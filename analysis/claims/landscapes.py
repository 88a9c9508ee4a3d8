"""L: the link between flatness and label noise of the paper's title, which the paper never measures."""

from __future__ import annotations

from analysis.claims.associations import Association, Information
from analysis.claims.claim import Claim
from analysis.claims.differences import Difference
from analysis.claims.quantities import EQUAL_LOSS, LEVELS, MEASURES, PARTS, RELATIVE, at_equal_loss
from analysis.claims.trends import Trend
from analysis.claims.variants import NCSAM, SAM, SGD
from analysis.objectives import LABEL_WORDS

CLAIMS = (
    Claim(
        "L1",
        "Curvature and sharpness at the end of training grow with the noise rate.",
        "title; ours to test, the paper has no such experiment",
        [Trend(f"{m}_{loss}", SGD, 1) for loss in LABEL_WORDS for m in ("top_eigenvalue", "sharpness")],
        controls=[
            *(Trend(f"trace_{loss}", SGD, 1) for loss in LABEL_WORDS),
            *(Trend(f"{m}_clean", v, 1) for v in (SAM, NCSAM) for m in ("top_eigenvalue", "sharpness")),
            *(Trend(f"{m}_{loss}", SGD, 1) for loss in LABEL_WORDS for m in RELATIVE),
            # the part that grows: how fast outputs move with the weights, how uncertain they are, or what the labels
            # add
            *(Trend(f"{part}_observed", SGD, 1) for part in PARTS),
            Trend("curvature_of_uncertainty_observed", SGD, 1),
            Trend("functional_norm_clean", SGD, 1),
        ],
    ),
    Claim(
        "L2",
        "SAM under noise flattens the noisy landscape more than the clean one; NCSAM's clean one is flatter.",
        "introduction and section 3; ours to test",
        [
            Difference("sharpness_observed", SAM, SGD, -1),
            Difference("sharpness_clean_to_observed", SAM, SGD, 1),
            Difference("sharpness_clean", NCSAM, SAM, -1),
        ],
        controls=[
            Difference("sharpness_clean", SAM, SGD, -1),
            *(Difference(f"{m}_clean_to_observed", SAM, SGD, 1) for m in ("top_eigenvalue", "trace")),
            *(Difference(f"{m}_clean", NCSAM, SAM, -1) for m in ("top_eigenvalue", "trace")),
        ],
    ),
    Claim(
        "L3",
        "Flatter means better: at a fixed noise rate sharper methods are less accurate on clean test data.",
        "introduction; ours to test",
        [
            Association(f"sharpness_{loss}", "test_accuracy", -1, given=given)
            for given in (None, "train_loss")
            for loss in LABEL_WORDS
        ],
        controls=[
            Association(f"{measure}_{loss}", "test_accuracy", -1)
            for measure in (*MEASURES, *RELATIVE, "jacobian_trace", "functional_norm")
            if measure != "sharpness"
            for loss in LABEL_WORDS
        ]
        + [
            Information(f"{measure}_{loss}", "test_accuracy")
            for measure in ("sharpness", "top_eigenvalue")
            for loss in LABEL_WORDS
        ],
    ),
    Claim(
        "L4",
        "At equal training loss, tr J^T J grows with the noise rate.",
        "L1 without the confound of how far the training got; ours to test",
        [Trend(at_equal_loss("jacobian_trace", level, "series"), SGD, 1) for level in LEVELS],
        controls=[
            Trend(at_equal_loss(name, "lowest", "series"), SGD, 1)
            for name in EQUAL_LOSS
            if name != "jacobian_trace"
        ],
        changed="the rule for the level of the loss was changed, and a second level was added",
    ),
)
