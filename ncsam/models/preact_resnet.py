"""Pre-activation ResNet-18 and ResNet-34 with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ncsam.models.initialization import he_normal
from ncsam.models.stages import mean_and_linear, residual_stages


class PreactivationBlock(nn.Module):
    """BatchNorm, ReLU and 3 x 3 convolution, twice, beside a shortcut.

    The shortcut is the input or, where the shape changes, a 1 x 1 convolution of the activated input. Between
    the convolutions there may be dropout, as in wide residual networks.
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; half the height and width of the input with stride 2."""
        activated = torch.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        y = self.conv1(activated)
        return self.conv2(self.dropout(torch.relu(self.norm2(y)))) + shortcut


def preact_resnet18(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-18 with the blocks of He et al. 2016b (arXiv:1603.05027) and a 3 x 3 stem of stride 1.

    The mean over pixels follows the last block directly, as in the implementation that the literature on CIFAR uses.
    The paper has one more BatchNorm and ReLU between them.
    """
    return _preact_resnet(input_shape, num_classes, width, (2, 2, 2, 2))


def preact_resnet34(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-34 with the blocks and the stem of `preact_resnet18`."""
    return _preact_resnet(input_shape, num_classes, width, (3, 4, 6, 3))


def _preact_resnet(
    input_shape: Sequence[int], num_classes: int, width: int, depths: Sequence[int]
) -> nn.Module:
    channels = [width * 2**stage for stage in range(4)]
    model = nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, 1, 1, bias=False),
        *residual_stages(PreactivationBlock, width, channels, depths),
        *mean_and_linear(channels[-1], num_classes),
    )
    return he_normal(model)
