"""Closures that write to the tensors they hold: each pass of a step sees these as the first one did."""

from functools import partial

import pytest
import torch
from torch import nn

from ncsam import GSAM, SAM

INPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CHANCES = torch.full((12, 3), 0.05, dtype=torch.float64)
CHANCES[torch.arange(12), torch.arange(12) % 3] = 0.9
targets_of_all = CHANCES.clone()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def smoothed_loss(model, targets):
    """A loss that smooths its targets in place."""
    return nn.functional.cross_entropy(model(INPUTS), targets.mul_(0.8).add_(0.2 / 3))


class Trainer:
    def __init__(self, model, targets):
        self.model, self.batch = model, {"targets": targets}

    def loss(self):
        return smoothed_loss(self.model, self.batch["targets"])


def of_cell(model):
    targets = CHANCES.clone()
    return (lambda: smoothed_loss(model, targets)), targets


def of_batch(model):
    batch = {"inputs": INPUTS, "targets": CHANCES.clone()}
    return (lambda: smoothed_loss(model, batch["targets"])), batch["targets"]


def of_global(model):
    targets_of_all.copy_(CHANCES)
    return (lambda: smoothed_loss(model, targets_of_all)), targets_of_all


def of_default(model):
    targets = CHANCES.clone()

    def closure(*, given=targets):
        return smoothed_loss(model, given)

    return closure, targets


def of_partial(model):
    targets = CHANCES.clone()
    return partial(smoothed_loss, model, targets), targets


def of_method(model):
    targets = CHANCES.clone()
    return Trainer(model, targets).loss, targets


def gradient(method, model, **batch):
    loss = method(model, nn.CrossEntropyLoss(), rho=0.5).backward(**batch)
    return loss, torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("method", [SAM, partial(GSAM, alpha=0.2)], ids=["sam", "gsam"])
@pytest.mark.parametrize("form", [of_cell, of_batch, of_global, of_default, of_partial, of_method])
def test_a_closure_that_writes_to_its_targets_has_the_gradient_of_one_that_does_not(form, method):
    model, once = network(), CHANCES * 0.8 + 0.2 / 3
    loss, expected = gradient(method, model, inputs=INPUTS, targets=once)
    model = network()
    closure, targets = form(model)
    found_loss, found = gradient(method, model, closure=closure)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found_loss, loss)
    torch.testing.assert_close(targets, once, rtol=0, atol=0)
