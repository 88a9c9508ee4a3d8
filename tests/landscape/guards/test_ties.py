"""Units and scores that tie at the model's own weights, where `sort` and `max` have a kink, raise no alarm."""

import pytest
import torch
from torch import nn

from landscape import FunctionalHessian, GaussNewton, Hessian, Objective
from tests.conformance.right import assert_right

D = torch.float64
COUNT = 20


def group_sort(hidden):
    return hidden.unflatten(1, (-1, 4)).sort(2).values.flatten(1, 2)


def maxout(hidden):
    return hidden.unflatten(1, (-1, 2)).max(2).values.repeat_interleave(2, 1)


def pooled_channels(hidden):
    return (
        nn.functional.max_pool1d(hidden.flatten(2).transpose(1, 2), 2).repeat_interleave(2, 2).transpose(1, 2)
    )


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, hidden):
        return self.function(hidden)


def images():
    """Images that are black but for a corner."""
    inputs = torch.zeros(COUNT, 1, 9, 9, dtype=D)
    inputs[:, :, :2, :2] = torch.rand(COUNT, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    return inputs, torch.arange(COUNT) % 3


def network(function, seed, width=8):
    """A fresh network with zero biases, so that all channels are equal where the image is black."""
    torch.manual_seed(seed)
    last = nn.Linear(width * 49, 3)
    model = nn.Sequential(nn.Conv2d(1, width, 3), Applied(function), nn.Flatten(), last).to(D)
    nn.init.zeros_(model[0].bias)
    return model


@pytest.mark.parametrize("function", [group_sort, maxout, pooled_channels])
@pytest.mark.parametrize(("seed", "width"), [(0, 8), (1, 8), (2, 8), (0, 512)])
def test_networks_that_take_the_largest_of_equal_units_have_derivatives(function, seed, width):
    model = network(function, seed, width)
    objective = Objective(model, nn.CrossEntropyLoss(), images())
    loss = nn.functional.cross_entropy(model(images()[0]), images()[1])
    right = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(objective.gradient(), right)
    # second derivatives are compared before the first product
    assert (Hessian(objective) @ torch.ones(objective.n_parameters, dtype=D)).isfinite().all()


def test_derivatives_away_from_ties_are_right():
    model = network(group_sort, 0)
    nn.init.normal_(model[0].bias)
    assert_right(Objective(model, nn.CrossEntropyLoss(), images()), model, images())


@pytest.mark.parametrize("function", [group_sort, maxout])
def test_a_gradient_that_is_cut_off_behind_ties_is_refused(function):
    model = network(lambda hidden: function(hidden) + (hidden * hidden).detach(), 0)
    with pytest.raises(ValueError, match="gradient is not that of its loss"):
        Objective(model, nn.CrossEntropyLoss(), images()).gradient()


@pytest.mark.parametrize("matrix", [GaussNewton, FunctionalHessian])
def test_scores_that_are_all_equal_have_a_gauss_newton_matrix(matrix):
    model = nn.Sequential(nn.Linear(5, 4)).to(D)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0), dtype=D)

    def runner_up(outputs, targets):
        right = outputs.gather(1, targets[:, None]).squeeze(1)
        return (outputs.max(1).values - right + 0.1 * outputs.square().sum(1)).mean()

    objective = Objective(model, runner_up, (inputs, torch.arange(COUNT) % 4))
    products = matrix(objective) @ torch.eye(24, dtype=D)
    # the loss is linear in the scores but for 0.1 of the squares, and the scores are linear in the weights
    moments = torch.cat([inputs, torch.ones(COUNT, 1, dtype=D)], 1)
    second = 0.2 * moments.T @ moments / COUNT
    right = torch.block_diag(*[second[:5, :5]] * 4, 0.2 * torch.eye(4, dtype=D))
    right[:20, 20:] = torch.kron(torch.eye(4, dtype=D), second[:5, 5:])
    right[20:, :20] = right[:20, 20:].T
    if matrix is GaussNewton:
        torch.testing.assert_close(products, right)
    else:
        torch.testing.assert_close(products, torch.zeros_like(right))
