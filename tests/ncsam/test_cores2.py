"""CORES2, against the equations and the schedule of the authors' code."""

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import CORES2, GeneralizedCrossEntropy, build_method
from tests.ncsam.small_network import batch, gradient_at, grads, loss_fn, network, weights_of

EPOCHS = 100


def at_epoch(method, epoch):
    """The method at an epoch counted from 0, as the authors count."""
    method.epoch_share = 1 / EPOCHS
    method.progress = (epoch + 1) / EPOCHS
    return method


def test_the_schedule_is_that_of_the_authors():
    betas = np.concatenate([np.zeros(10), np.linspace(0, 2, 30), np.full(60, 2.0)])
    method = CORES2(network(), loss_fn)
    found = [at_epoch(method, epoch).regularizer_weight() for epoch in range(EPOCHS)]
    np.testing.assert_allclose(found, betas, atol=1e-12)
    assert [at_epoch(method, epoch).is_sieving() for epoch in range(EPOCHS)] == [False] * 31 + [True] * 69


def gradient_by_hand(model, inputs, targets, beta, sieves):
    """The gradient of the loss, sample by sample and label by label."""
    named = {name: w.clone().requires_grad_() for name, w in weights_of(model).items()}
    outputs = torch.func.functional_call(model, named, (inputs,))
    total, count = 0, 0
    for scores, label in zip(outputs, targets, strict=True):
        losses = [-torch.log(scores.exp()[j] / scores.exp().sum()) for j in range(4)]
        mean = sum(losses) / 4
        if sieves and losses[label] > mean:
            continue
        total, count = total + losses[label] - beta * mean, count + 1
    assert 0 < count <= len(targets)
    return list(torch.autograd.grad(total / count, list(named.values()))), count


@pytest.mark.parametrize(("epoch", "beta", "sieves"), [(5, 0, False), (25, 30 / 29, False), (60, 2, True)])
def test_the_gradient_is_that_of_the_equations(epoch, beta, sieves):
    model = network()
    inputs, targets = batch()
    expected, count = gradient_by_hand(model, inputs, targets, beta, sieves)
    # the case says something: some samples pass the sieve and some do not
    assert (count < 16) == sieves
    method = at_epoch(CORES2(model, loss_fn), epoch)
    loss = method.backward(inputs, targets)
    for found, each in zip(grads(model), expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss, loss_fn(model(inputs), targets).detach())
    assert method.gradient_count == 1


def test_without_beta_and_sieve_it_is_cross_entropy():
    model = network()
    inputs, targets = batch()
    at_epoch(CORES2(model, loss_fn, beta=0, sieve_from=1), 60).backward(inputs, targets)
    for found, each in zip(grads(model), gradient_at(model, weights_of(model), inputs, targets), strict=True):
        torch.testing.assert_close(found, each)


def test_a_batch_of_which_nothing_passes_has_no_gradient():
    model = network()
    inputs, _ = batch()
    at_epoch(CORES2(model, loss_fn), 60).backward(inputs, model(inputs).argmin(1))
    assert all((gradient == 0).all() for gradient in grads(model))


def test_the_samples_that_count_are_counted_without_rounding_in_half_precision(monkeypatch):
    method = at_epoch(CORES2(network().bfloat16(), loss_fn), 5)
    counts = []
    monkeypatch.setattr(method.passes, "factor_by", lambda weight: counts.append(float(weight)) or 1.0)
    inputs, targets = batch(size=257)
    method.backward(inputs.bfloat16(), targets)
    assert counts == [257]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, "^beta: must be at least 0"),
        ({"ramp_from": 0.5}, "^ramp_to: must be at least ramp_from"),
        ({"sieve_from": 1.5}, "^sieve_from: must be a share"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CORES2(network(), loss_fn, **options)


@pytest.mark.parametrize(
    "other",
    [GeneralizedCrossEntropy(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(torch.ones(4))],
)
def test_another_loss_is_refused(other):
    with pytest.raises(ValueError, match="^loss_fn: CORES2 is made of plain cross-entropy"):
        CORES2(network(), other)


def test_micro_batches_and_a_missing_progress_are_refused():
    method = build_method("cores2", network(), loss_fn, seed=0, clean_targets=batch()[1])
    with pytest.raises(ValueError, match="^progress"):
        method.backward(*batch())
    at_epoch(method, 60).passes.micro_batch_size = 4
    with pytest.raises(ValueError, match="^micro_batch_size"):
        method.backward(*batch())
