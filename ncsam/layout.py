"""The memory layout in which a model's convolutions run fastest."""

from __future__ import annotations

import torch
from torch import nn

MIN_CHANNELS = 6
"""Narrower convolutions are slower with channels last (4 channels: 0.9 times as fast, 6: 1.2 times, 16: 1.4 times, on
the CPU)."""


def in_fastest_layout(model: nn.Module) -> nn.Module:
    """Puts a model's weights channels last, in place, if it has convolutions wide enough; returns the model.

    The convolutions then take and give images channels last, whatever the layout of the model's inputs. Results change
    by rounding only.
    """
    widths = [
        min(module.in_channels, module.out_channels)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    if max(widths, default=0) >= MIN_CHANNELS:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
