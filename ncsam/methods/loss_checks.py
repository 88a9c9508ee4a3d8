"""Checks of the outputs and the loss of a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ncsam.methods.batches import Batch, rows_of, samples_in

ALLOWED = 1e-3
"""Largest relative difference between the loss of a batch and the mean over its pieces; 0.05 in half precision."""


def checked_loss(loss_fn: Callable[..., Any], outputs: Any, targets: Batch, *indices: Tensor) -> Tensor:
    """The mean loss of outputs.

    Raises:
        ValueError: the loss fails, or is no scalar tensor.
    """
    try:
        loss = loss_fn(outputs, targets, *indices)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        if "memory" in str(error):
            raise
        remedy = "; give torch.tensor(targets)" if isinstance(targets, list) else ""
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
    field: str = "micro_batch_size",
) -> None:
    """Checks that the loss of a batch is the weighted mean of the losses of its pieces, such as micro-batches.

    Args:
        loss_fn: (outputs, targets) -> mean loss.
        outputs: of the pieces.
        targets: of these pieces.
        parts: (pieces,), what each adds to the mean: its loss times its share.
        field: what an error names.

    Raises:
        ValueError: the loss is another.
    """
    leaves = tree_leaves((outputs, targets))
    if not all(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in leaves):
        return
    whole = checked_loss(loss_fn, _joined(outputs), _joined(targets))
    mean = parts.sum()
    # parts of both signs may cancel, and leave their rounding
    size = torch.maximum(whole.abs(), parts.abs().sum())
    allowed = ALLOWED if whole.dtype in (torch.float32, torch.float64) else 0.05
    # a piece without a label has the mean NaN
    if torch.isfinite(whole) and not (whole - mean).abs() <= allowed * size:
        raise ValueError(
            f"{field}: the loss of the batch is {whole.item():.6g}, but the mean over its pieces is "
            f"{mean.item():.6g}: the loss is no mean over the samples (class weights, ignored labels, a sum, or "
            "samples that are compared); give count=, what the mean loss of a piece divides by, or one of torch's own "
            "losses, whose weights and ignored labels are known"
        )


@torch.no_grad()
def check_that_halves_add_up(loss_fn: Callable[..., Any], outputs: Any, targets: Batch) -> None:
    """Checks that the loss of one rank's part of a batch is the mean over its samples, as the ranks are weighted by.

    Nothing is checked of a part that cannot be cut.

    Raises:
        ValueError: the loss is another.
    """
    samples = samples_in((outputs, targets)) or 1
    if samples < 2:
        return
    halves = [slice(0, samples // 2), slice(samples // 2, samples)]
    cut_outputs, cut_targets = ([rows_of(part, rows) for rows in halves] for part in (outputs, targets))
    parts = [
        checked_loss(loss_fn, *half) * ((rows.stop - rows.start) / samples)
        for *half, rows in zip(cut_outputs, cut_targets, halves, strict=True)
    ]
    check_that_pieces_add_up(loss_fn, cut_outputs, cut_targets, torch.stack(parts), field="loss_fn")


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


def _joined(pieces: Sequence[Any]) -> Any:
    return tree_map(lambda *leaves: torch.cat(leaves), *pieces)


def _forms(tree: Any) -> str:
    found = [f"{tuple(leaf.shape)} {leaf.dtype}" for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return ", ".join(found[:3]) or type(tree).__name__
