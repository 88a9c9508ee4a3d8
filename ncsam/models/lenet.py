"""LeNet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def lenet(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU, max pooling and a linear head, as most use it today.

    It has two 5 x 5 convolutions of 6 and 16 channels, then fully connected layers of 120 and 84. Images smaller than
    32 pixels are padded by 2, so that the 28 pixels of MNIST become the 32 of the paper.

    Raises:
        ValueError: the images are too small for both convolutions.
    """
    channels, height, width = input_shape
    padding = 2 if min(height, width) < 32 else 0
    # twice: a convolution removes 4 pixels, and pooling halves the rest
    rows, columns = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in (height, width))
    if min(rows, columns) < 1:
        raise ValueError(f"input_shape: 'lenet' needs images of at least 12 x 12, got {height} x {width}")
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
