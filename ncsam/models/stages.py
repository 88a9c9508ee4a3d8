"""Parts that residual networks share: basic block, stages, stem and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm beside a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, before: int, after: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; half the height and width of the input with stride 2."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def residual_stages(
    block: Callable[[int, int, int], nn.Module], before: int, channels: Sequence[int], depths: Sequence[int]
) -> list[nn.Module]:
    """All blocks in order. The first block of a stage has stride 2; in the first stage it has stride 1.

    Args:
        block: (channels before, channels after, stride) -> block.
        before: number of channels that the first block takes.
        channels: number of channels of each stage.
        depths: number of blocks of each stage.
    """
    blocks = []
    for stage, (after, depth) in enumerate(zip(channels, depths, strict=True)):
        for place in range(depth):
            blocks.append(block(before, after, 2 if stage > 0 and place == 0 else 1))
            before = after
    return blocks


def mean_and_linear(channels: int, num_classes: int) -> list[nn.Module]:
    """The mean over all pixels, then the linear head."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def convolution_norm_relu(before: int, after: int) -> list[nn.Module]:
    """A 3 x 3 convolution without bias, BatchNorm and ReLU: the stem for small images."""
    return [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
