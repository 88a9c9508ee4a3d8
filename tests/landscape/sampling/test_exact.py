"""The sampling error against closed forms and dense matrices of single samples."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from landscape import Objective, sampling_error, sharpness, top_eigenvalues, trace
from landscape.loss.matrices_by_name import matrix_named
from tests.conftest import build, dense_hessian

cross_entropy = nn.CrossEntropyLoss()
SAMPLES = 37


def small():
    """A linear classifier of 9 weights: all its eigenpairs can be found."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(SAMPLES, 2, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 3, (SAMPLES,), generator=generator)
    return nn.Linear(2, 3).double(), inputs, targets


def curved():
    """A network of 21 weights, whose outputs are curved in them."""
    _, inputs, targets = small()
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double(), inputs, targets


def of_single_samples(model, inputs, targets):
    return torch.stack(
        [dense_hessian(model, inputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
    )


def test_the_error_of_a_mean_loss_is_that_of_a_mean_and_its_interval_is_student_s():
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    found = sampling_error(objective, objective.evaluate(), groups=SAMPLES)
    losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none").detach().numpy()
    standard_error = losses.std(ddof=1) / math.sqrt(SAMPLES)
    assert found.standard_errors[0] == pytest.approx(standard_error)
    low, high = scipy.stats.t.interval(0.95, SAMPLES - 1, losses.mean(), standard_error)
    assert (found.low[0], found.high[0]) == pytest.approx((low, high))
    assert found.units == SAMPLES


def test_samples_count_by_their_class_weights():
    model, inputs, targets = small()
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    objective = Objective(model, nn.CrossEntropyLoss(weight), (inputs, targets))
    found = sampling_error(objective, objective.evaluate(), groups=SAMPLES)
    losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none").detach()
    weights = weight[targets]
    deviations = weights * (losses - (weights * losses).sum() / weights.sum())
    expected = math.sqrt(SAMPLES / (SAMPLES - 1) * deviations.square().sum()) / weights.sum()
    assert found.standard_errors[0] == pytest.approx(float(expected))


def test_errors_and_biases_of_eigenvalues_are_those_of_second_order_perturbation_theory():
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    eigen = top_eigenvalues(objective, objective.n_parameters, tol=1e-12)
    found = sampling_error(objective, eigen, groups=SAMPLES)

    # the softmax has three directions of no curvature, whose eigenvalues meet; the others are apart
    vectors = eigen.vectors.numpy()
    hessians = of_single_samples(model, inputs, targets).numpy()
    couplings = np.einsum("ni,snm,mj->sij", vectors, hessians, vectors)
    variances = couplings.var(0, ddof=1) / SAMPLES
    np.testing.assert_allclose(found.standard_errors, np.sqrt(variances.diagonal()), atol=1e-9)
    gaps = eigen.values[None, :] - eigen.values[:, None]
    shifts = np.sign(gaps) * (np.sqrt(gaps**2 + 4 * variances) - np.abs(gaps)) / 2
    np.testing.assert_allclose(found.biases, shifts.sum(0), atol=1e-8)


def test_what_lies_outside_of_the_pairs_found_drives_the_top_eigenvalue_up():
    model, inputs, targets = curved()
    objective = Objective(model, cross_entropy, (inputs, targets))
    eigen = top_eigenvalues(objective, 1, tol=1e-10)
    found = sampling_error(objective, eigen, groups=SAMPLES)
    vector = eigen.vectors[:, 0]
    changes = of_single_samples(model, inputs, targets) @ vector
    changes = changes - (changes @ vector).unsqueeze(1) * vector
    outside = float(changes.square().sum()) / (SAMPLES * (SAMPLES - 1))
    value = eigen.values[0]
    assert found.biases[0] == pytest.approx((math.sqrt(value**2 + 4 * outside) - value) / 2, rel=1e-6)
    assert found.products == 1


def test_the_error_of_a_trace_is_the_spread_of_the_samples_traces_and_a_sixteenth_of_the_probes_variance():
    model, inputs, targets = curved()
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=False)
    estimate = trace(objective, rtol=0.5)
    hessians = of_single_samples(model, inputs, targets)
    changes = hessians - hessians.mean(0)
    of_traces = changes.diagonal(dim1=1, dim2=2).sum(1).square()
    # the variance of w^T H w over random signs w (Avron and Toledo 2011)
    of_probes = 2 * (changes.square().sum((1, 2)) - changes.diagonal(dim1=1, dim2=2).square().sum(1))
    truth = float((of_traces + of_probes / 16).sum()) / (SAMPLES * (SAMPLES - 1))
    found = [
        sampling_error(objective, estimate, groups=SAMPLES, seed=seed).standard_errors[0] ** 2
        for seed in range(20)
    ]
    assert abs(np.mean(found) - truth) < 4 * np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.std(found, ddof=1) < truth


def test_the_error_of_sharpness_is_that_of_the_rises_at_the_highest_point():
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    highest = sharpness(objective, rho=0.3)
    found = sampling_error(objective, highest, groups=SAMPLES)
    moved = nn.Linear(2, 3).double()
    nn.utils.vector_to_parameters(objective.theta + highest.offset, moved.parameters())
    rises = nn.functional.cross_entropy(
        moved(inputs), targets, reduction="none"
    ) - nn.functional.cross_entropy(model(inputs), targets, reduction="none")
    assert found.standard_errors[0] == pytest.approx(float(rises.std()) / math.sqrt(SAMPLES))


def test_a_regularizer_enters_the_value_and_not_the_error():
    model, inputs, targets = small()
    plain = Objective(model, cross_entropy, (inputs, targets))
    decayed = Objective(
        model,
        cross_entropy,
        (inputs, targets),
        regularizer=lambda parameters: sum((p**2).sum() for p in parameters.values()),
    )
    without, having = (
        sampling_error(o, top_eigenvalues(o, 2, tol=1e-10), groups=SAMPLES) for o in (plain, decayed)
    )
    np.testing.assert_allclose(having.values, without.values + 2)
    np.testing.assert_allclose(having.standard_errors, without.standard_errors, rtol=1e-6)


def test_data_sorted_by_class_have_the_error_of_data_in_any_order():
    model, inputs, targets = build("mlp")
    order = targets.argsort()
    errors = []
    for rows in (torch.arange(SAMPLES), order):
        objective = Objective(model, cross_entropy, (inputs[rows], targets[rows]))
        draws = [sampling_error(objective, objective.evaluate(), groups=9, seed=s) for s in range(60)]
        errors.append(np.mean([draw.standard_errors[0] ** 2 for draw in draws]))
    assert errors[1] == pytest.approx(errors[0], rel=0.15)


def test_all_of_a_finite_population_have_no_error_and_half_of_it_a_smaller_one():
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    unbounded, half, whole = (
        sampling_error(
            objective, objective.evaluate(), groups=SAMPLES, population=population
        ).standard_errors[0]
        for population in (None, 2 * SAMPLES, SAMPLES)
    )
    assert whole == 0
    assert half == pytest.approx(unbounded * math.sqrt(0.5))


@pytest.mark.parametrize(("population", "needed"), [(None, 400), (1000, 286)])
def test_how_many_samples_are_needed(population, needed):
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    # squared errors of mean 1 and standard deviation 1, but for the divisor: 400 samples know the mean to 5%
    targets = torch.tensor([0.0, math.sqrt(2.0)] * 50, dtype=torch.float64).unsqueeze(1)
    objective = Objective(model, nn.MSELoss(), (torch.ones(100, 1, dtype=torch.float64), targets))
    found = sampling_error(objective, objective.evaluate(), groups=100, population=population)
    assert found.samples_for(0.05)[0] == pytest.approx(needed, abs=5)


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "functional", "empirical-fisher"])
@pytest.mark.parametrize("linearize", [False, True])
def test_the_mean_of_the_chunks_products_is_the_product(matrix, linearize):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize)
    block = torch.randn(
        objective.n_parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    operator = matrix_named(matrix, objective)
    products = operator.of_chunks(block, lambda product: product)
    weights = torch.tensor([10.0, 10.0, 10.0, 7.0], dtype=torch.float64)
    mean = torch.tensordot(weights, products, 1) / SAMPLES
    torch.testing.assert_close(mean, operator @ block, rtol=1e-9, atol=1e-12)


def test_batches_that_cannot_be_cut_are_units_themselves():
    model, inputs, targets = small()
    parts = list(zip(inputs[:36].split(4), targets[:36].split(4), strict=True))
    objective = Objective(
        model,
        lambda outputs, batch: nn.functional.cross_entropy(outputs, batch["labels"]),
        [{"rows": rows, "labels": labels, "name": torch.zeros(1)} for rows, labels in parts],
        forward=lambda model, batch: model(batch["rows"]),
        count=lambda batch: len(batch["labels"]),
    )
    found = sampling_error(objective, objective.evaluate())
    losses = [float(cross_entropy(model(rows), labels).detach()) for rows, labels in parts]
    assert found.units == 9
    assert found.standard_errors[0] == pytest.approx(np.std(losses, ddof=1) / 3)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"groups": 7}, "groups"), ({"groups": 0}, "groups"), ({"population": 36}, "population")],
)
def test_options_out_of_range_are_refused_with_their_field(options, field):
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match=f"^{field}: must be at least"):
        sampling_error(objective, objective.evaluate(), **options)


def test_results_of_other_kinds_other_samples_or_without_their_point_are_refused():
    model, inputs, targets = small()
    objective = Objective(model, cross_entropy, (inputs, targets))
    fewer = Objective(model, cross_entropy, (inputs[:20], targets[:20]))
    few = Objective(model, cross_entropy, (inputs[:7], targets[:7]))
    eigen = top_eigenvalues(objective)
    with pytest.raises(ValueError, match="not over these 20"):
        sampling_error(fewer, eigen)
    with pytest.raises(ValueError, match="^data: a sampling error needs at least 8 samples"):
        sampling_error(few, few.evaluate())
    with pytest.raises(TypeError, match="^measured: must be what top_eigenvalues"):
        sampling_error(objective, 3.0)
