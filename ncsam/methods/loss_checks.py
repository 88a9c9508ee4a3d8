"""Checks of the outputs and the loss of a pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ncsam.methods.as_given import as_given
from ncsam.methods.batches import Batch, remedy_of_no_tensors, rows_of, samples_in
from ncsam.methods.deep_copies import deep_copy
from ncsam.methods.loss_and_slopes import ALLOWED, ALLOWED_IN_HALF, LossAndSlopes, slopes_add_up
from ncsam.random_state import borrowed_generators


def checked_loss(loss_fn: Callable[..., Any], outputs: Any, targets: Batch, *indices: Tensor) -> Tensor:
    """The mean loss of outputs.

    Raises:
        ValueError: the loss fails, or is no scalar tensor.
    """
    try:
        loss = loss_fn(outputs, as_given(targets), *indices)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        if "memory" in str(error):
            raise
        remedy = remedy_of_no_tensors("targets", targets)
        if not isinstance(outputs, Tensor):
            key = next(iter(outputs), 0) if isinstance(outputs, Mapping) else 0
            remedy += (
                f"; the loss gets the model's {type(outputs).__name__} as it is: let it take that, or say by forward= "
                f"which outputs it takes, such as forward=lambda model, inputs: model(inputs)[{key!r}]"
            )
        raise ValueError(
            f"loss_fn: fails on outputs {_forms(outputs)} and targets {_forms(targets)}: {error}{remedy}"
        ) from error
    if not isinstance(loss, Tensor):
        raise ValueError(
            f"loss_fn: must return a scalar tensor, got {type(loss).__name__}; of several parts, return their sum"
        )
    if loss.numel() != 1:
        raise ValueError(
            f"loss_fn: must return a scalar, the mean over the samples, got shape {tuple(loss.shape)}; "
            "use reduction='mean'"
        )
    return loss


@torch.no_grad()
def check_that_pieces_add_up(
    loss_fn: Callable[..., Any],
    outputs: Sequence[Any],
    targets: Sequence[Batch],
    parts: Tensor,
    shares: Sequence[float] | None = None,
) -> None:
    """Checks that the loss of a batch is the weighted mean of the losses of its pieces, such as micro-batches.

    Args:
        loss_fn: (outputs, targets) -> mean loss.
        outputs: of the pieces.
        targets: of these pieces.
        parts: (pieces,), what each adds to the mean: its loss times its share.
        shares: of the pieces. If given, the gradients in the outputs are compared too, with copies of the loss.

    Raises:
        ValueError: the loss is another.
    """
    leaves = tree_leaves((outputs, targets))
    if not all(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in leaves):
        return
    whole = checked_loss(loss_fn, _joined(outputs), _joined(targets))
    if not _adds_up(whole, parts):
        raise _no_mean("micro_batch_size", whole, parts)
    if shares is not None and not _slopes_of_pieces_add_up(loss_fn, outputs, targets, shares, whole):
        raise _no_mean("micro_batch_size", whole, parts)


def check_that_halves_add_up(
    loss_fn: Callable[..., Any], outputs: Any, targets: Batch, whole: Tensor
) -> bool:
    """Checks that the loss of one rank's part of a batch is the mean over its samples, as the ranks are weighted by.

    Args:
        loss_fn, outputs, targets: as for `check_that_it_is_a_mean`.
        whole: the loss of the part, as it was computed for the step.

    A part of fewer than 4 samples is checked with each of them twice, because a loss may treat a single one
    differently. A single one can show no more than a sum. Few samples may hide what a loss does to others, so that the
    next part is checked too.

    Returns:
        Whether no later part has to be checked: this one has 4 samples and a finite loss.

    Raises:
        ValueError: the loss is no mean, or cannot be copied.
    """
    samples = samples_in((outputs, targets)) or 0
    if samples == 0 or not torch.isfinite(whole):
        return False
    if samples < 4:
        twice = torch.arange(samples, device=whole.device).repeat_interleave(2)
        pairs = rows_of(outputs, twice), rows_of(targets, twice)
        check_that_it_is_a_mean(loss_fn, *pairs, [1, 1] if samples == 1 else [2] * samples)
        return False
    check_that_it_is_a_mean(loss_fn, outputs, targets, [samples // 2, samples - samples // 2], whole)
    return True


@torch.no_grad()
def check_that_it_is_a_mean(
    loss_fn: Callable[..., Any],
    outputs: Any,
    targets: Batch,
    sizes: Sequence[int],
    whole: Tensor | None = None,
) -> None:
    """Checks that the loss of a batch is the weighted mean of the losses of its pieces, each weighted by its samples.

    The gradients in the outputs are compared too: near a constant output the losses of all samples are about equal. The
    random state stays as it is, and so does a loss with a state of its own, if it is an object. A loss that gives
    another number when it is called again draws or has a state, and is not judged.

    Args:
        loss_fn: (outputs, targets) -> mean loss.
        outputs, targets: of the batch.
        sizes: of the pieces, together the batch.
        whole: the loss of the batch; None: it is computed.

    Raises:
        ValueError: the loss is another, or cannot be copied.
    """
    own = _copied(loss_fn)
    shares = [size / sum(sizes) for size in sizes]

    def found(rows: slice) -> LossAndSlopes:
        labels = rows_of(targets, rows)
        return LossAndSlopes.of(lambda some: checked_loss(own, some, labels), rows_of(outputs, rows))

    with borrowed_generators(tree_leaves(outputs)[0].device):
        batch = found(slice(None))
        whole = batch.loss if whole is None else whole.detach()
        parts = [found(slice(end - size, end)) for size, end in zip(sizes, accumulate(sizes), strict=True)]
        together = torch.stack([part.loss * share for part, share in zip(parts, shares, strict=True)])
        if _adds_up(whole, together) and slopes_add_up(batch, parts, shares):
            return
        again = checked_loss(own, outputs, targets)
    # a part whose labels are all ignored has no loss
    size_of_both = torch.maximum(whole.abs(), together.nan_to_num().abs().sum())
    if all((each - whole).abs() <= 0.01 * _allowed(whole) * size_of_both for each in (batch.loss, again)):
        raise _no_mean("loss_fn", whole, together)


def check_that_inputs_fit(model: nn.Module, inputs: Batch, error: Exception) -> None:
    """Raises ValueError if inputs have another dtype or device than the weights, which explains the error."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not isinstance(inputs, Tensor):
        return
    if inputs.device != parameter.device:
        remedy = "load the data" if inputs.is_meta else f"move them by inputs.to({str(parameter.device)!r})"
        raise ValueError(
            f"inputs: lie on the device {str(inputs.device)!r}, and the model's weights on {str(parameter.device)!r}; "
            f"{remedy}: {error}"
        ) from error
    weights = parameter.dtype
    if inputs.dtype == weights:
        return
    if not inputs.is_floating_point():
        # an embedding takes whole numbers, and its errors have other causes
        if "same" in str(error):
            raise ValueError(
                f"inputs: are whole numbers in {inputs.dtype}, and the model's weights in {weights}; give "
                f"inputs.float(), for images of bytes normalized, such as inputs.float() / 255: {error}"
            ) from error
        return
    raise ValueError(
        f"inputs: are in {inputs.dtype}, and the model's weights in {weights}; cast one of them "
        f"(inputs.to({weights})): {error}"
    ) from error


def _slopes_of_pieces_add_up(
    loss_fn: Callable[..., Any],
    outputs: Sequence[Any],
    targets: Sequence[Batch],
    shares: Sequence[float],
    whole: Tensor,
) -> bool:
    try:
        own = _copied(loss_fn)
    except ValueError:
        # its state must not move
        return True

    def found(output: Any, labels: Batch) -> LossAndSlopes:
        return LossAndSlopes.of(lambda some: checked_loss(own, some, labels), output)

    with borrowed_generators(tree_leaves(outputs)[0].device):
        batch = found(_joined(outputs), _joined(targets))
        parts = [found(*pair) for pair in zip(outputs, targets, strict=True)]
    # a loss that draws or has a state is not judged
    return bool((batch.loss - whole).abs() > 1e-5 * whole.abs()) or slopes_add_up(batch, parts, shares)


def _joined(pieces: Sequence[Any]) -> Any:
    return tree_map(lambda *leaves: torch.cat(leaves), *pieces)


def _forms(tree: Any) -> str:
    found = [f"{tuple(leaf.shape)} {leaf.dtype}" for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return ", ".join(found[:3]) or type(tree).__name__


def _allowed(whole: Tensor) -> float:
    return ALLOWED if whole.dtype in (torch.float32, torch.float64) else ALLOWED_IN_HALF


def _adds_up(whole: Tensor, parts: Tensor) -> bool:
    # parts of both signs may cancel, and leave their rounding
    size = torch.maximum(whole.abs(), parts.abs().sum())
    # a piece without a label has the mean NaN
    return not torch.isfinite(whole) or bool((whole - parts.sum()).abs() <= _allowed(whole) * size)


def _no_mean(field: str, whole: Tensor, parts: Tensor) -> ValueError:
    return ValueError(
        f"{field}: the loss of the batch is {whole.item():.6g}, but the mean over its pieces is "
        f"{parts.sum().item():.6g}: the loss is no mean over the samples (class weights, ignored labels, a sum, or "
        "samples that are compared); give count=, what the mean loss of a piece divides by, or one of torch's own "
        "losses, whose weights and ignored labels are known"
    )


def _copied(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of a loss, whose state may move; functions, also those with arguments, themselves."""
    # a method's object may be the whole training
    if isinstance(loss_fn, MethodType | partial):
        return loss_fn
    try:
        return deep_copy("loss_fn", loss_fn) if isinstance(loss_fn, nn.Module) else copy.deepcopy(loss_fn)
    except Exception as error:  # an object may fail to be copied in any way
        raise ValueError(
            f"loss_fn: {type(loss_fn).__name__} cannot be copied to check that it is a mean over the samples; give "
            f"count=, what its mean divides by, such as count=lambda batch: len(batch[1]): {error}"
        ) from error
