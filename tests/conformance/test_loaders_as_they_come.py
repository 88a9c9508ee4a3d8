"""Loaders that leave out samples or draw an augmentation: measured with a warning that says so."""

import random
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from landscape import Objective
from tests.conformance.right import network, samples

x, y = samples(120, torch.float32)


class Drawn(Dataset):
    """Items that a random augmentation moves; by torch, or by Python's own numbers."""

    def __init__(self, draw=None):
        self.draw = draw

    def __len__(self):
        return 120

    def __getitem__(self, item):
        return (x[item] + self.draw() if self.draw else x[item]), y[item]


def of_no_number_of_items():
    """Items whose keys are words, which no check can guess."""

    class Keyed(Dataset):
        def __len__(self):
            return 120

        def __getitem__(self, key):
            return x[int(key.removeprefix("item"))], y[int(key.removeprefix("item"))]

    return DataLoader(Keyed(), sampler=[f"item{i}" for i in range(120)], batch_size=50)


AUGMENTED = {
    "always": (lambda: torch.randn(5), 8),
    "every second time": (lambda: float(random.random() < 0.5), None),
}


@pytest.mark.parametrize(("draw", "differing"), AUGMENTED.values(), ids=AUGMENTED)
@pytest.mark.parametrize("workers", [0, 1])
def test_one_draw_of_an_augmentation_is_measured_with_a_warning(draw, differing, workers):
    model, state = network().float(), torch.get_rng_state()
    random.seed(0)
    loader = DataLoader(Drawn(draw), batch_size=50, num_workers=workers)
    with pytest.warns(UserWarning, match=f"^data: {differing or '[1-8]'} of 8 items of the dataset differ"):
        Objective(model, nn.CrossEntropyLoss(), loader)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [({"batch_size": 50}, 20), ({"batch_sampler": BatchSampler(range(120), 32, drop_last=True)}, 24)],
)
def test_a_loader_that_drops_its_last_batch_is_measured_with_a_warning(options, left_out):
    if "batch_size" in options:
        options = {**options, "shuffle": True, "drop_last": True}
    with pytest.warns(UserWarning, match=f"^data: the DataLoader leaves out {left_out} of 120 samples"):
        objective = Objective(
            network().float(), nn.CrossEntropyLoss(), DataLoader(TensorDataset(x, y), **options)
        )
    assert objective.n_samples == 120 - left_out


@pytest.mark.parametrize(
    "sampler",
    [WeightedRandomSampler([1.0] * 120, 120), RandomSampler(range(120), replacement=True)],
    ids=["weighted", "random"],
)
def test_a_loader_that_draws_with_replacement_is_measured_with_a_warning(sampler):
    loader = DataLoader(TensorDataset(x, y), batch_size=50, sampler=sampler)
    with pytest.warns(UserWarning, match=r"^data: the DataLoader's \w+ draws samples with replacement"):
        objective = Objective(network().float(), nn.CrossEntropyLoss(), loader)
    assert objective.n_samples == 120


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Drawn(), batch_size=50),
        lambda: DataLoader(Drawn(), batch_size=50, num_workers=1),
        lambda: DataLoader(Subset(TensorDataset(x, y), range(100)), batch_size=50, drop_last=True),
        of_no_number_of_items,
    ],
)
def test_loaders_of_fixed_samples_raise_no_warning(loader):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="data:")
        Objective(network().float(), nn.CrossEntropyLoss(), loader())


class Refilled:
    """Fills the same memory with each batch, as loaders do that read ahead into buffers."""

    def __init__(self, as_numpy=False):
        self.inputs, self.targets = torch.empty(30, 5), torch.empty(30, dtype=torch.long)
        self.as_numpy = as_numpy

    def __iter__(self):
        for start in range(0, 120, 30):
            self.inputs.copy_(x[start : start + 30])
            self.targets.copy_(y[start : start + 30])
            pair = self.inputs, self.targets
            yield tuple(torch.from_numpy(part.numpy()) for part in pair) if self.as_numpy else pair


@pytest.mark.parametrize(
    ("loader", "options"),
    [
        (Refilled(), {}),
        (Refilled(as_numpy=True), {"keep": "all"}),
        (iter(Refilled()), {}),
        (Refilled(), {"keep": "none"}),
        (Refilled(), {"memory_budget": 1300}),
    ],
    ids=["kept", "of NumPy", "generator", "stream", "stream once the budget is full"],
)
def test_each_batch_of_a_loader_that_refills_its_memory_is_measured(loader, options):
    model = network().float()
    found = Objective(model, nn.CrossEntropyLoss(), loader, **options)
    expected = Objective(model, nn.CrossEntropyLoss(), (x, y))
    torch.testing.assert_close(found.value(), expected.value(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.gradient(), expected.gradient(), rtol=1e-4, atol=1e-7)
