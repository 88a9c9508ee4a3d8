"""VGG networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ncsam.models.initialization import he_normal
from ncsam.models.stages import mean_and_linear


def vgg19_bn(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """VGG-19 (Simonyan and Zisserman 2015, configuration E) with BatchNorm and one linear layer as its head.

    This is the form for CIFAR: 16 convolutions with bias, each with BatchNorm and ReLU. Max pooling halves the image
    five times; then follows the mean over the pixels that are left. A last odd row or column is pooled alone, so that
    images of 28 pixels end with one pixel, as those of 32 do.
    """
    layers: list[nn.Module] = []
    before = input_shape[0]
    for stage, depth in zip((1, 2, 4, 8, 8), (2, 2, 4, 4, 4), strict=True):
        for _ in range(depth):
            after = stage * width
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return he_normal(nn.Sequential(*layers, *mean_and_linear(before, num_classes)))
