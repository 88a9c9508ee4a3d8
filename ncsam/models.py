"""Architectures by name; each a plain `torch.nn.Module`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(input_shape: Sequence[int], num_classes: int, *, hidden: Sequence[int] = (256, 256)) -> nn.Module:
    """A fully connected ReLU network on flattened inputs."""
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def cnn(input_shape: Sequence[int], num_classes: int, *, channels: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """Blocks of 3 x 3 convolution, BatchNorm and ReLU, halved by max pooling in between, then a global mean."""
    widths = [input_shape[0], *channels]
    layers: list[nn.Module] = []
    for block, (before, after) in enumerate(pairwise(widths)):
        if block > 0:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


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


def resnet(input_shape: Sequence[int], num_classes: int, *, depth: int = 20) -> nn.Module:
    """The residual network of He et al. (2016), section 4.2: three stages of 16, 32 and 64 channels.

    Raises:
        ValueError: a depth that is not 6 n + 2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth: must be 8, 14, 20, ... (6 n + 2), got {depth}")
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    width = 16
    for stage in (16, 32, 64):
        for block in range((depth - 2) // 6):
            layers.append(ResidualBlock(width, stage, 2 if stage > 16 and block == 0 else 1))
            width = stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn, "mlp": mlp, "resnet": resnet}


def model_options(name: str) -> list[str]:
    """The options of an architecture.

    Raises:
        ValueError: unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"model: unknown name {name!r}; known: {', '.join(sorted(MODELS))}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def build_model(
    name: str, input_shape: Sequence[int], num_classes: int, *, seed: int, **options: Sequence[int] | int
) -> nn.Module:
    """Builds a model with weights drawn from `seed`; the global random state stays as it was.

    Args:
        name: one of `MODELS`.
        input_shape: channels, height, width of one input.
        num_classes: number of outputs.
        seed: of the initial weights.
        options: of the architecture: `hidden` widths of `"mlp"`, `channels` of `"cnn"`, `depth` of `"resnet"`.

    Raises:
        ValueError: unknown name or option.
    """
    unknown = sorted(set(options) - set(known := model_options(name)))
    if unknown:
        raise ValueError(f"model: {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return MODELS[name](input_shape, num_classes, **options)
