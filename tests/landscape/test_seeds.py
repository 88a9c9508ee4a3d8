"""What is drawn with a seed does not depend on what else was drawn with it: weights, wrong labels, other measures."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import landscape
from landscape import (
    Objective,
    average_sharpness,
    enough_samples,
    filter_normalized_directions,
    gradient_noise,
    line,
    sampling_error,
    top_eigenvalues,
    trace,
)
from landscape.curvature.random_part import random_part
from landscape.seeds import generator_for, normal_like
from ncsam import corrupt_labels

pytestmark = pytest.mark.usefixtures("direct_products")

SAMPLES, RATE = 1_500, 0.4
SEEDS = range(4)


class Says(nn.Module):
    """Says class 0 for each sample, with a slope that depends on its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, inputs):
        return torch.cat([self.weight * inputs, torch.zeros_like(inputs)], 1)


def of_wrong_labels(seed):
    """An objective whose model is right where the label drawn with this seed is right."""
    labels = torch.arange(SAMPLES) % 10
    wrong = corrupt_labels(labels, kind="symmetric", rate=RATE, seed=seed).is_wrong
    return Objective(Says(), nn.CrossEntropyLoss(), (torch.ones(SAMPLES, 1), wrong.long()))


def drawn_in_line(objective, seed):
    along = filter_normalized_directions(objective, 1, seed=seed, one_dimensional="normalize")
    return line(objective, along, steps=3, samples=300, seed=seed).center_accuracy


def drawn_until_enough(objective, seed):
    found = enough_samples(objective, lambda part: part.evaluate(), rtol=0.2, first=300, seed=seed)
    return found.measured.accuracy


def drawn_part(objective, seed):
    return random_part(objective, 0.2, seed).evaluate().accuracy


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share_right", [drawn_in_line, drawn_until_enough, drawn_part])
def test_samples_drawn_with_the_seed_of_the_wrong_labels_have_as_many_of_them(share_right, seed):
    found = share_right(of_wrong_labels(seed), seed)
    # at least 300 are drawn: four standard deviations of their share
    assert found == pytest.approx(1 - RATE, abs=4 * (RATE * (1 - RATE) / 300) ** 0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sampling_error_is_that_of_random_groups(seed):
    objective = of_wrong_labels(seed)
    found = sampling_error(objective, objective.evaluate(), groups=32, seed=seed).standard_errors[0]
    losses = nn.functional.cross_entropy(
        torch.tensor([[2.0, 0.0]]).expand(SAMPLES, 2),
        torch.cat([chunk.pair[1] for chunk in objective.chunks]),
        reduction="none",
    )
    # a standard deviation of 32 groups is known to an eighth
    assert found == pytest.approx((losses.std() / SAMPLES**0.5).item(), rel=0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_noise_is_that_of_random_pieces(seed):
    objective = of_wrong_labels(seed)
    truth = gradient_noise(objective, pieces=SAMPLES, seed=seed).value
    assert gradient_noise(objective, pieces=32, seed=seed).value == pytest.approx(truth, rel=1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_directions_are_not_those_of_the_weights_drawn_with_the_same_seed(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(50, 20), nn.Flatten(), nn.Linear(20, 3))
    inputs, labels = torch.arange(50)[:, None], torch.arange(50) % 3
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, labels))
    (direction,) = filter_normalized_directions(objective, 1, seed=seed).vectors.T
    cosine = torch.cosine_similarity(direction, objective.theta, dim=0).item()
    assert abs(cosine) < 4 / objective.n_parameters**0.5


def test_a_trace_holds_the_truth_where_the_matrix_lies_along_weights_of_its_seed():
    """The Hessian of (w . w0)^2 / 2 is w0 w0^T. Probes along w0 would give a multiple of its trace."""
    held = []
    for seed in range(20):
        torch.manual_seed(seed)
        model = nn.Linear(400, 1, bias=False)
        along = model.weight.detach().clone()
        objective = Objective(model, nn.MSELoss(), (along, torch.zeros(1, 1)), dtype=torch.float64)
        found = trace(objective, method="hutchinson", rtol=None, max_products=12, seed=seed)
        held.append(found.low <= 2 * along.double().square().sum().item() <= found.high)
    assert sum(held) >= 17


@pytest.mark.parametrize("other", [torch.Generator().manual_seed(5), generator_for("another", 5)])
def test_another_purpose_draws_other_numbers(other):
    one, another = (torch.randn(10_000, generator=each) for each in (generator_for("one", 5), other))
    assert abs(torch.corrcoef(torch.stack([one, another]))[0, 1]) < 0.04


@pytest.mark.parametrize("seed", [0, 5, -1, 2**63])
def test_a_purpose_and_a_seed_give_the_same_numbers_again(seed):
    once, again = (torch.rand(3, generator=generator_for("one", seed)) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_seed_draws_the_same_normal_numbers_in_every_dtype(dtype):
    right = torch.randn(3 * 25_000, dtype=torch.float64, generator=generator_for("one", 5)).view(3, -1)
    found = normal_like((3, 25_000), torch.empty((), dtype=dtype), generator_for("one", 5))
    assert found.dtype == dtype
    assert torch.equal(found, right.to(dtype))


def drawn_directions(objective):
    return filter_normalized_directions(objective, 2, seed=3).vectors.double().numpy()


def of_noise(objective):
    return average_sharpness(objective, sigma=0.5, max_draws=8, rtol=1e-9, seed=3).value


def of_one_step_of_lanczos(objective):
    return top_eigenvalues(objective, 1, max_products=1, seed=3).values


@pytest.mark.parametrize("measure", [drawn_directions, of_noise, of_one_step_of_lanczos])
def test_a_seed_means_the_same_draws_in_float32_and_in_float64(measure):
    torch.manual_seed(0)
    model, labels = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), torch.arange(30) % 3
    inputs = torch.randn(30, 5)
    single, double = (
        measure(Objective(model, nn.CrossEntropyLoss(), (inputs, labels), dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert single == pytest.approx(double, rel=1e-3, abs=1e-5)


def files_with(pattern):
    """The files of the package whose text has the pattern."""
    package = Path(landscape.__file__).parent
    return {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(pattern, path.read_text())
    }


def test_no_measure_draws_in_the_dtype_or_on_the_device_of_the_weights():
    drawing = files_with(r"randn\(|randn_like|normal_\(|torch\.Generator\([^)]")
    assert drawing - set(OF_CHECKS) == {"seeds.py"}


OF_CHECKS = (
    *("model/penalty.py", "guards/in_float64.py", "guards/follows_weights.py"),
    *("guards/unread_outputs.py", "curvature/eigenvalues.py"),
    *("matrices/traced_products.py", "matrices/slopes.py", "matrices/rounding.py"),
)
"""Constant seeds of checks, which take no seed from a caller."""
OWN_STREAMS = ("seeds.py", "samples/probes.py", "curvature/with_pyhessian.py")
"""Seeds that are drawn themselves, and PyHessian's, which draws from torch's own generator."""


def test_no_measure_starts_a_generator_from_a_bare_seed():
    assert files_with(r"manual_seed\(|default_rng\(") == {*OF_CHECKS, *OWN_STREAMS}
