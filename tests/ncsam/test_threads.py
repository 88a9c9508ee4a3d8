"""Several threads train at once, with Dropout, which draws from the process's generators."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import landscape.data.random_state
from ncsam import SAM, build_model, corrupt_labels, fit, load_dataset, random_state


def training(seed, dropout):
    """A job that trains; its result is the training loss of each epoch."""
    dataset = load_dataset("digits", train_samples=120, test_samples=40)
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.4, seed=0)

    def train():
        hidden = build_model("mlp", (1, 8, 8), 16, seed=seed, hidden=[16])
        model = nn.Sequential(
            hidden, nn.Dropout(dropout), build_model("mlp", (16,), 10, seed=seed, hidden=[])
        )
        method = SAM(model, nn.CrossEntropyLoss(), rho=0.05)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        history = fit(
            method, optimizer, dataset.train, labels, dataset.test, epochs=3, batch_size=32, seed=seed,
            alignment_batches=1,
        )  # fmt: skip
        return history.metrics["train_loss"]

    return train


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_threads_that_train_get_the_numbers_of_one_thread_and_leave_the_random_state(dropout):
    jobs = [training(seed, dropout) for seed in (0, 1)]
    alone = [job() for job in jobs]
    before = torch.random.get_rng_state()
    for _ in range(3):
        with ThreadPoolExecutor(len(jobs)) as pool:
            together = list(pool.map(lambda job: job(), jobs))
        np.testing.assert_array_equal(together, alone)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_a_thread_that_borrows_the_generators_waits_for_the_one_that_has_them():
    drawn = []

    def draw():
        with random_state.borrowed_generators(seed=1):
            drawn.append(torch.rand(1).item())

    with random_state.borrowed_generators(seed=0):
        first = torch.rand(1).item()
        other = threading.Thread(target=draw)
        other.start()
        other.join(0.2)
        assert drawn == []
        second = torch.rand(1).item()
    other.join(10)
    of_one_thread = torch.rand(2, generator=torch.Generator().manual_seed(0)).tolist()
    assert [first, second] == of_one_thread
    assert drawn == torch.rand(1, generator=torch.Generator().manual_seed(1)).tolist()


def test_training_and_measuring_wait_for_each_other():
    assert random_state.LOCK is landscape.data.random_state.LOCK
