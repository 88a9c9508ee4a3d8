"""Wide residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from ncsam.models.initialization import he_normal
from ncsam.models.preact_resnet import PreactivationBlock
from ncsam.models.stages import residual_stages
from ncsam.options import check_below_1


def wide_resnet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    depth: int = 28,
    widening: int = 10,
    dropout: float = 0.0,
) -> nn.Module:
    """WRN-depth-widening of Zagoruyko and Komodakis 2016 (arXiv:1605.07146), table 1.

    It has three stages of 16, 32 and 64 times `widening` channels, in blocks of two 3 x 3 convolutions.

    Args:
        input_shape: channels, height, width.
        num_classes: number of outputs.
        depth: number of convolutions, 6 n + 4.
        widening: factor on the number of channels.
        dropout: share of the activations between the convolutions of a block that are set to 0 in training.

    Raises:
        ValueError: the depth is not 6 n + 4, or the dropout is outside [0, 1).
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth: must be 10, 16, 22, ... (6 n + 4), got {depth}")
    check_below_1("dropout", dropout)
    channels = [stage * widening for stage in (16, 32, 64)]
    linear = nn.Linear(channels[-1], num_classes)
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False),
        *residual_stages(partial(PreactivationBlock, dropout=dropout), 16, channels, 3 * [(depth - 4) // 6]),
        nn.BatchNorm2d(channels[-1]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        linear,
    )
    return he_normal(model)
