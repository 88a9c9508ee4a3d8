"""Sums over chunks in half precision and little room, against float64."""

import pytest
import torch
from torch import nn

from landscape import Objective


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("matrix", ["gradient", "hvp", "ggnvp"])
def test_sums_over_many_chunks_in_little_room_are_not_in_half_precision(matrix, dtype):
    """There a sum stops to grow once a chunk's part is shorter than its last digit: the gradient was 10% off."""
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)
    inputs = torch.randn(1000, 20, generator=generator).to(dtype)
    targets = torch.randint(0, 3, (1000,), generator=generator)
    n = sum(parameter.numel() for parameter in model.parameters())
    vector = torch.randn(n, generator=generator)
    found = []
    for factor, size in ((30, 2), (10_000, 500)):
        objective = Objective(
            model,
            nn.CrossEntropyLoss(),
            (inputs, targets),
            chunk_size=size,
            memory_budget=factor * n,
            linearize=False,
        )
        call = getattr(objective, matrix)
        found.append((call() if matrix == "gradient" else call(vector)).double())
    exact = Objective(model.double(), nn.CrossEntropyLoss(), (inputs.double(), targets), linearize=False)
    truth = exact.gradient() if matrix == "gradient" else getattr(exact, matrix)(vector.to(dtype).double())
    errors = [float((each - truth).norm() / truth.norm()) for each in found]
    # two samples at a time are rounded about as often as 500 in one chunk
    assert errors[0] < 2 * errors[1] + 4 * torch.finfo(dtype).eps
