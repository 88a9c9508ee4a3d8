"""Eigenpairs are taken for those of their own weights also where rounding is all that the terms of a product leave."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective, top_eigenvalues, trace

SCALES = (1e-3, 1.0, 30.0, 100.0)
"""Factors of the weights. With the largest ones every prediction is sure, and the curvature is a millionth of J^T J."""


def network(scale, seed, dtype):
    """A network of two small hidden layers, with inputs of which 3 in 10 have another label than it predicts."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    inputs = torch.randn(100, 20, dtype=torch.float64)
    targets = model(inputs).argmax(1)
    is_wrong = torch.rand(100) < 0.3
    targets[is_wrong] = (targets[is_wrong] + 1) % 10
    return model.to(dtype), inputs.to(dtype), targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("scale", SCALES)
def test_pairs_are_taken_for_those_of_their_own_weights(scale, matrix, dtype):
    for seed in (0, 1, 2, 3):
        model, inputs, targets = network(scale, seed, dtype)
        objective = Objective(model, cross_entropy, (inputs, targets))
        for k in (1, 3):
            trace(
                objective,
                deflate=top_eigenvalues(objective, k, matrix=matrix),
                matrix=matrix,
                max_products=20,
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("change", ["a step", "other labels"])
def test_pairs_of_other_weights_or_labels_are_refused_at_any_size_of_the_curvature(
    change, scale, size, dtype
):
    model, inputs, targets = network(scale, 0, dtype)
    pairs = top_eigenvalues(Objective(model, lambda o, t: size * cross_entropy(o, t), (inputs, targets)), 3)
    if change == "a step":
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.05).add_(0.05)
    else:
        targets = targets.roll(1)
    now = Objective(model, lambda o, t: size * cross_entropy(o, t), (inputs, targets))
    with pytest.raises(ValueError, match="deflate: holds eigenpairs of other weights or data"):
        trace(now, deflate=pairs)


def test_pairs_that_were_found_in_float32_deflate_in_float64():
    model, inputs, targets = network(1.0, 0, torch.float32)
    pairs = top_eigenvalues(Objective(model, cross_entropy, (inputs, targets)), 3, tol=1e-5)
    finer = Objective(model.double(), cross_entropy, (inputs.double(), targets))
    known, whole = trace(finer, deflate=pairs, rtol=0.02), trace(finer, rtol=0.02)
    assert known.value == pytest.approx(whole.value, rel=0.05)
