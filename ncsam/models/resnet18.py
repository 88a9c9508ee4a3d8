"""ResNet-18 and ResNet-34 with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ncsam.models.initialization import he_normal
from ncsam.models.stages import BasicBlock, convolution_norm_relu, mean_and_linear, residual_stages


def resnet18(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-18 of He et al. 2016, table 1, with a 3 x 3 stem of stride 1 and no max pooling.

    This is the form for CIFAR: four stages of 1, 2, 4 and 8 times `width` channels.
    """
    return _resnet(input_shape, num_classes, width, (2, 2, 2, 2))


def resnet34(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-34 of He et al. 2016, table 1, with the stem of `resnet18`."""
    return _resnet(input_shape, num_classes, width, (3, 4, 6, 3))


def _block(before: int, after: int, stride: int) -> nn.Module:
    """A basic block. Where the shape changes, the shortcut is a 1 x 1 convolution (option B)."""
    shortcut: nn.Module = nn.Identity()
    if stride != 1 or before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return BasicBlock(before, after, stride, shortcut)


def _resnet(input_shape: Sequence[int], num_classes: int, width: int, depths: Sequence[int]) -> nn.Module:
    channels = [width * 2**stage for stage in range(4)]
    model = nn.Sequential(
        *convolution_norm_relu(input_shape[0], width),
        *residual_stages(_block, width, channels, depths),
        *mean_and_linear(channels[-1], num_classes),
    )
    return he_normal(model)
