"""Architectures by name; each a plain `torch.nn.Module`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn


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


MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn, "mlp": mlp}


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
    name: str, input_shape: Sequence[int], num_classes: int, *, seed: int, **options: Sequence[int]
) -> nn.Module:
    """Builds a model with weights drawn from `seed`; the global random state stays as it was.

    Args:
        name: one of `MODELS`.
        input_shape: channels, height, width of one input.
        num_classes: number of outputs.
        seed: of the initial weights.
        options: of the architecture: `hidden` widths of `"mlp"`, `channels` of `"cnn"`.

    Raises:
        ValueError: unknown name or option.
    """
    unknown = sorted(set(options) - set(known := model_options(name)))
    if unknown:
        raise ValueError(f"model: {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return MODELS[name](input_shape, num_classes, **options)
