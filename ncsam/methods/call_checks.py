"""Checks of how a method is made and called, which find common mistakes and say what to give."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ncsam.methods.batches import Batch
from ncsam.methods.known_losses import as_module

SUM_TOLERANCE = 1e-2
"""Difference from 1 up to which the sum of a sample's outputs is one of probabilities, in half precision too."""
LOG_TOLERANCE = 0.1
"""Logarithm of the sum of a sample's exponentiated outputs up to which they are logarithms of probabilities."""
OF_AN_OPTIMIZER = ("step", "zero_grad")


def check_model_and_loss(model: Any, loss_fn: Any) -> None:
    """Raises TypeError unless the model is a module and the loss a function, and says so where they are swapped."""
    if _has_weights(loss_fn) and not _has_weights(model):
        raise TypeError(
            f"model, loss_fn: {type(model).__name__} has no weights, and {type(loss_fn).__name__} has some: they are "
            "swapped; give the model first, then the loss"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model: must be a torch.nn.Module, got {type(model).__name__}; a method takes the model and the loss, "
            "the parameters are your optimizer's"
        )
    if not callable(loss_fn) or isinstance(loss_fn, type):
        found = f"the class {loss_fn.__name__}" if isinstance(loss_fn, type) else type(loss_fn).__name__
        raise TypeError(
            f"loss_fn: must be called with (outputs, targets), got {found}; build_loss makes one by name, and a "
            "class makes one when it is called"
        )


def check_is_no_loss(inputs: Batch) -> None:
    """Raises ValueError for a scalar in the place of a batch, as `loss.backward()` suggests."""
    if isinstance(inputs, Tensor) and inputs.ndim == 0:
        raise ValueError(
            "inputs: got a scalar, such as a loss that is computed already; a method runs the model itself, at several "
            "weights: give (inputs, targets), or closure=, a function that computes the loss"
        )


def missing_attribute(method: object, name: str) -> str:
    """The error of an attribute that a method does not have."""
    kind = type(method).__name__
    if name not in OF_AN_OPTIMIZER:
        return f"{kind!r} object has no attribute {name!r}"
    return (
        f"{name}: {kind} is no optimizer and has none; method.backward(inputs, targets) fills .grad, and the optimizer "
        f"of your choice, made from method.parameters(), has {name}()"
    )


def takes_by_name(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether the model can be called with arguments of these names. A compiled model is asked what it wraps."""
    forward = getattr(model, "_orig_mod", model).forward
    try:
        inspect.signature(forward).bind(**dict.fromkeys(names))
    except (TypeError, ValueError):
        return False
    return True


@torch.no_grad()
def warn_of_probabilities(loss_fn: object, outputs: Any) -> None:
    """Warns if outputs are of another kind than a loss of torch takes: probabilities for scores, and the like.

    Args:
        loss_fn: the loss; only cross-entropy and the negative log-likelihood of torch are known.
        outputs: (batch, classes, ...).

    Warns:
        UserWarning: cross-entropy gets probabilities, or the log-likelihood gets no logarithms of probabilities.
    """
    loss_fn = as_module(loss_fn)
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[1] < 2 or outputs.numel() == 0:
        return
    if isinstance(loss_fn, nn.CrossEntropyLoss):
        if outputs.amin() >= 0 and (outputs.sum(1) - 1).abs().amax() <= SUM_TOLERANCE:
            warnings.warn(
                "model: its outputs are probabilities (none is negative, and those of a sample sum to 1), and "
                "CrossEntropyLoss takes the softmax itself, so that gradients come out small and no confident "
                "prediction can be learned; leave the softmax out of the model",
                stacklevel=2,
            )
    elif isinstance(loss_fn, nn.NLLLoss) and outputs.logsumexp(1).abs().amax() > LOG_TOLERANCE:
        warnings.warn(
            "model: its outputs are no logarithms of probabilities, which NLLLoss takes; end the model with "
            "LogSoftmax(1), or take CrossEntropyLoss",
            stacklevel=2,
        )


def _has_weights(part: Any) -> bool:
    return isinstance(part, nn.Module) and any(True for _ in part.parameters())


def check_that_it_has_rows(output: Any) -> None:
    """Raises ValueError for outputs that cannot be cut and joined to check that the loss is a mean over the samples."""
    if not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in tree_leaves(output)):
        raise ValueError(
            f"model: returns {type(output).__name__}, not tensors with a row for each sample, so that nothing tells "
            "whether the loss of parts of a batch adds up to that of the batch; say by forward= which outputs the loss "
            "takes, or give count=, what the mean loss of a part divides by"
        )
