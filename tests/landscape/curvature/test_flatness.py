"""Relative flatness where the last layer is no number."""

import numpy as np
import torch
from torch import nn

from landscape import Objective, relative_flatness
from tests.conftest import build


def test_the_flatness_of_a_layer_with_a_number_that_is_none_is_none():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[-1].weight[0, 0] = float("nan")
    found = relative_flatness(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    assert np.isnan([found.value, found.standard_error, found.low, found.high]).all()
    assert not found.converged
