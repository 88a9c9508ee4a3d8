"""A check for methods that make their own losses of the outputs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ncsam.methods.known_losses import has_label, ignored_label
from ncsam.methods.training_loss import TrainingLoss


def check_plain_cross_entropy(loss_fn: TrainingLoss, method: str) -> None:
    """Raises ValueError unless the loss is the mean cross-entropy without weights, smoothing and an ignored class."""
    if not _is_plain_cross_entropy(loss_fn):
        raise ValueError(f"loss_fn: {method} is made of plain cross-entropy; give nn.CrossEntropyLoss()")
    ignored = ignored_label(loss_fn)
    if ignored is not None and ignored >= 0:
        raise ValueError(
            f"loss_fn: ignores the label {ignored}, but {method} makes losses of its own, which would learn it as a "
            "class; leave out the samples with this label, and give nn.CrossEntropyLoss()"
        )


def check_that_all_have_labels(loss_fn: TrainingLoss, targets: Tensor, method: str) -> None:
    """Raises ValueError if the loss ignores a label (batch,), for methods that need one of each sample."""
    without = (~has_label(loss_fn, targets)).nonzero().flatten()
    if len(without):
        first = int(without[0])
        raise ValueError(
            f"targets: sample {first} of the batch has the label {int(targets[first])}, which the loss ignores, and "
            f"{method} needs a label of each sample; leave out the samples without one"
        )


def _is_plain_cross_entropy(loss_fn: TrainingLoss) -> bool:
    if isinstance(loss_fn, nn.CrossEntropyLoss):
        return loss_fn.weight is None and loss_fn.label_smoothing == 0 and loss_fn.reduction == "mean"
    return loss_fn is cross_entropy
