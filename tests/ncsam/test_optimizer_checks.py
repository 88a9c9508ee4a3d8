"""Optimizers and schedulers that a training loop cannot step are refused before the first step."""

import pytest
import torch
from torch import nn

from ncsam import SAM, Split, fit, human_labels

TARGETS = torch.arange(16) % 3


def train(optimizer=torch.optim.SGD, scheduler=None, epochs=1, **options):
    torch.manual_seed(0)
    data = Split(torch.randn(16, 5), TARGETS)
    method = SAM(nn.Linear(5, 3), nn.CrossEntropyLoss(), rho=0.05)
    steps = optimizer(method.parameters(), lr=0.1)
    return fit(
        method,
        steps,
        data,
        human_labels(TARGETS, TARGETS),
        data,
        epochs=epochs,
        batch_size=8,
        seed=0,
        scheduler=None if scheduler is None else scheduler(steps),
        **options,
    )


def test_an_optimizer_that_needs_a_closure_is_refused():
    with pytest.raises(ValueError, match="optimizer: LBFGS asks for the loss several times a step"):
        train(torch.optim.LBFGS)


def test_a_scheduler_that_needs_a_metric_is_refused():
    with pytest.raises(ValueError, match="scheduler: ReduceLROnPlateau follows a metric"):
        train(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint: .* was written with another optimizer than Adam"):
        train(torch.optim.Adam, checkpoint=checkpoint, epochs=2)
    assert train(checkpoint=checkpoint, epochs=2).epochs == 2
