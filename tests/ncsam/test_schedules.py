"""Learning rates against closed forms."""

import math

import pytest
import torch

from ncsam import build_schedule


def rates(name, epochs, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = build_schedule(name, optimizer, epochs=epochs, **options)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_a_schedule_is_its_closed_form_after_a_linear_rise(name, warmup):
    after = {
        "constant": lambda _: 1.0,
        "step": lambda e: 0.1 ** sum(e >= end for end in (10, 15)),
        "cosine": lambda e: 0.5 * (1 + math.cos(math.pi * (e - warmup) / (20 - warmup))),
    }[name]
    expected = [0.2 * ((e + 1) / (warmup + 1) if e < warmup else after(e)) for e in range(20)]
    assert rates(name, 20, warmup_epochs=warmup) == pytest.approx(expected, rel=1e-9)


def test_the_cosine_without_a_warmup_is_torchs_to_the_bit():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for found in rates("cosine", 7):
        assert found == optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def test_milestones_and_factor_may_be_chosen():
    assert rates("step", 10, milestones=[0.3], factor=0.5) == pytest.approx(3 * [0.2] + 7 * [0.1])


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_a_schedule_goes_on_from_its_state(name, warmup):
    whole = rates(name, 8, warmup_epochs=warmup)
    for stop in (1, 2, 5):
        optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2) for _ in range(2)]
        one, other = (build_schedule(name, o, epochs=8, warmup_epochs=warmup) for o in optimizers)
        for _ in range(stop):
            optimizers[0].step()
            one.step()
        optimizers[1].load_state_dict(optimizers[0].state_dict())
        other.load_state_dict(one.state_dict())
        found = []
        for _ in range(8 - stop):
            found.append(optimizers[1].param_groups[0]["lr"])
            optimizers[1].step()
            other.step()
        assert found == whole[stop:]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("linear", {}, "schedule: unknown name 'linear'; known: constant, step, cosine"),
        ("constant", {"factor": 0.1}, "factor: 'constant' has no such option; it takes warmup_epochs"),
        ("cosine", {"warmup_epochs": 10}, "warmup_epochs: must be at least 0 and below the 10 epochs"),
        ("cosine", {"warmup_epochs": 1.5}, "warmup_epochs: must be a whole number"),
        ("step", {"milestones": [0.75, 0.5]}, "milestones: must be ascending shares"),
        ("step", {"milestones": [1.0]}, "milestones: must be ascending shares"),
        ("step", {"milestones": []}, "milestones: must be ascending shares"),
        ("step", {"factor": 0.0}, "factor: must be above 0"),
        ("step", {"warmup_epochs": 5}, "milestones: the first is epoch 5, within the warm-up"),
    ],
)
def test_what_is_no_schedule_is_named(name, options, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        rates(name, 10, **options)


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_too_few_for_the_milestones_are_named(epochs):
    """Two milestones at one epoch would lower the rate twice at once."""
    with pytest.raises(
        ValueError, match=rf"^milestones: \[0.5, 0.75\] with epochs={epochs} are rounded .* fewer"
    ):
        rates("step", epochs)
    with pytest.raises(ValueError, match=r"^milestones: .* are rounded to the ends of the epochs \[0\]"):
        rates("step", 1, milestones=[0.5])
    assert rates("step", 3, milestones=[0.5], factor=0.5) == pytest.approx([0.2, 0.2, 0.1])
