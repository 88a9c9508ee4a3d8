"""PES, against its parts followed by hand."""

import copy

import pytest
import torch
from torch import nn

from ncsam import PES, build_model
from ncsam.methods.pes import class_weights
from ncsam.methods.training_set import TrainingSet
from tests.ncsam.small_network import batch, loss_fn

PARTS = {"first": 0.2, "second": 0.2, "third": 0.2}


def network():
    """Three layers with weights, so that the last two are not everything, and a normalization layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4)
        ).double()


def train_of(model, targets, inputs, optimizer=None, seed=9):
    return TrainingSet(targets, lambda each: each(inputs).detach(), 16, seed, optimizer)


def at(method, progress):
    method.progress, method.epoch_share = progress, 0.2
    return method


def begun_anew(layers, velocities, seed=9):
    """New weights, and no momentum."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_parameters()
            for w in layer.parameters():
                velocities.pop(w, None)


def step_by_hand(layers, velocities, loss):
    """A step of gradient descent with momentum of some layers."""
    weights = [w for layer in layers for w in layer.parameters()]
    for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        velocities[w] = 0.9 * velocities.get(w, torch.zeros_like(w)) + g
        w.data -= 0.1 * velocities[w]


def loss_of_confident(twin, method, inputs, targets):
    chosen = [i for i in range(16) if method.is_confident[i]]
    assert 0 < len(chosen) < 16
    scores = twin(inputs).log_softmax(1)
    weights = [method.weights[targets[i]] for i in chosen]
    return -sum(w * scores[i, targets[i]] for w, i in zip(weights, chosen, strict=True)) / sum(weights)


def test_all_layers_learn_then_the_last_ones_from_new_weights_then_confident_samples():
    model = network()
    twin, velocities = copy.deepcopy(model), {}
    method = PES(model, loss_fn, latter=2, **PARTS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = batch()
    everything, last_two, last = [twin], [twin[2], twin[3], twin[5]], [twin[5]]
    plan = {0.2: (everything, []), 0.4: (last_two, last_two), 0.6: (last, last), 0.8: (everything, [])}
    for progress, (layers, anew) in plan.items():
        at(method, progress).before_epoch(train_of(model, targets, inputs, optimizer))
        begun_anew(anew, velocities)
        # a second step of the same epoch begins no layer anew
        for _ in range(2):
            optimizer.zero_grad()
            method.backward(inputs, targets, torch.arange(16))
            optimizer.step()
            chosen = progress > 0.7
            loss = (
                loss_of_confident(twin, method, inputs, targets) if chosen else loss_fn(twin(inputs), targets)
            )
            step_by_hand(layers, velocities, loss)
            for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
            assert all(w.requires_grad for w in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "options", "last_two"),
    [
        ("resnet", (3, 8, 8), {"depth": 8}, ["Conv2d", "BatchNorm2d", "Linear"]),
        ("cnn", (1, 8, 8), {}, ["Conv2d", "BatchNorm2d", "Linear"]),
        ("mlp", (1, 8, 8), {"hidden": [6, 5]}, ["Linear", "Linear"]),
    ],
)
def test_a_layer_has_a_weight_matrix_and_takes_its_normalization_along(name, shape, options, last_two):
    method = PES(build_model(name, shape, 4, seed=0, **options), loss_fn, latter=2)
    assert [type(module).__name__ for layer in method.latter for module in layer] == last_two


def test_confident_samples_are_those_whose_label_is_predicted():
    model = network()
    inputs, targets = batch()
    method = at(PES(model, loss_fn, **PARTS), 0.8)
    method.before_epoch(train_of(model, targets, inputs))
    assert torch.equal(method.is_confident, model(inputs).argmax(1) == targets)
    # a forward pass over the training set
    assert method.gradient_count == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("epochs", "shares", "field"),
    [
        (3, {}, "first"),
        (20, {}, "third"),
        (12, {"first": 0.3, "second": 0.05}, "third"),
        (5, {"first": 0.1, "second": 0.0, "third": 0.2}, "first"),
    ],
)
def test_a_part_without_an_epoch_is_refused_before_the_first_one(epochs, shares, field):
    method = PES(network(), loss_fn, **shares)
    method.progress, method.epoch_share = 1 / epochs, 1 / epochs
    with pytest.raises(ValueError, match=f"^{field}: the share .* of {epochs} epochs holds no whole epoch"):
        method.before_epoch(train_of(method.model, *reversed(batch())))


def test_a_part_that_is_left_out_needs_no_epoch():
    method = PES(network(), loss_fn, first=0.2, second=0.0, third=0.2)
    at(method, 0.2).before_epoch(train_of(method.model, *reversed(batch())))
    assert [method.part(epoch / 5) for epoch in range(1, 6)] == [0, 2, 3, 3, 3]


def test_a_loop_that_does_not_say_what_is_needed_is_refused():
    model, (inputs, targets) = network(), batch()
    method = PES(model, loss_fn, **PARTS)
    method.progress = 0.2
    with pytest.raises(ValueError, match="^epoch_share: "):
        method.before_epoch(train_of(model, targets, inputs))
    with pytest.raises(ValueError, match="^optimizer: "):
        at(method, 0.4).before_epoch(train_of(model, targets, inputs))
    method.progress = 0.6
    with pytest.raises(ValueError, match="^before_epoch: "):
        method.backward(inputs, targets, torch.arange(16))


def test_classes_count_alike_but_for_rare_ones():
    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 1)
    # the mean of 20, 5, 1 and 0 is 6.5
    torch.testing.assert_close(
        class_weights(labels, 4), torch.tensor([6.5 / 20, 6.5 / 5, 3.0, 0.0], dtype=torch.float64)
    )


def test_a_batch_without_a_confident_sample_has_no_gradient():
    method = at(PES(network(), loss_fn, **PARTS), 1.0)
    method.prepared_for = 1.0
    method.is_confident, method.weights = torch.zeros(16, dtype=torch.bool), torch.ones(4)
    method.backward(*batch(), torch.arange(16))
    assert all(w.grad is None for w in method.model.parameters())


def prepared():
    method = at(PES(network(), loss_fn, **PARTS), 1.0)
    method.before_epoch(train_of(method.model, *reversed(batch())))
    return method


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: PES(network(), loss_fn, first=0.5, second=0.5), "^third: first .* below 1"),
        (lambda: PES(network(), loss_fn, latter=0), "^latter: must be at least 1"),
        (lambda: PES(network(), loss_fn, latter=3), "^latter: must be below .* which is 3"),
        (lambda: PES(nn.Sequential(nn.Flatten()), loss_fn), "^latter: must be below .* which is 0"),
        (lambda: PES(network(), nn.MSELoss()), "^loss_fn: PES is made of plain"),
        (lambda: prepared().backward(*batch()), "^indices: "),
        (lambda: at(PES(network(), loss_fn), 1.0).backward(*batch(), torch.arange(16)), "^before_epoch: "),
    ],
)
def test_what_cannot_be_done_is_named(act, message):
    with pytest.raises(ValueError, match=message):
        act()
