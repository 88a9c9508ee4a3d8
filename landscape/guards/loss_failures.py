"""What to do about a loss that fails on some samples, by its cause."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.batches import Batch
from landscape.data.complex_numbers import is_whole

OF_ANY_CAUSE = (
    "it must take any number of samples: a value for each sample, such as a weight, belongs into the batch "
    "(forward=, count=)"
)

SHARED = (
    "a model or loss in which the samples of a batch share something (pairs that are compared, those at risk in a "
    "partial likelihood, the capacity of experts, statistics of the batch) has no such mean: say by forward= how a "
    "batch is run; a batch stays whole if it also holds a tensor without samples, such as torch.tensor(0), and count= "
    "says how much it counts for"
)
"""What to do about a loss that is no mean over the samples, because these do not stand for themselves."""


def remedy_of_sum(whole: float, total: float, allowed: float) -> str:
    """What to do about a loss that is the sum of the losses of its parts; nothing for another loss.

    Args:
        whole: the loss of some samples.
        total: the sum of the losses of their parts.
        allowed: relative difference of two that are equal.
    """
    if not abs(whole - total) <= allowed * abs(total):
        return ""
    return (
        "it is their sum: divide by the number of samples, or choose the mean (reduction='mean'; of a model of "
        "transformers that computes its own loss, such as model.config.ctc_loss_reduction = 'mean'); else "
    )


def remedy_of(error: Exception, outputs: Any, targets: Batch) -> str:
    """What to change so that a loss takes these outputs and targets.

    Args:
        error: what the loss raised.
        outputs: of the model.
        targets: of the same samples.
    """
    if any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in tree_leaves(outputs)):
        return (
            "of complex outputs many losses take the real and imaginary parts alone: give them torch.view_as_real of "
            "outputs and targets"
        )
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
        return _of_classes(str(error), outputs) or _of_sizes(outputs, targets) or OF_ANY_CAUSE
    if isinstance(targets, Tensor):
        return (
            f"the model returns a {type(outputs).__name__}: let the loss take its tensors from it, wrap the model in a "
            "module that returns the outputs alone, or say by forward= which are wanted"
        )
    return OF_ANY_CAUSE


def _of_classes(message: str, outputs: Tensor) -> str | None:
    """The remedy of a loss that takes classes, by what torch says of the targets; None for another loss."""
    if "out of bounds" in message and outputs.ndim > 1:
        return (
            f"the outputs have {outputs.shape[1]} classes, which are numbered from 0; number the labels so, or let the "
            "loss leave one out (ignore_index=)"
        )
    if "weight tensor should be defined" in message:
        return f"give weight= a number for each of the {outputs.shape[1]} classes"
    if "to be Long" in message or "scalar type Long" in message:
        return "classes are whole numbers in int64: give targets.long()"
    if "multi-target not supported" in message:
        return (
            "classes are one number a sample: give targets.squeeze(1), or of one-hot rows targets.argmax(1)"
        )
    if "class probabilities" not in message:
        return None
    if outputs.ndim == 1:
        return (
            "the model returns one number a sample, and a loss of classes takes scores (samples, classes): leave "
            "argmax out of the model"
        )
    return "one-hot rows are probabilities: give targets.float(), or the classes by targets.argmax(1)"


def _of_sizes(outputs: Tensor, targets: Tensor) -> str | None:
    """The remedy of a loss that takes targets of the outputs' shape; None where these have it."""
    if not outputs.ndim or len(outputs) != len(targets):
        return (
            "the model returns no row of outputs for each sample: let it do so, or let the loss reshape them (axes as "
            "the model takes them: batch_first)"
        )
    if outputs.shape == targets.shape:
        return "give targets.float()" if is_whole(targets) and not is_whole(outputs) else None
    if column := broadcasts(outputs, targets):
        return column
    if targets.ndim == 1 and outputs.ndim == 2 and len(outputs) == len(targets):
        return (
            "this loss takes targets of the outputs' shape: of classes give torch.nn.functional.one_hot(targets, "
            f"{outputs.shape[1]}).float(), or take a loss of classes (nn.CrossEntropyLoss)"
        )
    return None


def broadcasts(outputs: Any, targets: Batch) -> str | None:
    """What to give where one of outputs and targets is (samples, 1) and the other (samples,); None elsewhere.

    Losses of torch compare each of the samples with each: (samples, 1) and (samples,) become (samples, samples).
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or len(outputs) != len(targets):
        return None
    kind = "" if targets.dtype.is_floating_point else ".float()"
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        return (
            f"the outputs are {tuple(outputs.shape)} and the targets {tuple(targets.shape)}: give targets.unsqueeze(-1)"
            f"{kind}"
        )
    if targets.ndim == outputs.ndim + 1 and targets.shape[-1] == 1:
        return (
            f"the outputs are {tuple(outputs.shape)} and the targets {tuple(targets.shape)}: give targets.squeeze(-1)"
            f"{kind}"
        )
    return None
