"""Convolutions wide enough run with channels last: the same training to rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ncsam import SAM, build_model, in_fastest_layout

CASES = [
    ("lenet", {}, (1, 28, 28), True),
    ("resnet", {"depth": 8}, (3, 32, 32), True),
    ("cnn", {"channels": [4, 8]}, (3, 32, 32), False),
    ("mlp", {"hidden": [8]}, (1, 28, 28), False),
]


@pytest.mark.parametrize(("name", "options", "shape", "is_wide"), CASES)
def test_only_wide_convolutions_are_put_channels_last(name, options, shape, is_wide):
    model = in_fastest_layout(build_model(name, shape, 10, seed=0, **options))
    # both layouts of a single channel, or of a kernel of one, are the same
    weights = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    layouts = {p.is_contiguous(memory_format=torch.channels_last) for p in weights}
    assert layouts <= {is_wide}
    assert bool(weights) == (name != "mlp")


@pytest.mark.parametrize(("name", "options", "shape", "is_wide"), CASES)
def test_a_step_is_the_same_in_either_layout(name, options, shape, is_wide):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, *shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 10, (16,), generator=generator)
    gradients = []
    for prepare in (lambda model: model, in_fastest_layout):
        model = prepare(build_model(name, shape, 10, seed=0, **options).double())
        SAM(model, nn.CrossEntropyLoss(), rho=0.1).backward(inputs, targets)
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_narrow_strided_shortcut_keeps_the_usual_layout():
    # oneDNN's gradient of such a convolution with channels last overwrites memory
    for channels, is_last in ((8, False), (16, True)):
        model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 16, 1, stride=2))
        weight = in_fastest_layout(model)[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == is_last
