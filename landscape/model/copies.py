"""The copies of a model and a loss that an Objective keeps."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from landscape.data.tensor_copies import TensorsCopiedBy, constant_of_computed
from landscape.model.deep_copies import deep_copy
from landscape.model.fully_sharded import copy_of_parts, is_sharded
from landscape.model.padded_places import compute_padded_places
from landscape.model.recurrent_layers import avoid_cudnn_recurrence

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without wrappers that change only how it runs: `torch.compile`, DataParallel, DistributedDataParallel.

    Some wrappers cannot be differentiated twice. Others cannot be called with other weights.
    """
    while True:
        inner: Any = getattr(model, "_orig_mod", None)
        if isinstance(model, PARALLEL):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def measured_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that can be differentiated twice.

    Raises:
        TypeError: the model cannot be copied.
    """
    copy_of_it = copy_of_parts(model) if is_sharded(model) else copied("model", model)
    copy_of_it.eval()
    avoid_cudnn_recurrence(copy_of_it)
    make_gradients_plain(copy_of_it)
    compute_padded_places(copy_of_it)
    return copy_of_it


def make_gradients_plain(model: nn.Module) -> None:
    """Turns off, in place, gradients of embeddings that are sparse or scaled.

    Gradients are joined to one vector, which takes dense tensors. Gradients that are divided by the counts of words are
    not those of the loss.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
            module.scale_grad_by_freq = False


def constant_copy(loss_fn: nn.Module) -> nn.Module:
    """A copy of a loss in evaluation mode, whose own parameters are constants."""
    constant = copied("loss_fn", loss_fn).eval()
    if learned := sum(p.numel() for p in loss_fn.parameters() if p.requires_grad):
        warnings.warn(
            f"loss_fn: its own {learned} trainable parameters are constants of the measured loss, not variables; put "
            "them into the model to make them variables, or freeze them by requires_grad_(False)",
            stacklevel=3,
        )
    return constant.requires_grad_(False)


def copied(field: str, module: nn.Module) -> nn.Module:
    """A deep copy.

    Tensors that a module computed from its weights and keeps, such as a feature or a pruned weight, are constants in
    the copy, until its next forward pass computes them anew.

    Raises:
        TypeError: the module cannot be copied, or its copy shares weights with it. The message names the field.
    """
    try:
        with TensorsCopiedBy(constant_of_computed):
            return deep_copy(field, module)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if str(error).startswith(f"{field}: "):
            raise
        raise TypeError(f"{field}: Objective keeps a copy, but it cannot be copied: {error}") from error
