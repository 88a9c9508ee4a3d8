"""Data that are read again for each pass: the same numbers, bounded memory, and no silent change of the data."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from landscape import Objective, filter_normalized_directions, line, surface, top_eigenvalues, trace
from landscape.data.reading import Streamed
from landscape.evaluation.evaluator import Evaluator

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(D)


def samples(count=37):
    x = torch.randn(count, 4, dtype=D, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(count) % 3


def stream(**options):
    return Objective(network(), cross_entropy, DataLoader(TensorDataset(*samples()), **options), keep="none")


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"batch_size": 8, "shuffle": True}])
@pytest.mark.parametrize("chunk_size", [3, 512])
def test_a_stream_gives_the_numbers_of_data_in_memory(options, chunk_size):
    loader = DataLoader(TensorDataset(*samples()), **options)
    found = Objective(network(), cross_entropy, loader, keep="none", chunk_size=chunk_size)
    right = Objective(network(), cross_entropy, samples())
    assert isinstance(found.chunks, Streamed)
    assert found.n_samples == 37
    block = torch.randn(found.n_parameters, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    assert found.value() == pytest.approx(right.value(), rel=1e-13)
    assert found.evaluate().accuracy == right.evaluate().accuracy
    torch.testing.assert_close(found.gradient(), right.gradient(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.hvp(block), right.hvp(block), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found.ggnvp(block), right.ggnvp(block), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(top_eigenvalues(found, 2).values, top_eigenvalues(right, 2).values, rtol=1e-8)
    assert trace(found, seed=0).value == pytest.approx(trace(right, seed=0).value, rel=1e-8)
    planes = [
        surface(each, filter_normalized_directions(right, 2, seed=0), steps=5) for each in (found, right)
    ]
    np.testing.assert_allclose(planes[0].loss, planes[1].loss, rtol=1e-12)


def test_standard_errors_of_a_stream_are_those_of_data_in_memory():
    objectives = [stream(batch_size=8, shuffle=True), Objective(network(), cross_entropy, samples())]
    vector = torch.ones_like(objectives[0].theta)
    found, right = (
        Evaluator({"all": each}, [vector], errors=True, expected=1)(np.array([[0.3]])) for each in objectives
    )
    np.testing.assert_allclose(found.loss_error, right.loss_error, rtol=1e-9)
    np.testing.assert_allclose(found.rise_error, right.rise_error, rtol=1e-9)


class Augmented(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        x, y = samples(12)
        return x[index] + 0.01 * torch.rand(4, dtype=D), y[index]


@pytest.mark.parametrize("measure", [Objective.value, Objective.gradient, top_eigenvalues])
def test_a_new_augmentation_in_each_pass_is_an_error(measure):
    objective = Objective(network(), cross_entropy, DataLoader(Augmented(), batch_size=4), keep="none")
    with pytest.raises(ValueError, match="^data: this pass read other samples than the first one"):
        measure(objective)


def test_a_pass_over_other_samples_is_an_error():
    data = [tuple(part.split(9)[i] for part in samples()) for i in range(4)]
    objective = Objective(network(), cross_entropy, data, keep="none")
    objective.value()
    data[2] = data[1]
    with pytest.raises(ValueError, match="^data: this pass read other samples"):
        objective.value()


def test_data_that_can_be_read_once_only_are_kept():
    batches = zip(*(part.split(9) for part in samples()), strict=True)
    assert Objective(network(), cross_entropy, batches, memory_budget=0).value() == pytest.approx(
        Objective(network(), cross_entropy, samples()).value(), rel=1e-13
    )
    with pytest.raises(ValueError, match="^keep: zip can be read only once"):
        Objective(
            network(), cross_entropy, zip(*(part.split(9) for part in samples()), strict=True), keep="none"
        )


@pytest.mark.parametrize(
    ("keep", "budget", "streams"), [("auto", 0, True), ("auto", 2**20, False), ("all", 0, False)]
)
def test_a_loader_is_streamed_where_it_does_not_fit(keep, budget, streams):
    loader = DataLoader(TensorDataset(*samples()), batch_size=8)
    objective = Objective(network(), cross_entropy, loader, keep=keep, memory_budget=budget)
    assert isinstance(objective.chunks, Streamed) is streams
    assert objective.value() == pytest.approx(
        Objective(network(), cross_entropy, samples()).value(), rel=1e-13
    )


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda objective: objective.subset(samples=torch.tensor([1])), "^samples: these data are streamed"),
        (lambda objective: objective.inputs, "^samples: these data are streamed"),
        (
            lambda _: Objective(network(), cross_entropy, samples(), keep="some"),
            "^keep: must be one of all, none, auto",
        ),
    ],
)
def test_what_a_stream_does_not_have_is_refused(ask, says):
    with pytest.raises(ValueError, match=says):
        ask(stream(batch_size=8))


def test_a_block_of_the_weights_of_a_stream():
    part = stream(batch_size=8).subset(parameters=lambda name: name.startswith("2."))
    right = Objective(network(), cross_entropy, samples()).subset(
        parameters=lambda name: name.startswith("2.")
    )
    torch.testing.assert_close(part.hvp(part.theta), right.hvp(right.theta))


def test_batch_norm_is_recalibrated_with_given_inputs_only():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).to(D)
    data = DataLoader(TensorDataset(*samples()), batch_size=8)
    found, right = (
        Objective(model, cross_entropy, each, keep=k) for each, k in ((data, "none"), (samples(), "all"))
    )
    directions = filter_normalized_directions(right, 1, seed=0)
    with pytest.raises(ValueError, match="^calibration: must be given where the data are streamed"):
        line(found, directions, steps=3, batch_norm="recalibrate")
    lines = [
        line(each, directions, steps=3, batch_norm="recalibrate", calibration=samples()[0]).loss
        for each in (found, right)
    ]
    np.testing.assert_allclose(*lines, rtol=1e-12)


def test_the_random_state_is_left_as_it_was():
    objective = stream(batch_size=8, shuffle=True)
    before = torch.get_rng_state()
    objective.gradient()
    assert torch.equal(torch.get_rng_state(), before)


STREAM_OF_400_MB = """
import resource, torch
from torch import nn
from landscape import Objective, top_eigenvalues, filter_normalized_directions, line

class Batches:
    def __iter__(self):
        for seed in range(100):
            generator = torch.Generator().manual_seed(seed)
            yield torch.randn(1000, 1000, generator=generator), torch.randint(0, 3, (1000,), generator=generator)

torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small = Objective(nn.Linear(1000, 3), nn.CrossEntropyLoss(), next(iter(Batches())))
top_eigenvalues(small, 1, max_products=4)
line(small, filter_normalized_directions(small, 1), steps=3)
before = peak()
objective = Objective(nn.Linear(1000, 3), nn.CrossEntropyLoss(), Batches(), memory_budget=20 * 2**20)
top_eigenvalues(objective, 1, max_products=4)
line(objective, filter_normalized_directions(objective, 1), steps=3)
assert objective.n_samples == 100_000
print(peak() - before)
"""


def test_a_stream_of_twenty_times_the_budget_stays_within_two_batches_more_than_it(pytestconfig):
    done = subprocess.run(
        [sys.executable, "-c", STREAM_OF_400_MB],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20 + 2 * 2 * 4
