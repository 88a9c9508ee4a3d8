"""Residual networks of He et al. 2016 for small images: 6 n + 2 layers with few channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ncsam.models.stages import convolution_norm_relu, mean_and_linear, residual_stages


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that pads new channels with zeros (He et al. 2016, option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.new_channels = after - before

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; half the height and width of the input with stride 2."""
        y = torch.relu(self.norm1(self.conv1(x)))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(self.norm2(self.conv2(y)) + shortcut)


def resnet(input_shape: Sequence[int], num_classes: int, *, depth: int = 20, width: int = 16) -> nn.Module:
    """The residual network of He et al. (2016), section 4.2: three stages of 1, 2 and 4 times `width` channels.

    Raises:
        ValueError: a depth that is not 6 n + 2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth: must be 8, 14, 20, ... (6 n + 2), got {depth}")
    channels = (width, 2 * width, 4 * width)
    return nn.Sequential(
        *convolution_norm_relu(input_shape[0], width),
        *residual_stages(ResidualBlock, width, channels, 3 * [(depth - 2) // 6]),
        *mean_and_linear(channels[-1], num_classes),
    )
