"""Loaders that leave out samples or draw an augmentation: measured with a warning that says so."""

import os
import random
import signal
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from landscape import Objective
from landscape.data import batches
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


@pytest.mark.parametrize("drawn", [50, 150])
def test_a_loader_that_draws_another_number_of_samples_is_measured_with_a_warning(drawn):
    loader = DataLoader(TensorDataset(x, y), sampler=RandomSampler(x, num_samples=drawn), batch_size=50)
    with pytest.warns(
        UserWarning, match=f"^data: the DataLoader's RandomSampler draws {drawn} samples of 120"
    ):
        Objective(network().float(), nn.CrossEntropyLoss(), loader)


def of_ranks(count, **options):
    sampler = DistributedSampler(TensorDataset(x, y), num_replicas=count, rank=0, **options)
    return DataLoader(TensorDataset(x, y), sampler=sampler, batch_size=50)


def test_the_share_of_one_rank_alone_is_measured_with_a_warning():
    with pytest.warns(
        UserWarning, match="^data: .* DistributedSampler gives this rank one of 4 shares of 120"
    ):
        Objective(network().float(), nn.CrossEntropyLoss(), of_ranks(4))


@pytest.mark.parametrize(("drops", "says"), [(False, "repeats 6"), (True, "leaves out 1")])
def test_shares_that_are_made_equal_are_measured_with_a_warning(drops, says):
    with pytest.warns(UserWarning, match=f"^data: .* DistributedSampler {says} of 120 samples"):
        Objective(network().float(), nn.CrossEntropyLoss(), of_ranks(7, drop_last=drops))


ROWS = range(120)


class Flow(IterableDataset):
    """The samples one after another; several workers share them, or read all of them each."""

    def __init__(self, shares, rows=ROWS):
        self.shares, self.rows = shares, rows

    def __iter__(self):
        worker = get_worker_info()
        for place in self.rows[worker.id :: worker.num_workers] if self.shares and worker else self.rows:
            yield x[place], y[place]


@pytest.mark.parametrize("options", [{}, {"keep": "none"}], ids=["kept", "stream"])
def test_a_stream_that_each_worker_reads_whole_is_measured_with_a_warning(options):
    loader = DataLoader(Flow(shares=False), batch_size=50, num_workers=2)
    with pytest.warns(UserWarning, match="^data: each sample comes 2 times.*get_worker_info"):
        Objective(network().float(), nn.CrossEntropyLoss(), loader, **options)


@pytest.mark.parametrize(
    "flow", [Flow(shares=True), Flow(shares=True, rows=[*range(120), *range(60)])], ids=["once", "some twice"]
)
def test_a_stream_that_workers_share_raises_no_warning(flow):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="data:")
        Objective(network().float(), nn.CrossEntropyLoss(), DataLoader(flow, batch_size=50, num_workers=2))


def test_the_first_pass_over_a_stream_of_workers_hashes_each_sample_once(monkeypatch):
    hashed, digest = [], batches._digest
    monkeypatch.setattr(batches, "_digest", lambda *parts: hashed.append(0) or digest(*parts))
    loader = DataLoader(Flow(shares=True), batch_size=50, num_workers=2)
    Objective(network().float(), nn.CrossEntropyLoss(), loader, keep="none")
    # checks hash a few of them again
    assert len(hashed) < 120 + 8


class Failing(Dataset):
    """Items of which one cannot be read, or whose worker is killed."""

    def __init__(self, is_killed):
        self.is_killed = is_killed

    def __len__(self):
        return 120

    def __getitem__(self, item):
        if item == 70 and self.is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 70:
            raise OSError("disk gone")
        return x[item], y[item]


@pytest.mark.parametrize(
    ("is_killed", "says"),
    [(True, "(exited unexpectedly|killed by signal)"), (False, "OSError: disk gone")],
    ids=["killed", "raises"],
)
def test_a_failed_worker_is_named_with_the_remedy(is_killed, says):
    loader = DataLoader(Failing(is_killed), batch_size=50, num_workers=1)
    with pytest.raises(
        RuntimeError, match=rf"^data: a worker of the DataLoader.*{says}.*num_workers=0"
    ) as refused:
        Objective(network().float(), nn.CrossEntropyLoss(), loader)
    assert refused.value.__cause__ is not None


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
