"""ResNet-18 and ResNet-34 with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ncsam.models.initialization import he_normal
from ncsam.models.stages import convolution_norm_relu, mean_and_linear, residual_stages


class ProjectionBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that is a 1 x 1 convolution where the shape changes (option B)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output; half the height and width of the input with stride 2."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-18 of He et al. 2016, table 1, with a 3 x 3 stem of stride 1 and no max pooling.

    So it is used on CIFAR: four stages of 1, 2, 4 and 8 times `width` channels.
    """
    return _resnet(input_shape, num_classes, width, (2, 2, 2, 2))


def resnet34(input_shape: Sequence[int], num_classes: int, *, width: int = 64) -> nn.Module:
    """ResNet-34 of He et al. 2016, table 1, with the stem of `resnet18`."""
    return _resnet(input_shape, num_classes, width, (3, 4, 6, 3))


def _resnet(input_shape: Sequence[int], num_classes: int, width: int, depths: Sequence[int]) -> nn.Module:
    channels = [width * 2**stage for stage in range(4)]
    model = nn.Sequential(
        *convolution_norm_relu(input_shape[0], width),
        *residual_stages(ProjectionBlock, width, channels, depths),
        *mean_and_linear(channels[-1], num_classes),
    )
    return he_normal(model)
