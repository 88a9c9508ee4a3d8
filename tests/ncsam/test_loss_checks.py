"""The check that a loss of one's own is the mean over the samples."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ncsam import Plain
from ncsam.methods.loss_checks import check_that_halves_add_up, check_that_it_is_a_mean
from ncsam.methods.rank_samples import check_beside_other_ranks
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


def tokens(outputs, targets):
    """The mean over the labels, in float32, as models of transformers compute it."""
    return cross_entropy(outputs.flatten(0, 1).float(), targets.flatten())


def untrained_and_padded(rows, kept):
    """Outputs near zero, so that all losses are about log 9, and labels of which each sample keeps some."""
    generator = torch.Generator().manual_seed(rows)
    labels = torch.randint(0, 9, (rows, 8), generator=generator)
    labels[:, kept:] = -100
    return 0.01 * torch.randn(rows, 8, 9, generator=generator), labels


def test_a_mean_over_tokens_is_refused_where_all_losses_are_about_equal():
    (full, labels), (padded, few) = untrained_and_padded(32, 8), untrained_and_padded(32, 1)
    outputs, targets = torch.cat([full, padded]), torch.cat([labels, few])
    with pytest.raises(ValueError, match="^loss_fn: the loss of the batch .* give count="):
        check_that_it_is_a_mean(tokens, outputs, targets, [32, 32])


def test_micro_batches_of_a_mean_over_tokens_are_refused_where_all_losses_are_about_equal():
    model = nn.Linear(5, 9)
    with torch.no_grad():
        model.weight.mul_(0.02)
        model.bias.zero_()
    inputs = torch.randn(64, 8, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.cat([untrained_and_padded(32, 8)[1], untrained_and_padded(32, 1)[1]])
    method = Plain(model, tokens)
    method.passes.micro_batch_size = 8
    with pytest.raises(ValueError, match="^micro_batch_size: the loss of the batch .* give count="):
        method.backward(inputs, targets)
    model.zero_grad()
    counted = Plain(model, tokens, count=lambda pair: (pair[1] >= 0).sum())
    counted.passes.micro_batch_size = 8
    counted.backward(inputs, targets)
    whole = torch.autograd.grad(tokens(model(inputs), targets), list(model.parameters()))
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        assert torch.allclose(parameter.grad, expected, atol=1e-7)


def test_labels_that_count_alike_on_each_rank_and_not_on_both_are_refused():
    (outputs, labels), (_, few) = untrained_and_padded(16, 8), untrained_and_padded(16, 1)
    check_that_halves_add_up(tokens, outputs, labels, tokens(outputs, labels))
    with pytest.raises(ValueError, match="^loss_fn: the loss of the batch .* give count="):
        check_beside_other_ranks(tokens, outputs, labels, [few])
    assert check_beside_other_ranks(tokens, outputs, labels, [labels[:8]])


def test_targets_of_another_form_on_another_rank_are_refused_with_the_remedy():
    outputs, labels = untrained_and_padded(16, 8)
    with pytest.raises(
        ValueError, match="^loss_fn: the targets of another rank have another form, .* count="
    ):
        check_beside_other_ranks(tokens, outputs, labels, [labels[:8, :3]])


def test_inputs_of_another_length_on_another_rank_do_not_hide_one_label_a_sample():
    def batch(samples, tokens):
        return {"x": torch.zeros(samples, tokens), "y": torch.arange(samples) % 3}

    def mean(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch["y"])

    def total(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch["y"], reduction="sum")

    outputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert check_beside_other_ranks(mean, outputs, batch(8, 7), [batch(6, 8)])
    with pytest.raises(ValueError, match="^loss_fn: the loss of the batch .* give count="):
        check_beside_other_ranks(total, outputs, batch(8, 7), [batch(6, 8)])
