"""How many wrong labels a model memorized, and of how many it recovered the true one."""

from __future__ import annotations

from torch import Tensor

from ncsam.label_noise import NoisyLabels


def share(hits: Tensor, among: Tensor) -> float:
    """The share of `hits` within `among`, both bool (n, ...); NaN where `among` is empty."""
    # predictions (n,) and labels (n, 1) would be compared each with each
    assert hits.shape == among.shape, f"{tuple(hits.shape)} hits among {tuple(among.shape)}"
    total = int(among.sum())
    return int((hits & among).sum()) / total if total else float("nan")


def memorized_share(predictions: Tensor, labels: NoisyLabels) -> float:
    """The share of the wrongly labeled samples that are predicted as their wrong label; NaN if no label is wrong."""
    return share(predictions == labels.observed, labels.is_wrong)


def recovered_share(predictions: Tensor, labels: NoisyLabels) -> float:
    """The share of the wrongly labeled samples that are predicted as their true label; NaN if no label is wrong."""
    return share(predictions == labels.clean, labels.is_wrong)
