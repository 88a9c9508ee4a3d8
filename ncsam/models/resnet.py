"""Residual networks of He et al. 2016 for small images: 6 n + 2 layers with few channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ncsam.models.initialization import he_normal
from ncsam.models.stages import BasicBlock, convolution_norm_relu, mean_and_linear, residual_stages


class PaddedShortcut(nn.Module):
    """A shortcut that takes every `stride`-th row and column and adds channels of zeros (He et al. 2016, option A)."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, channels + new, height / stride, width / stride)."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, 0, self.new_channels))


def _block(before: int, after: int, stride: int) -> nn.Module:
    return BasicBlock(before, after, stride, PaddedShortcut(stride, after - before))


def resnet(input_shape: Sequence[int], num_classes: int, *, depth: int = 20, width: int = 16) -> nn.Module:
    """The residual network of He et al. (2016), section 4.2: three stages of 1, 2 and 4 times `width` channels.

    Initial weights are those of He et al. 2015 (`he_normal`), as in the paper. The bias of the head starts at 0, as in
    the authors' code.

    Raises:
        ValueError: the depth is not 6 n + 2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth: must be 8, 14, 20, ... (6 n + 2), got {depth}")
    channels = (width, 2 * width, 4 * width)
    head = mean_and_linear(channels[-1], num_classes)
    nn.init.zeros_(head[-1].bias)  # type: ignore[arg-type]
    model = nn.Sequential(
        *convolution_norm_relu(input_shape[0], width),
        *residual_stages(_block, width, channels, 3 * [(depth - 2) // 6]),
        *head,
    )
    return he_normal(model)
