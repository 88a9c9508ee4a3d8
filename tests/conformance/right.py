"""What is right: derivatives by plain torch on the model itself, in float64."""

import copy
from collections.abc import Callable

import torch
from torch import nn

D = torch.float64


def samples(count=12, dtype=D):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 5, generator=generator, dtype=dtype), torch.arange(count) % 3


def words(count=12):
    return torch.randint(0, 9, (count, 4), generator=torch.Generator().manual_seed(1)), torch.arange(
        count
    ) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(D)


def assert_right(objective, model, data=None, loss: Callable[[nn.Module], torch.Tensor] | None = None):
    """The gradient against autograd on the model itself, a product against differences of such gradients.

    Args:
        objective: of the model.
        model: in float64.
        data: inputs and targets of a cross-entropy; or
        loss: model -> the mean loss of all data as one batch.
    """
    if loss is None:
        inputs, targets = data

        def loss(model):
            return nn.functional.cross_entropy(model(inputs), targets)

    def gradient(step):
        moved = copy.deepcopy(model).eval()
        start = 0
        for name in objective.names:
            parameter = moved.get_parameter(name)
            part = step[start : start + parameter.numel()]
            parameter.data.add_(part.view_as(parameter))
            start += parameter.numel()
        parameters = [moved.get_parameter(name) for name in objective.names]
        found = torch.autograd.grad(loss(moved), parameters)
        return torch.cat([part.flatten() for part in found])

    vector = torch.randn(objective.n_parameters, dtype=D, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(objective.gradient(), gradient(0 * vector))
    expected = (gradient(1e-6 * vector) - gradient(-1e-6 * vector)) / 2e-6
    torch.testing.assert_close(objective.hvp(vector), expected, rtol=1e-6, atol=1e-8)
