"""Experts with a limit of capacity: a sample that finds its expert full takes another route, so that samples mix."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective
from tests.conformance.right import D, assert_right, samples

EXPERTS = 4


class Mixture(nn.Module):
    """Each sample goes to its best expert, unless `capacity(samples)` of them went there before it."""

    def __init__(self, capacity):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.router, self.last = nn.Linear(5, 8), nn.Linear(8, EXPERTS), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(EXPERTS))
        self.capacity = capacity
        self.to(D)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        shares = self.router(hidden).softmax(-1)
        best = shares.argmax(-1)
        found = hidden
        for number, expert in enumerate(self.experts):
            goes = best == number
            goes = goes & (goes.cumsum(0) <= self.capacity(len(x)))
            found = found + goes.unsqueeze(-1) * shares[:, number : number + 1] * expert(hidden)
        return self.last(found)


WAYS = {
    "a loss of torch": (cross_entropy, {}),
    "another loss": (lambda outputs, targets: cross_entropy(outputs, targets), {}),
    "batches": (lambda outputs, batch: cross_entropy(outputs, batch[1]), {"forward": lambda m, b: m(b[0])}),
}
CAPACITIES = {
    "as many as go on the average": lambda samples: -(-samples // EXPERTS),
    "half of that": lambda samples: -(-samples // (2 * EXPERTS)),
    "two": lambda _: 2,
    "twenty, which few samples do not reach": lambda _: 20,
    "a hundred, which a chunk reaches": lambda _: 100,
}


@pytest.mark.parametrize(("loss", "options"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("capacity", CAPACITIES.values(), ids=CAPACITIES)
def test_samples_that_share_a_capacity_are_refused_with_the_remedy(capacity, loss, options):
    with pytest.raises(ValueError, match="capacity .* torch.tensor"):
        Objective(Mixture(capacity), loss, samples(500), **options)


@pytest.mark.parametrize(("loss", "options"), WAYS.values(), ids=WAYS)
def test_experts_with_room_for_all_are_measured_right(loss, options):
    model = Mixture(lambda samples: samples)
    assert_right(Objective(model, loss, samples(500), **options), model, samples(500))


def test_given_batches_are_measured_as_they_are_cut():
    model = Mixture(CAPACITIES["as many as go on the average"])
    inputs, targets = samples(48)
    batches = [(*pair, torch.tensor(0)) for pair in zip(inputs.split(24), targets.split(24), strict=True)]
    objective = Objective(
        model,
        lambda outputs, batch: cross_entropy(outputs, batch[1]),
        batches,
        forward=lambda model, batch: model(batch[0]),
        count=lambda batch: len(batch[1]),
    )

    def loss(model):
        return sum(cross_entropy(model(x), y) for x, y, _ in batches) / 2

    assert_right(objective, model, loss=loss)
