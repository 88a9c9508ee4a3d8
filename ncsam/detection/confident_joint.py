"""Confident learning: cleanlab's joint distribution of given and true labels, from out-of-sample probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ncsam.options import check_is_tensor


@dataclass(frozen=True)
class ConfidentJoint:
    """The result of confident learning about labels (Northcutt et al. 2021, arXiv:1911.00068).

    Attributes:
        scores: float64 (n,), larger is more suspicious: 1 less cleanlab's label quality (normalized margin), and 1
            more for samples off the diagonal of the confident joint. Confident learning takes those labels for wrong.
        is_flagged: bool (n,), whether a sample is off the diagonal.
        joint: float64 (classes, classes), estimated share of the samples that are labeled i and truly are j.
    """

    scores: Tensor
    is_flagged: Tensor
    joint: Tensor

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels."""
        return 1 - self.joint.trace().item()


def confident_joint(probabilities: Tensor, labels: Tensor) -> ConfidentJoint:
    """The confident joint of labels.

    Args:
        probabilities: (n, classes), of networks that were not trained on the sample.
        labels: int64 (n,), the observed ones, each a class.

    Raises:
        TypeError: the labels are no tensor.
        ValueError: the labels are no classes, or the rows are no probabilities, or of other samples.
        ImportError: cleanlab is missing.
    """
    _check(probabilities, labels)
    try:
        from cleanlab.count import compute_confident_joint, estimate_joint
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise ImportError("confident_joint: needs cleanlab: pip install 'ncsam[detect]'") from error
    chances, given = probabilities.detach().double().cpu().numpy(), labels.cpu().numpy()
    counts, flagged = compute_confident_joint(given, chances, return_indices_of_off_diagonals=True)
    quality = get_label_quality_scores(given, chances, method="normalized_margin")
    is_flagged = np.zeros(len(given), dtype=bool)
    is_flagged[flagged] = True
    return ConfidentJoint(
        scores=torch.from_numpy(1 - quality + is_flagged),
        is_flagged=torch.from_numpy(is_flagged),
        joint=torch.from_numpy(estimate_joint(given, chances, confident_joint=counts)),
    )


def check_labels(labels: Tensor) -> None:
    """Raises TypeError or ValueError for labels that are not whole numbers (n,)."""
    check_is_tensor("labels", labels, "of classes, int64 (n,)")
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or len(labels) == 0:
        remedy = "labels.flatten()" if labels[:1].numel() == 1 and labels.ndim > 1 else "labels.long()"
        raise ValueError(
            f"labels: must be classes, int64 (n,), of at least one sample, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}; give {remedy}"
        )


def _check(probabilities: Tensor, labels: Tensor) -> None:
    check_labels(labels)
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise ValueError(
            f"probabilities: must be ({len(labels)}, classes), a row for each label, got {tuple(probabilities.shape)}"
        )
    outside = labels[(labels < 0) | (labels >= probabilities.shape[1])]
    if len(outside):
        raise ValueError(
            f"labels: {int(outside[0])} is none of the {probabilities.shape[1]} classes of the probabilities; leave "
            "samples without a label out, such as probabilities[labels >= 0] and labels[labels >= 0]"
        )
    rows = probabilities.detach().double()
    # also false for NaN
    if not bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(
            "probabilities: rows must be finite, not negative, and sum to 1; take softmax(1) of scores"
        )
