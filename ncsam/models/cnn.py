"""Small convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ncsam.models.stages import convolution_norm_relu, mean_and_linear


def cnn(input_shape: Sequence[int], num_classes: int, *, channels: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """Blocks of a 3 x 3 convolution, BatchNorm and ReLU, with max pooling between them, then the mean over pixels."""
    widths = [input_shape[0], *channels]
    layers: list[nn.Module] = []
    for block, (before, after) in enumerate(pairwise(widths)):
        if block > 0:
            layers.append(nn.MaxPool2d(2))
        layers += convolution_norm_relu(before, after)
    return nn.Sequential(*layers, *mean_and_linear(widths[-1], num_classes))
