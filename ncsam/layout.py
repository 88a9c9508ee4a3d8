"""The memory layout that makes a model's convolutions fastest."""

from __future__ import annotations

import torch
from torch import nn

MIN_CHANNELS = 6
"""Narrower convolutions are slower with channels last (4 channels: 0.9 times as fast, 6: 1.2 times, 16: 1.4 times, on
the CPU)."""


MIN_STRIDED_CHANNELS = 16
"""oneDNN 3.12 writes past its workspace in the weights' gradient, channels last, of 1x1 convolutions with a stride and
fewer channels (fewer than 8 without AVX-512; uxlfoundation/oneDNN issue 6035), which ends the process."""


def in_fastest_layout(model: nn.Module) -> nn.Module:
    """Puts a model's weights channels last, in place, if it has convolutions wide enough; returns the model.

    The convolutions then take and give images channels last, whatever the layout of the model's inputs. Results change
    by rounding only.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    widest = max((min(module.in_channels, module.out_channels) for module in convolutions), default=0)
    if widest >= MIN_CHANNELS and not any(_ends_the_process(module) for module in convolutions):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _ends_the_process(convolution: nn.Conv2d) -> bool:
    is_strided = max(convolution.kernel_size) == 1 and max(convolution.stride) > 1
    return is_strided and convolution.in_channels < MIN_STRIDED_CHANNELS
