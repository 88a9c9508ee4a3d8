"""Data in float64 that the dtype of the weights does not hold, and gradients that an Embedding scales."""

import warnings

import pytest
import torch
from torch import nn

from landscape import Objective

D = torch.float64
TARGETS = torch.arange(60) % 3
SECONDS = 60 * torch.rand(60, dtype=D, generator=torch.Generator().manual_seed(0))


class OfTimes(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 3)

    def forward(self, times):
        return self.layer(((times.view(-1, 1) - 1.7e9) / 10).to(self.layer.weight.dtype))


@pytest.mark.parametrize("others", [0, 1])
def test_numbers_that_rounding_changes_by_much_of_their_spread_are_warned_of(others):
    """Also in a column beside numbers of a larger spread."""
    times = torch.stack([1.7e9 + SECONDS] + others * [1e9 * SECONDS], 1)
    model = nn.Sequential(nn.Linear(1 + others, 3))
    with pytest.warns(UserWarning, match="^data: numbers in float64 are rounded to torch.float32"):
        Objective(model, nn.CrossEntropyLoss(), (times, TARGETS))


@pytest.mark.parametrize(
    ("inputs", "dtype"), [(1.7e9 + SECONDS, D), (SECONDS, None), (torch.full((60,), 0.1, dtype=D), None)]
)
def test_numbers_that_keep_their_digits_are_not(inputs, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Objective(OfTimes(), nn.CrossEntropyLoss(), (inputs, TARGETS), dtype=dtype)


@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_gradients_of_words_are_those_of_the_loss_though_the_layer_scales_them(layer):
    words = torch.randint(0, 5, (60, 2), generator=torch.Generator().manual_seed(0))
    found = []
    for scales in (True, False):
        torch.manual_seed(0)
        options = {"mode": "sum"} if layer is nn.EmbeddingBag else {}
        model = nn.Sequential(
            layer(5, 3, scale_grad_by_freq=scales, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
        )
        model(words)
        found.append(Objective(model, nn.CrossEntropyLoss(), (words, TARGETS)).gradient())
    assert torch.equal(*found)
