"""The positions of a batch's samples in the training set, as the caller passes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ncsam.methods.batches import Batch, samples_in


def checked_positions(indices: Any, inputs: Batch, known: int | None) -> Tensor | None:
    """The positions, int64 (batch,).

    Args:
        indices: whole numbers in a tensor, a NumPy array or a list; None where there are none.
        inputs: the batch.
        known: number of samples that the method or its loss knows. Without it, positions on a GPU are not looked at,
            because a step would wait for it.

    Raises:
        ValueError: other numbers, another shape, a negative position, or one outside of what is known.
    """
    if indices is None:
        return None
    try:
        found = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"indices: must be whole numbers, int64 (batch,): {error}") from error
    samples = samples_in(inputs)
    is_whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if not is_whole or found.ndim != 1 or (samples is not None and len(found) != samples):
        count = "batch" if samples is None else samples
        raise ValueError(
            f"indices: must be the positions of the batch's samples in the training set, int64 ({count},), got "
            f"{found.dtype} of shape {tuple(found.shape)}; give those that the batch was taken with, such as "
            "order[start : start + batch_size]"
        )
    if len(found) and (known is not None or found.device.type == "cpu"):
        low, high = (int(bound) for bound in found.aminmax())
        if low < 0 or (known is not None and high >= known):
            outside = low if low < 0 else high
            of_known = "" if known is None else f" of the {known} that the method or its loss was made for"
            raise ValueError(
                f"indices: {outside} is no position of a sample in the training set{of_known}; count from 0, and give "
                "samples= as the size of the training set"
            )
    return found.long()
