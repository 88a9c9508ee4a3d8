"""PES, against its parts followed by hand."""

import copy

import pytest
import torch
from torch import nn

from ncsam import PES
from ncsam.methods.pes import class_weights
from ncsam.methods.training_set import TrainingSet
from tests.ncsam.small_network import batch, loss_fn, network

PARTS = {"first": 0.2, "second": 0.2, "third": 0.2}


def train_of(model, targets, inputs, seed=9):
    return TrainingSet(targets, lambda each: each(inputs).detach(), 16, seed)


def at(method, progress):
    method.progress, method.epoch_share = progress, 0.2
    return method


def step_by_hand(model, layers, loss):
    """A step of plain gradient descent of some layers."""
    weights = [w for layer in layers for w in layer.parameters()]
    for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        w.data -= 0.1 * g


def begun_anew(model, layers, seed=9):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_parameters()


def test_all_layers_learn_then_the_last_ones_from_new_weights_then_confident_samples():
    model = network()
    twin = copy.deepcopy(model)
    method = PES(model, loss_fn, latter=2, **PARTS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = batch()
    everything, last_two, last = [twin], [twin[0], twin[2]], [twin[2]]
    plan = {0.2: (everything, []), 0.4: (last_two, last_two), 0.6: (last, last), 0.8: (everything, [])}
    for progress, (layers, anew) in plan.items():
        at(method, progress).before_epoch(train_of(model, targets, inputs))
        begun_anew(twin, anew)
        # a second step of the same epoch begins no layer anew
        for _ in range(2):
            optimizer.zero_grad()
            if progress < 0.7:
                loss = loss_fn(twin(inputs), targets)
            else:
                chosen = [i for i in range(16) if method.is_confident[i]]
                scores = twin(inputs).log_softmax(1)
                weights = [method.weights[targets[i]] for i in chosen]
                loss = -sum(w * scores[i, targets[i]] for w, i in zip(weights, chosen, strict=True)) / sum(
                    weights
                )
                assert 0 < len(chosen) < 16
            method.backward(inputs, targets, torch.arange(16))
            optimizer.step()
            step_by_hand(twin, layers, loss)
            for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
            assert all(w.requires_grad for w in model.parameters())


def test_confident_samples_are_those_whose_label_is_predicted():
    model = network()
    inputs, targets = batch()
    method = at(PES(model, loss_fn, **PARTS), 0.8)
    method.before_epoch(train_of(model, targets, inputs))
    assert torch.equal(method.is_confident, model(inputs).argmax(1) == targets)
    # a forward pass over the training set
    assert method.gradient_count == pytest.approx(1 / 3)


def test_classes_count_alike_but_for_rare_ones():
    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 1)
    # the mean of 20, 5, 1 and 0 is 6.5
    torch.testing.assert_close(
        class_weights(labels, 4), torch.tensor([6.5 / 20, 6.5 / 5, 3.0, 0.0], dtype=torch.float64)
    )


def test_a_batch_without_a_confident_sample_has_no_gradient():
    method = at(PES(network(), loss_fn, **PARTS), 1.0)
    method.is_confident, method.weights = torch.zeros(16, dtype=torch.bool), torch.ones(4)
    method.backward(*batch(), torch.arange(16))
    assert all(w.grad is None for w in method.model.parameters())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: PES(network(), loss_fn, first=0.5, second=0.5), "^third: first .* below 1"),
        (lambda: PES(network(), loss_fn, latter=0), "^latter: must be at least 1"),
        (lambda: PES(nn.Sequential(nn.Flatten()), loss_fn), "^model: has no layer with reset_parameters"),
        (lambda: PES(network(), nn.MSELoss()), "^loss_fn: PES is made of plain"),
        (lambda: at(PES(network(), loss_fn), 1.0).backward(*batch()), "^indices: "),
        (lambda: at(PES(network(), loss_fn), 1.0).backward(*batch(), torch.arange(16)), "^before_epoch: "),
    ],
)
def test_what_cannot_be_done_is_named(act, message):
    with pytest.raises(ValueError, match=message):
        act()
