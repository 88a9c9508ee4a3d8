"""Images in the memory layout in which convolutions run fastest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def in_fastest_layout(inputs: Tensor, model: nn.Module, takes: Callable[[Tensor], object]) -> Tensor:
    """Images channels last where the model has convolutions in float32, which run faster so; else as they are.

    Args:
        inputs: (n, ...).
        model: that they are for.
        takes: runs the model on a few inputs; raises RuntimeError where it cannot take the layout.
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if not convolves or inputs.ndim != 4 or inputs.dtype != torch.float32:
        return inputs
    last = _channels_last(inputs)
    try:
        takes(last[:2])
    except RuntimeError:
        # such as a view that only the usual layout allows
        return inputs
    return last


def _channels_last(images: Tensor) -> Tensor:
    if images.shape[1] > 1:
        return images.contiguous(memory_format=torch.channels_last)
    # of one channel both layouts are the same in memory; these strides are those that torch takes for channels last
    height, width = images.shape[2:]
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))
