"""Names that models and losses bind anew: the pass at w alone moves them, and a resumed training has them again."""

import numpy as np
import pytest
import torch
from torch import nn

from ncsam import SAM, Plain, Split, fit, human_labels

INPUTS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.arange(24) % 3
calls, running_mean = 0, torch.zeros((), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _at_the_beginning():
    begin()


def begin():
    global calls, running_mean
    calls, running_mean = 0, torch.zeros((), dtype=torch.float64)


def smoothing_more(scores, targets):
    """A loss that smooths labels more with each call."""
    global calls
    calls += 1
    return nn.functional.cross_entropy(scores, targets, label_smoothing=min(0.9, 0.1 * calls))


class Centering(nn.Module):
    def forward(self, x):
        global running_mean
        running_mean = 0.9 * running_mean + 0.1 * x.detach().mean()
        return x - running_mean


def network(front=nn.Identity):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(front(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def as_of_the_first_call(scores, targets):
    return nn.functional.cross_entropy(scores, targets, label_smoothing=0.1)


def weights_after_a_step(loss, **batch):
    model = network()
    SAM(model, loss, rho=0.5).backward(**batch)
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def test_both_passes_of_a_step_find_the_global_as_the_first_one_did():
    batch = {"inputs": INPUTS, "targets": TARGETS}
    expected = weights_after_a_step(as_of_the_first_call, **batch)
    torch.testing.assert_close(weights_after_a_step(smoothing_more, **batch), expected, rtol=0, atol=0)
    assert calls == 1


def of_nonlocal():
    number = 0

    def loss(scores, targets):
        nonlocal number
        number += 1
        return nn.functional.cross_entropy(scores, targets, label_smoothing=min(0.9, 0.1 * number))

    return loss


def of_default():
    def loss(scores, targets, seen=[0]):  # noqa: B006
        seen[0] += 1
        return nn.functional.cross_entropy(scores, targets, label_smoothing=0.1 * seen[0])

    return loss


def of_attribute():
    def loss(scores, targets):
        loss.number += 1
        return nn.functional.cross_entropy(scores, targets, label_smoothing=0.1 * loss.number)

    loss.number = 0
    return loss


def of_array():
    seen = np.zeros(1)

    def loss(scores, targets):
        seen[0] += 1
        return nn.functional.cross_entropy(scores, targets, label_smoothing=0.1 * float(seen[0]))

    return loss


@pytest.mark.parametrize("make", [of_nonlocal, of_default, of_attribute, of_array])
def test_both_passes_of_a_step_find_what_a_loss_keeps_as_the_first_one_did(make):
    batch = {"inputs": INPUTS, "targets": TARGETS}
    expected = weights_after_a_step(as_of_the_first_call, **batch)
    torch.testing.assert_close(weights_after_a_step(make(), **batch), expected, rtol=0, atol=0)


def test_a_module_moves_its_global_once_a_step():
    SAM(network(Centering), nn.CrossEntropyLoss(), rho=0.5).backward(INPUTS, TARGETS)
    torch.testing.assert_close(running_mean, 0.1 * INPUTS.mean())


class Killed(Exception):
    pass


def trained(path, front, loss, killed_after=None):
    begin()
    model = network(front)

    def on_epoch(epoch, *_):
        if epoch == killed_after:
            raise Killed

    data = Split(INPUTS, TARGETS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    how = {"epochs": 2, "batch_size": 12, "seed": 0, "checkpoint": path, "on_epoch": on_epoch}
    fit(Plain(model, loss), optimizer, data, human_labels(TARGETS, TARGETS), data, **how)
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize(
    ("front", "make"),
    [(nn.Identity, lambda: smoothing_more), (nn.Identity, of_nonlocal), (Centering, nn.CrossEntropyLoss)],
    ids=["global of a loss", "nonlocal of a loss", "global of a module"],
)
def test_a_killed_training_goes_on_with_the_names_as_they_were(front, make, tmp_path):
    whole = trained(tmp_path / "whole", front, make())
    with pytest.raises(Killed):
        trained(tmp_path / "run", front, make(), killed_after=1)
    assert torch.equal(trained(tmp_path / "run", front, make()), whole)
