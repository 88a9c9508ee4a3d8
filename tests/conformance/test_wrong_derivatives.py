"""Functions of the weights that torch differentiates wrongly, and kinks, which are right."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, elu, relu

from landscape import GaussNewton, Objective

COUNT = 12
INPUTS = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.arange(COUNT) % 3


class Gated(nn.Module):
    """A gate that begins with 0, as those of residual branches and adapters do, and some function of it."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()
        self.gate, self.function = nn.Parameter(torch.zeros(5, dtype=torch.float64)), function

    def forward(self, x):
        return self.head(self.inner(x) * (1 + self.function(self.gate)))


def network(*, zeros=()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for name in zeros:
        nn.init.zeros_(model.get_parameter(name))
    return model


def product(objective, matrix=None):
    vector = torch.ones_like(objective.theta)
    return objective.hvp(vector) if matrix is None else matrix(objective) @ vector


def test_second_derivatives_that_are_wrong_at_weights_of_zero_are_refused():
    objective = Objective(Gated(lambda gate: gate.abs() ** 2), cross_entropy, (INPUTS, CLASSES))
    assert objective.gradient().norm() > 0
    with pytest.raises(
        ValueError, match="^model: its second derivatives are wrong.* exactly at these weights"
    ):
        product(objective)


@pytest.mark.parametrize("matrix", [None, GaussNewton])
def test_second_derivatives_that_are_wrong_at_residuals_of_zero_are_refused(matrix):
    model = network()
    objective = Objective(
        model,
        lambda outputs, targets: ((outputs - targets).abs() ** 2).mean(),
        (INPUTS, model(INPUTS).detach()),
    )
    with pytest.raises(
        ValueError, match="^model: its second derivatives are wrong.* exactly at these weights"
    ):
        product(objective, matrix)


def test_a_gradient_that_is_wrong_at_the_weights_alone_is_refused():
    class Determinant(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.tensor([[0.0, 0.0], [0.7, -0.4]], dtype=torch.float64))

    objective = Objective.of_loss(
        lambda model, batch: (torch.linalg.det(model.matrix) - 1) * batch.mean(),
        Determinant(),
        1 + INPUTS[:, :1] ** 2,
    )
    with pytest.raises(
        ValueError, match="^model: its gradient is not that of its loss.* exactly at these weights"
    ):
        objective.gradient()


KINKS = {
    "a gradient that jumps": relu,
    "a gradient that jumps either way": torch.abs,
    "a second derivative that jumps": elu,
    "a second derivative that jumps, of a square": lambda gate: relu(gate) ** 2,
    "a slope at the boundary": lambda gate: gate.clamp(0, 1),
    "a tie": lambda gate: gate - gate.amax(),
    "a smooth function": lambda gate: gate.square(),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_at_the_weights_raises_no_alarm(name):
    objective = Objective(Gated(KINKS[name]), cross_entropy, (INPUTS, CLASSES))
    product(objective)
    assert objective.verified


def spectral_norm_by_power_iteration(weight):
    with torch.no_grad():
        right = torch.ones_like(weight[0])
        for _ in range(50):
            left = nn.functional.normalize(weight @ right, dim=0)
            right = nn.functional.normalize(weight.T @ left, dim=0)
    return left @ weight @ right


class SquareOfDetached(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        ctx.weight = weight.detach()
        return weight.square().sum()

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope * ctx.weight


WRONG_REGULARIZERS = {
    "power iteration": lambda weights: spectral_norm_by_power_iteration(weights["0.weight"]) ** 2,
    "custom function": lambda weights: sum(map(SquareOfDetached.apply, weights.values())),
    "square of abs at zero": lambda weights: sum(weight.abs().pow(2).sum() for weight in weights.values()),
}

RIGHT_REGULARIZERS = {
    "L1": lambda weights: sum(weight.abs().sum() for weight in weights.values()),
    "L2": lambda weights: sum(weight.square().sum() for weight in weights.values()),
    "spectral norm": lambda weights: torch.linalg.matrix_norm(weights["0.weight"], 2) ** 2,
    "square of the positive part": lambda weights: sum(
        relu(weight).square().sum() for weight in weights.values()
    ),
}


def regularized(regularizer):
    model = network(zeros=("0.bias", "2.bias"))
    return Objective(model, cross_entropy, (INPUTS, CLASSES), regularizer=regularizer)


@pytest.mark.parametrize("name", WRONG_REGULARIZERS)
def test_wrong_second_derivatives_of_a_regularizer_are_refused(name):
    objective = regularized(WRONG_REGULARIZERS[name])
    assert objective.gradient().norm() > 0
    with pytest.raises(ValueError, match="^regularizer: its second derivatives are wrong"):
        product(objective)


@pytest.mark.parametrize("name", RIGHT_REGULARIZERS)
def test_right_second_derivatives_of_a_regularizer_raise_no_alarm(name):
    assert product(regularized(RIGHT_REGULARIZERS[name])).isfinite().all()
