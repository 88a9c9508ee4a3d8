"""`fit` steps a scheduler once an epoch: one that counts batches is refused or told before the first step."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

from ncsam import Plain, Split, build_schedule, fit, human_labels
from ncsam.schedule_checks import check_that_it_counts_epochs

EPOCHS, BATCHES = 4, 7


def an_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)


def one_cycle(steps):
    return lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=steps)


def in_a_chain(part):
    return lambda optimizer: ChainedScheduler([StepLR(optimizer, 1), part(optimizer)], optimizer)


def after_a_warmup(part, milestone=1):
    return lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, total_iters=1), part(optimizer)], [milestone]
    )


REFUSED = {
    "one cycle of batches": one_cycle(EPOCHS * BATCHES),
    "one cycle that is too short": one_cycle(2),
    "in a chain": in_a_chain(one_cycle(EPOCHS * BATCHES)),
    "after a warm-up": after_a_warmup(one_cycle(EPOCHS * BATCHES)),
    "a cycle of batches": lambda optimizer: CyclicLR(optimizer, 0.01, 0.1, step_size_up=BATCHES),
}
TOLD = {
    "a cosine of batches": lambda optimizer: CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES),
    "restarts by batches": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, T_0=BATCHES),
    "a power of batches": lambda optimizer: PolynomialLR(optimizer, total_iters=EPOCHS * BATCHES),
    "a warm-up of batches": lambda optimizer: LinearLR(optimizer, total_iters=EPOCHS * BATCHES),
    "in a chain": in_a_chain(lambda optimizer: CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES)),
    "after a warm-up": after_a_warmup(lambda optimizer: CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES)),
    "a part that never begins": after_a_warmup(lambda optimizer: CosineAnnealingLR(optimizer, 3), BATCHES),
}
TAKEN = {
    "one cycle": one_cycle(EPOCHS),
    "one cycle and the rate after it": one_cycle(EPOCHS + 1),
    "one cycle after a warm-up": after_a_warmup(one_cycle(EPOCHS - 1)),
    "a cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=EPOCHS),
    "a cycle of epochs": lambda optimizer: CyclicLR(optimizer, 0.01, 0.1, step_size_up=2),
    "no schedule": lambda _: None,
    **{
        f"{name} by name": lambda optimizer, name=name: build_schedule(
            name, optimizer, epochs=EPOCHS, warmup_epochs=1
        )
        for name in ("constant", "step", "cosine")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cycle_that_does_not_fit_the_epochs_is_refused(name):
    scheduler = REFUSED[name](an_optimizer())
    with pytest.raises(
        ValueError, match=r"^scheduler: .* fit steps it once in each of 4 epochs; give .* own$"
    ):
        check_that_it_counts_epochs(scheduler, EPOCHS)


@pytest.mark.parametrize("name", TOLD)
def test_a_schedule_that_does_not_come_to_its_end_is_told(name):
    """It may be one of epochs, in a training that is prolonged later."""
    scheduler = TOLD[name](an_optimizer())
    with pytest.warns(
        UserWarning, match=r"^scheduler: .* once in each of 4 epochs, .* if it counts batches$"
    ):
        check_that_it_counts_epochs(scheduler, EPOCHS)


@pytest.mark.parametrize("name", TAKEN)
def test_a_schedule_of_epochs_is_taken(name):
    scheduler = TAKEN[name](an_optimizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_that_it_counts_epochs(scheduler, EPOCHS)


def test_a_schedule_that_was_stepped_before_goes_on():
    scheduler = one_cycle(EPOCHS + 2)(an_optimizer())
    with pytest.raises(ValueError, match="^scheduler: OneCycleLR has total_steps=6"):
        check_that_it_counts_epochs(scheduler, EPOCHS)
    for _ in range(2):
        scheduler.optimizer.step()
        scheduler.step()
    check_that_it_counts_epochs(scheduler, EPOCHS)


def test_fit_refuses_it_before_the_first_step():
    targets = torch.arange(8) % 3
    data, labels = Split(torch.randn(8, 5), targets), human_labels(targets, targets)
    model = nn.Linear(5, 3)
    before = model.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = one_cycle(3)(optimizer)
    with pytest.raises(ValueError, match="^scheduler: OneCycleLR has total_steps=3"):
        fit(
            Plain(model, nn.CrossEntropyLoss()),
            optimizer,
            data,
            labels,
            data,
            epochs=1,
            batch_size=8,
            seed=0,
            scheduler=scheduler,
        )
    assert torch.equal(model.weight, before)
