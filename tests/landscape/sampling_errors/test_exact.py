"""The sampling error against closed forms and dense matrices of single samples."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective, sampling_error, sharpness, top_eigenvalues, trace
from landscape.loss.matrices_by_name import matrix_named
from landscape.seeds import generator_for
from tests.conftest import build, dense_hessian

pytestmark = pytest.mark.usefixtures("direct_products")

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


def test_what_lies_outside_of_the_pairs_found_moves_an_eigenvalue_by_where_it_lies():
    """The random sum of the groups' changes sees the eigenvalues outside as they are, on average over seeds."""
    model, inputs, targets = curved()
    objective = Objective(model, cross_entropy, (inputs, targets))
    for which in ("largest", "smallest"):
        eigen = top_eigenvalues(objective, 1, which=which, tol=1e-10)
        vectors, vector = torch.linalg.eigh(dense_hessian(model, inputs, targets)), eigen.vectors[:, 0]
        changes = of_single_samples(model, inputs, targets) @ vector
        couplings = (changes - changes.mean(0)) @ vectors.eigenvectors
        squares = couplings.square().sum(0) / (SAMPLES * (SAMPLES - 1))
        gaps = eigen.values[0] - vectors.eigenvalues
        others = gaps.abs() > 1e-9
        wide = (gaps.square() + 4 * squares).sqrt()
        expected = float((torch.sign(gaps) * (wide - gaps.abs()) / 2)[others].sum())
        found = [sampling_error(objective, eigen, groups=SAMPLES, seed=seed) for seed in range(30)]
        biases = np.array([each.biases[0] for each in found])
        # one shift of a sum is less than the sum of shifts, by terms of the order of the couplings' fourth power
        assert abs(biases.mean() - expected) < 4 * biases.std() / math.sqrt(30) + 0.05 * abs(expected)
        assert all(2 <= each.products <= 5 for each in found)


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
    losses = nn.CrossEntropyLoss(reduction="none")
    rises = (losses(moved(inputs), targets) - losses(model(inputs), targets)).detach()
    assert found.standard_errors[0] == pytest.approx(float(rises.std()) / math.sqrt(SAMPLES))


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "functional", "empirical-fisher"])
def test_a_regularizer_adds_no_error(matrix):
    model, inputs, targets = curved()

    def decayed(parameters):
        return 5 * parameters["0.weight"].square().sum()

    objective = Objective(model, cross_entropy, (inputs, targets), regularizer=decayed)
    plain = Objective(model, cross_entropy, (inputs, targets))
    eigen = top_eigenvalues(objective, 2, matrix=matrix, which="magnitude", tol=1e-10)
    found = sampling_error(objective, eigen, groups=SAMPLES)
    vector = eigen.vectors[:, 0]
    of_samples = (plain.subset(samples=torch.tensor([i])) for i in range(SAMPLES))
    quotients = [float(vector @ (matrix_named(matrix, one) @ vector)) for one in of_samples]
    assert found.standard_errors[0] == pytest.approx(np.std(quotients, ddof=1) / math.sqrt(SAMPLES))
    assert abs(found.biases[0]) < found.standard_errors[0]


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


def test_the_samples_needed_are_infinite_for_a_value_of_0_and_unknown_for_a_whole_population():
    model = nn.Linear(1, 1, bias=False).double()
    data = torch.ones(20, 1, dtype=torch.float64), torch.ones(20, 1, dtype=torch.float64)
    nn.init.ones_(model.weight)
    objective = Objective(model, nn.MSELoss(), data)
    assert sampling_error(objective, objective.evaluate()).samples_for(0.1).tolist() == [math.inf]
    with pytest.raises(ValueError, match="the whole population was measured"):
        sampling_error(objective, objective.evaluate(), population=20).samples_for(0.1)


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
    weights, products = operator.of_chunks(block, lambda _, product: product)
    assert weights.tolist() == [10, 10, 10, 7]
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


def objectives():
    model, inputs, targets = small()
    return (Objective(model, cross_entropy, (inputs[:count], targets[:count])) for count in (SAMPLES, 20))


@pytest.mark.parametrize(
    "measure",
    [top_eigenvalues, trace, lambda o: sharpness(o, rho=0.3), lambda o: o.evaluate()],
    ids=["eigenvalues", "trace", "sharpness", "loss"],
)
def test_results_of_other_samples_are_refused(measure):
    objective, fewer = objectives()
    with pytest.raises(ValueError, match="^measured: .*samples"):
        sampling_error(fewer, measure(objective))


@pytest.mark.parametrize("measure", [top_eigenvalues, trace], ids=["eigenvalues", "trace"])
def test_curvature_of_other_weights_is_refused(measure):
    model, *data = small()
    before = measure(Objective(model, cross_entropy, tuple(data)))
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 3
    with pytest.raises(ValueError, match="^measured: .*of other weights or"):
        sampling_error(Objective(model, cross_entropy, tuple(data)), before)


def test_a_loss_at_other_weights_is_refused():
    objective, _ = objectives()
    with pytest.raises(ValueError, match="^measured: belongs to other weights or samples"):
        sampling_error(objective, objective.evaluate(1.5 * objective.theta))


@pytest.mark.parametrize(
    "measure",
    [
        lambda o: top_eigenvalues(o, 2, tol=1e-12, max_products=2, block=1),
        lambda o: trace(o, rtol=1e-9, max_products=4),
        lambda o: sharpness(o, rho=0.3, steps=1, restarts=0),
    ],
    ids=["eigenvalues", "trace", "sharpness"],
)
def test_results_that_did_not_converge_are_refused(measure):
    objective, _ = objectives()
    found = measure(objective)
    assert not np.all(found.converged)
    with pytest.raises(ValueError, match="^measured: .*did not converge"):
        sampling_error(objective, found)


def test_a_loss_that_is_a_sum_is_refused():
    model, inputs, targets = small()
    objective = Objective(model, nn.CrossEntropyLoss(reduction="sum"), (inputs, targets))
    with pytest.raises(ValueError, match="^objective: its loss is a sum"):
        sampling_error(objective, objective.evaluate())


def test_what_cannot_be_measured_is_refused():
    objective, _ = objectives()
    model, inputs, targets = small()
    few = Objective(model, cross_entropy, (inputs[:7], targets[:7]))
    with pytest.raises(ValueError, match="^data: a sampling error needs at least 8 samples"):
        sampling_error(few, few.evaluate())
    with pytest.raises(ValueError, match="^measured: must be a sharpness in a ball"):
        sampling_error(objective, sharpness(objective, rho=0.1, norm="linf"))
    with pytest.raises(TypeError, match="^measured: must be what top_eigenvalues"):
        sampling_error(objective, 3.0)


def test_there_are_at_least_as_many_groups_as_were_asked_for():
    objective, _ = objectives()
    for groups in (8, 9, 20, 36, 37, 100):
        assert sampling_error(objective, objective.evaluate(), groups=groups).units >= min(groups, SAMPLES)


def test_a_shuffled_stream_has_the_error_of_one_in_order():
    model, inputs, targets = small()
    inputs, targets = inputs[:32], targets[:32]
    found = []
    for shuffle in (False, True):
        torch.manual_seed(0)
        loader = DataLoader(TensorDataset(inputs, targets), batch_size=2, shuffle=shuffle)
        objective = Objective(model, cross_entropy, loader, keep="none")
        highest = sharpness(objective, rho=0.3)
        found.append(sampling_error(objective, highest).standard_errors[0])
    # other pairs of samples are the units, which moves the error by a quarter or so; before, it was many times larger
    assert 0.5 < found[1] / found[0] < 2


class InAnotherOrder:
    """Batches, of which each pass gives the first one last."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        self.batches = [*self.batches[1:], self.batches[0]]
        return iter(self.batches)


@pytest.mark.parametrize("vectors", [1, 3, 16])
def test_each_batch_of_a_stream_meets_all_signs_of_a_trace_in_one_pass(vectors):
    """In little room each pass met some of the signs, and they were joined by the place of a batch in its pass."""
    model, inputs, targets = curved()
    batches = list(zip(inputs[:36].split(3), targets[:36].split(3), strict=True))
    objective = Objective(
        model,
        cross_entropy,
        InAnotherOrder(batches),
        keep="none",
        linearize=False,
        memory_budget=21 * (16 + 40 * vectors),
    )
    estimate = trace(Objective(model, cross_entropy, (inputs[:36], targets[:36])), rtol=0.3)
    found = sampling_error(objective, estimate, seed=4)
    signs = (
        torch.randint(0, 2, (21, 16), generator=generator_for("probes of a sampling error", 4)).double() * 2
        - 1
    )
    hessians = torch.stack([dense_hessian(model, *batch) for batch in batches])
    forms = (signs * (hessians @ signs)).sum(1).mean(1)
    assert found.standard_errors[0] == pytest.approx(float(forms.std()) / math.sqrt(12), rel=1e-6)
