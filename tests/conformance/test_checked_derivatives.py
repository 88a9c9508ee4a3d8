"""Derivatives that are not those of the loss: found behind casts to float32, and in a branch of few samples."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, ctc_loss

from landscape import FunctionalHessian, GaussNewton, Objective
from landscape.guards.float64_throughout import Float64Throughout
from tests.conformance.test_refused_or_right import Detached

COUNT = 200
INPUTS, TARGETS = torch.randn(COUNT, 24, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT) % 3


class Network(nn.Module):
    """Two layers, a function between them, and a norm that computes in float32, as those of language models do."""

    def __init__(self, between, norm=lambda hidden: hidden):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head, self.between, self.norm = nn.Linear(24, 6), nn.Linear(6, 3), between, norm

    def forward(self, x):
        return self.head(self.norm(self.between(self.inner(x), x)))


def rms_norm_in_float32(hidden):
    long = hidden.to(torch.float32)
    return (long * torch.rsqrt(long.square().mean(-1, keepdim=True) + 1e-6)).to(hidden.dtype)


def softmax_in_float32(hidden):
    return hidden.softmax(-1, dtype=torch.float32).to(hidden.dtype) @ torch.eye(6, dtype=torch.float32)


def of_float32(outputs, targets):
    return cross_entropy(outputs.float(), targets)


CASTS = {
    "none": (lambda hidden: hidden, cross_entropy),
    "loss": (lambda hidden: hidden, of_float32),
    "norm": (rms_norm_in_float32, cross_entropy),
    "softmax": (softmax_in_float32, of_float32),
}

WRONG = {
    "detached": lambda hidden, _: (hidden * hidden).detach(),
    "reversed": lambda hidden, _: (2 * hidden * hidden).detach() - hidden * hidden,
    "straight-through": lambda hidden, _: hidden + ((4 * hidden).round() / 4 - hidden).detach(),
    "a part detached": lambda hidden, _: torch.cat([hidden[:, :3].detach(), hidden[:, 3:]], 1),
}


def of(between, cast="none", **options):
    norm, loss = CASTS[cast]
    return Objective(Network(between, norm), loss, (INPUTS, TARGETS), **options)


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_found_behind_casts_to_float32(name, cast):
    with pytest.raises(ValueError, match="^model: its gradient is not that of its loss"):
        of(WRONG[name], cast).gradient()


@pytest.mark.parametrize("cast", CASTS)
def test_right_derivatives_behind_casts_raise_no_alarm(cast):
    objective = of(lambda hidden, _: hidden * hidden, cast)
    objective.hvp(torch.ones_like(objective.theta))
    assert objective.has_right_gradient
    assert objective.verified


@pytest.mark.parametrize("cast", CASTS)
def test_a_wrong_second_derivative_is_found_behind_casts_to_float32(cast):
    objective = of(lambda hidden, _: Detached.apply(hidden), cast)
    with pytest.raises(ValueError, match="^model: its second derivatives are wrong"):
        objective.hvp(torch.ones_like(objective.theta))


@pytest.mark.parametrize("cast", CASTS)
def test_samples_that_are_mixed_a_little_are_found_behind_casts_to_float32(cast):
    with pytest.raises(ValueError, match="^model: its outputs for a sample differ"):
        of(lambda hidden, _: hidden + 0.003 * hidden.mean(0), cast, chunk_size=40)


def rarely(between):
    """What happens to 6% of the samples; none of them is among the first 4."""
    rare = (INPUTS[:, 0] > 1.5).nonzero().flatten()
    assert rare.min() > 3
    assert 0.03 < len(rare) / COUNT < 0.1
    return lambda hidden, x: torch.where(x[:, :1] > 1.5, between(hidden), hidden * hidden)


def test_a_gradient_that_is_wrong_for_few_samples_is_refused():
    with pytest.raises(ValueError, match="^model: its gradient is not that of its loss"):
        of(rarely(lambda hidden: (hidden * hidden).detach())).gradient()


def test_second_derivatives_that_are_wrong_for_few_samples_are_refused():
    objective = of(rarely(Detached.apply))
    assert objective.gradient().norm() > 0
    with pytest.raises(ValueError, match="^model: its second derivatives are wrong"):
        objective.hvp(torch.ones_like(objective.theta))


def test_a_branch_of_few_samples_with_right_derivatives_raises_no_alarm():
    objective = of(rarely(lambda hidden: 2 * hidden * hidden))
    objective.hvp(torch.ones_like(objective.theta))
    assert objective.verified


def test_numbers_stay_in_float64_where_code_names_float32():
    long = torch.full((2,), 1 / 3, dtype=torch.float64)
    with Float64Throughout() as kept:
        found = torch.stack(
            [
                long.float().double(),
                long.to(torch.bfloat16),
                long + torch.zeros(2, dtype=torch.float32),
                long @ torch.eye(2),
                torch.tensor([1.0, 1.0]) * long.to(torch.float32),
            ]
        )
    assert found.dtype == torch.float64
    assert (found == long).all()
    assert (kept.casts, kept.shortens) == (True, False)
    short = torch.zeros(2)
    with Float64Throughout() as kept:
        short.copy_(long)
    assert kept.shortens


class OfSteps(nn.Module):
    """Logarithms of chances (samples, steps, classes)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x).log_softmax(-1)


def ctc(outputs, batch):
    steps = torch.full((len(outputs),), outputs.shape[1])
    return ctc_loss(outputs.transpose(0, 1), batch["labels"], steps, torch.full_like(steps, 2))


@pytest.mark.parametrize("matrix", [GaussNewton, FunctionalHessian])
def test_a_loss_whose_slope_in_the_outputs_is_wrong_has_no_gauss_newton_matrix(matrix):
    """The backward pass of torch's CTC loss supposes logits before a softmax; its gradient in the weights is right."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "x": torch.randn(6, 5, 3, dtype=torch.float64, generator=generator),
        "labels": torch.randint(1, 4, (6, 2), generator=generator),
    }
    objective = Objective(OfSteps(), ctc, batch, forward=lambda model, batch: model(batch["x"]))
    assert objective.gradient().norm() > 0
    with pytest.raises(ValueError, match="^loss_fn: its slope in the outputs, .* is not its derivative"):
        matrix(objective) @ torch.ones_like(objective.theta)
