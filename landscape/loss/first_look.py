"""What is looked at once, on a few samples, before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from landscape.loss.batches import Batch, copied_to, rows_of
from landscape.loss.checks import (
    check_that_classes_count_alike,
    check_that_loss_is_a_mean,
    checked_outputs,
    telling_rows,
)
from landscape.loss.counts import Counting, Pair
from landscape.loss.mean_checks import check_that_losses_add_up, telling_samples
from landscape.loss.model_checks import (
    check_that_the_copy_stands_alone,
    check_that_the_loss_reads_no_weights,
)
from landscape.loss.reading import Chunks
from landscape.loss.task import LossFunction

FEWEST = 8
"""Samples that are run together, also where chunks are smaller."""


def takes_derivatives(forward: Callable[[Batch], object], chunks: Chunks, device: torch.device) -> bool:
    """Whether a forward pass differentiates by itself, as that of a PINN does, so that torch must record it.

    Raises:
        ValueError: the model cannot be run on a batch.
    """
    try:
        with torch.inference_mode():
            forward(_few(chunks, device)[0])
    except RuntimeError:
        with torch.inference_mode(False), torch.enable_grad():
            forward(_few(chunks, device)[0])
        return True
    except (TypeError, AttributeError) as error:
        inputs = chunks.first(1)[0]
        if isinstance(inputs, Tensor):
            raise
        raise ValueError(
            f"data: the model cannot be run on {type(inputs).__name__} inputs: {error}; say by forward= how the model "
            "is run on a batch"
        ) from error
    return False


def look_at_samples(
    forward: Callable[[Batch], Any],
    loss_fn: LossFunction,
    counting: Counting,
    chunks: Chunks,
    *,
    are_inputs_and_targets: bool,
    chunk_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Looks at the outputs and losses of a hundred samples.

    Args:
        forward: inputs -> outputs at the model's weights.
        loss_fn: (outputs, targets) -> mean loss.
        counting: how much a batch counts for.
        chunks: of the data.
        are_inputs_and_targets: whether these are tensors, so that their outputs have a row for each sample.
        chunk_size: most samples that are run at a time.
        dtype: of the weights.
        device: of the weights.

    Raises:
        ValueError: the loss of samples together is not the counted mean of their losses; outputs are random, or depend
            on the other samples.
    """
    if not are_inputs_and_targets:

        def loss_of(pair: Pair) -> Tensor:
            inputs, targets = copied_to(pair, device)
            return loss_fn(forward(inputs), targets).detach()

        check_that_losses_add_up(loss_of, counting, telling_samples(chunks.all_or_first(), chunk_size), dtype)
        return
    inputs, targets = chunks.all_or_first()
    rows = telling_rows(targets)

    def pieces(rows: Tensor) -> tuple[Tensor, ...]:
        # some models cannot take a single sample
        return rows.tensor_split(math.ceil(len(rows) / max(chunk_size, FEWEST)))

    def outputs_of(rows: Tensor) -> Any:
        parts = [forward(copied_to(rows_of(inputs, part), device)) for part in pieces(rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    outputs = checked_outputs(outputs_of, rows, device)
    check_that_loss_is_a_mean(loss_fn, counting, outputs, targets[rows].to(device), dtype)
    check_that_classes_count_alike(loss_fn, counting, outputs[:1], targets, dtype)


def look_at_dependence(
    forward: Callable[[Batch], Any],
    loss_fn: LossFunction,
    chunks: Chunks,
    device: torch.device,
    original: nn.Module,
) -> None:
    """Looks at which weights the outputs and the loss of a few samples are computed with.

    Raises:
        ValueError: with weights outside of the copy of the model.
    """
    inputs, targets = _few(chunks, device)
    with torch.inference_mode(False), torch.enable_grad():
        outputs = forward(inputs)
        check_that_the_copy_stands_alone(outputs, original)
        detached = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, outputs)
        check_that_the_loss_reads_no_weights(loss_fn(detached, targets), original)


def _few(chunks: Chunks, device: torch.device) -> Pair:
    return copied_to(chunks.first(4), device)
