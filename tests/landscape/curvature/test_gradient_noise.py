"""Gradient noise beside the gradients of single samples."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from landscape import Objective, gradient_noise

D = torch.float64


@pytest.fixture(name="case")
def _case():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, dtype=D, generator=generator)
    targets = torch.randint(0, 3, (60,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(D)
    return model, inputs, targets


def gradients_of_samples(model, inputs, targets):
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(weights, one, target):
        return nn.functional.cross_entropy(functional_call(model, weights, one[None]), target[None])

    found = vmap(grad(loss), (None, 0, 0))(weights, inputs, targets)
    return torch.cat([part.flatten(1) for part in found.values()], 1)


def test_with_a_piece_for_each_sample_it_is_the_trace_of_their_covariance(case):
    each = gradients_of_samples(*case)
    found = gradient_noise(Objective(case[0], nn.CrossEntropyLoss(), case[1:], chunk_size=17), pieces=60)
    truth = each.var(0).sum().item()
    assert found.pieces == 60
    assert found.value == pytest.approx(truth, rel=1e-10)
    squared = each.mean(0).square().sum().item()
    assert found.gradient_norm == pytest.approx(math.sqrt(squared), rel=1e-10)
    assert found.noise_scale == pytest.approx(truth / (squared - truth / 60), rel=1e-9)


def test_fewer_pieces_estimate_it_without_bias_and_with_their_error(case):
    """Over random orders of the samples."""
    truth = gradients_of_samples(*case).var(0).sum().item()
    found = []
    for seed in range(60):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        objective = Objective(case[0], nn.CrossEntropyLoss(), (case[1][order], case[2][order]))
        found.append(gradient_noise(objective, pieces=8))
    values = torch.tensor([each.value for each in found], dtype=D)
    errors = torch.tensor([each.standard_error for each in found], dtype=D)
    # 60 draws: the mean lies within 4 of its standard errors of the truth in 9999 of 10000 cases
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(60)
    assert 0.6 < errors.square().mean().sqrt() / values.std() < 1.6


def test_samples_count_as_they_do_in_the_loss(case):
    model, inputs, targets = case
    ignored = targets.clone()
    ignored[30:] = -100
    half = Objective(model, nn.CrossEntropyLoss(), (inputs[:30], targets[:30]))
    whole = Objective(model, nn.CrossEntropyLoss(ignore_index=-100), (inputs, ignored))
    expected = gradient_noise(half, pieces=30).value
    assert gradient_noise(whole, pieces=60).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_common_factor_of_the_class_weights_changes_nothing(case, weight):
    model, inputs, targets = case
    plain = gradient_noise(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), pieces=7)
    weights = torch.full((3,), weight, dtype=D)
    found = gradient_noise(Objective(model, nn.CrossEntropyLoss(weight=weights), (inputs, targets)), pieces=7)
    for name in ("value", "standard_error", "gradient_norm", "noise_scale"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-9)


@pytest.mark.parametrize("pieces", [60, 15, 8])
def test_with_class_weights_it_is_the_covariance_of_batches_of_random_samples(case, pieces):
    """A rare class of a large weight: the truth is the spread of the mean gradients of 4,000 batches."""
    model, inputs, _ = case
    targets = (torch.arange(60) % 10 == 0).long()
    class_weights = torch.tensor([1.0, 20.0, 1.0], dtype=D)
    each, weights = gradients_of_samples(model, inputs, targets), class_weights[targets]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 60, (4000, 240), generator=generator)
    sums = torch.einsum("bs,bsp->bp", weights[rows], each[rows])
    truth = 240 * (sums / weights[rows].sum(1, keepdim=True)).var(0).sum().item()
    objective = Objective(model, nn.CrossEntropyLoss(weight=class_weights), (inputs, targets))
    found = [gradient_noise(objective, pieces=pieces, seed=seed) for seed in range(40)]
    values = torch.tensor([one.value for one in found], dtype=D)
    # the batches give the truth to 3%; in few pieces the bias of a ratio is of relative order 1 / pieces
    assert values.mean().item() == pytest.approx(truth, rel=0.05 + 0.5 / pieces)
    squared = (each * weights[:, None]).sum(0).div(weights.sum()).square().sum().item()
    assert found[0].gradient_norm == pytest.approx(math.sqrt(squared), rel=1e-9)


def test_a_mean_over_outputs_has_the_noise_of_samples(case):
    model, inputs, _ = case
    targets = torch.randn(60, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    weights = dict(model.named_parameters())

    def loss(weights, one, target):
        return nn.functional.mse_loss(functional_call(model, weights, one[None]), target[None])

    each = torch.cat(
        [g.flatten(1) for g in vmap(grad(loss), (None, 0, 0))(weights, inputs, targets).values()], 1
    )
    found = gradient_noise(Objective(model, nn.MSELoss(), (inputs, targets)), pieces=60)
    assert found.value == pytest.approx(each.var(0).sum().item(), rel=1e-9)


def test_a_sum_is_refused(case):
    objective = Objective(case[0], nn.CrossEntropyLoss(reduction="sum"), case[1:])
    with pytest.raises(ValueError, match="its loss is a sum"):
        gradient_noise(objective)


def test_without_noise_it_is_zero(case):
    model, inputs, targets = case
    copies = inputs[:1].repeat(16, 1), targets[:1].repeat(16)
    found = gradient_noise(Objective(model, nn.CrossEntropyLoss(), copies), pieces=4)
    assert found.value == pytest.approx(0, abs=1e-20)


def test_one_piece_is_refused(case):
    objective = Objective(case[0], nn.CrossEntropyLoss(), case[1:])
    with pytest.raises(ValueError, match="^pieces:"):
        gradient_noise(objective, pieces=1)


def test_data_sorted_by_class_have_the_noise_of_data_in_any_order():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(240) // 80
    inputs = torch.randn(240, 5, dtype=D, generator=generator)
    inputs[torch.arange(240), targets] += 2
    model = nn.Linear(5, 3).to(D)
    truth = gradients_of_samples(model, inputs, targets).var(0).sum().item()
    found = gradient_noise(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    # pieces in the order of the classes would differ several times as much
    assert found.value == pytest.approx(truth, rel=0.5)
