"""The check that a loss of one's own is the mean over the samples."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ncsam.methods.loss_checks import check_that_halves_add_up, check_that_it_is_a_mean
from tests.ncsam.small_network import batch

OUTPUTS = torch.randn(16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = batch()[1]


class Centered(nn.Module):
    """The sum of the losses at outputs less their running mean."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))

    def forward(self, outputs, targets):
        self.mean.lerp_(outputs.mean(0), 0.5)
        return cross_entropy(outputs - self.mean, targets, reduction="sum")


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, outputs, targets):
        return cross_entropy(outputs, targets)


def summed(outputs, targets):
    return cross_entropy(outputs, targets, reduction="sum")


def checked(loss, samples=16):
    outputs, targets = OUTPUTS[:samples], TARGETS[:samples]
    return check_that_halves_add_up(loss, outputs, targets, loss(outputs, targets))


@pytest.mark.parametrize(("samples", "can_be_checked"), [(1, False), (3, False), (4, True), (5, True)])
def test_a_part_of_fewer_than_four_samples_waits_for_a_later_step(samples, can_be_checked):
    assert checked(lambda *pair: cross_entropy(*pair), samples) == can_be_checked


def test_a_loss_that_is_not_finite_waits_for_a_later_step():
    assert not checked(lambda *pair: cross_entropy(*pair) / 0)


def test_a_sum_is_refused():
    with pytest.raises(ValueError, match="^loss_fn: the loss of the batch .* is no mean over the samples"):
        checked(summed)


def test_a_loss_with_a_state_of_its_own_is_not_judged_and_its_state_does_not_move():
    loss = Centered()
    whole = loss(OUTPUTS, TARGETS)
    before = loss.mean.clone()
    assert check_that_halves_add_up(loss, OUTPUTS, TARGETS, whole)
    assert torch.equal(loss.mean, before)


def test_a_loss_that_cannot_be_copied_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="^loss_fn: Locked cannot be copied .* give count="):
        checked(Locked())


def test_the_random_state_stays_as_it_is():
    before = torch.get_rng_state()
    check_that_it_is_a_mean(
        lambda outputs, targets: cross_entropy(outputs + torch.randn_like(outputs), targets),
        OUTPUTS,
        TARGETS,
        [1] * 16,
    )
    assert torch.equal(torch.get_rng_state(), before)
