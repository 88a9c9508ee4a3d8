"""Ranks with fewer than four samples: their loss is checked as that of larger parts is, in each step."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from ncsam.methods.loss_checks import check_that_halves_add_up
from tests.ncsam.test_loss_checks import OUTPUTS

TARGETS = torch.arange(len(OUTPUTS)) % 4
WEIGHTS = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)


def checked(loss, samples):
    outputs, targets = OUTPUTS[:samples], TARGETS[:samples]
    return check_that_halves_add_up(loss, outputs, targets, loss(outputs, targets))


NO_MEANS = {
    "a sum": (lambda outputs, targets: cross_entropy(outputs, targets, reduction="sum"), 1),
    "class weights": (lambda outputs, targets: cross_entropy(outputs, targets, WEIGHTS), 2),
    "an ignored label": (lambda outputs, targets: cross_entropy(outputs, targets, ignore_index=1), 2),
    "samples that are compared": (lambda outputs, _: outputs.var(0, correction=0).sum(), 2),
}


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize(("loss", "fewest"), NO_MEANS.values(), ids=NO_MEANS)
def test_a_loss_that_is_no_mean_is_refused_from_as_many_samples_on_as_show_it(loss, fewest, samples):
    if samples < fewest:
        assert not checked(loss, samples)
        return
    with pytest.raises(ValueError, match="^loss_fn: the loss of the batch .* is no mean over the samples"):
        checked(loss, samples)


MEANS = {
    "cross-entropy": lambda outputs, targets: cross_entropy(outputs, targets),
    "smoothed": lambda outputs, targets: cross_entropy(outputs, targets, label_smoothing=0.1),
    "one that draws": lambda outputs, targets: cross_entropy(outputs, targets) * (1 + torch.rand(())),
}


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("loss", MEANS.values(), ids=MEANS)
def test_a_mean_is_checked_again_with_the_next_part(loss, samples):
    assert not checked(loss, samples)
