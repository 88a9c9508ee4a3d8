"""Traps of the peers in curvature: each case gives a wrong number, a crash or a ghost in at least one of them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, spectral_density, top_eigenvalues, trace
from landscape.krylov import SymmetricOperator, top_eigenpairs
from tests.conftest import MODEL_NAMES, build, dense_hessian, flat, loss_of_vector
from tests.landscape.krylov.test_eigenpairs import symmetric

cross_entropy = nn.CrossEntropyLoss()


def spectrum_of(model, inputs, targets):
    return torch.linalg.eigvalsh(dense_hessian(model, inputs, targets)).numpy()


def diagonal(values):
    """A model whose Hessian is the diagonal matrix of these values: the loss is sum(values theta^2) / 2."""

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.linspace(0.5, 1, len(values), dtype=torch.float64))

        def forward(self, x):
            return x * (self.theta**2).unsqueeze(0)

    inputs = torch.as_tensor(np.asarray(values), dtype=torch.float64).expand(5, -1) / 2
    return Objective(Quadratic(), lambda z, _: z.sum(1).mean(), (inputs, torch.zeros(5)))


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("chunk_size", [5, 36])
def test_an_uneven_last_chunk_weighs_by_its_samples(chunk_size, linearize):
    """hessian-eigenthings averages batches unweighted: 19.6% off."""
    model, inputs, targets = build("relu-mlp")
    truth = spectrum_of(model, inputs, targets)
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size, linearize=linearize)
    assert top_eigenvalues(objective, tol=1e-8).values[0] == pytest.approx(truth[-1], rel=1e-10)
    assert trace(objective, rtol=None, max_products=1000).value == pytest.approx(truth.sum(), rel=1e-10)


@pytest.mark.parametrize("linearize", [False, True])
def test_batch_norm_in_train_mode_is_measured_with_its_stored_statistics(linearize):
    """hessian-eigenthings and PyHessian let a product move them."""
    model, inputs, targets = build("cnn-batchnorm-dropout")
    truth = spectrum_of(model, inputs, targets)[-1]
    model.train()
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize)
    for _ in range(2):
        assert top_eigenvalues(objective, tol=1e-8).values[0] == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("linearize", [False, True])
def test_unreached_parameters_are_zero_rows_and_columns(linearize):
    """PyHessian, hessian-eigenthings and curvlinops crash."""
    model, inputs, targets = build("unreached")
    truth = np.sort(spectrum_of(model, inputs, targets))[::-1]
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=linearize)
    np.testing.assert_allclose(top_eigenvalues(objective, 3, tol=1e-8).values, truth[:3], rtol=1e-9)
    unit = torch.zeros(objective.n_parameters, dtype=torch.float64)
    unit[list(objective.names).index("unused")] = 1
    assert (objective.hvp(unit) == 0).all()


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("dim", [0, -2, None])
def test_the_hessian_of_weight_normalization_is_that_of_its_gradients_differences(linearize, dim):
    """torch's double backward takes the norm for a constant: 36% asymmetric, and so in all that rest on it."""
    _, inputs, targets = build("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = nn.utils.parametrizations.weight_norm(nn.Linear(inputs[0].numel(), 4), dim=dim)
        model = nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(4, 3)).double()
    objective = Objective(model, cross_entropy, (inputs, targets), linearize=linearize)
    start = objective.theta
    vector = torch.randn(len(start), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(step):
        nn.utils.vector_to_parameters(start + step * vector, model.parameters())
        loss = cross_entropy(model(inputs), targets)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return nn.utils.parameters_to_vector(parts)

    # central differences of step h are right to h^2 = 1e-10 times a third derivative, and to rounding / h = 1e-11
    differences = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    torch.testing.assert_close(objective.hvp(vector), differences, rtol=1e-6, atol=1e-7)


def test_a_clustered_spectrum_in_float32_shows_no_ghosts_after_hundreds_of_products():
    """hessian-eigenthings finds the top eigenvalue three times after 100 iterations."""
    spectrum = np.r_[10, 9.99, 9.98, np.linspace(0, 1, 400)]
    matrix = symmetric(spectrum).float()
    pairs = top_eigenpairs(
        SymmetricOperator.of_matrix(matrix),
        6,
        tol=1e-6,
        max_products=600,
        block=1,
        generator=torch.Generator().manual_seed(0),
    )
    np.testing.assert_allclose(pairs.values.numpy(), np.sort(spectrum)[::-1][:6], atol=2e-5)


def test_few_samples_leave_no_eigenvalue_outside_the_spectrum():
    """Their Gauss-Newton matrix has a rank below 3 a sample; rounding, taken for directions, gave -1051 for 0."""
    with torch.random.fork_rng():
        torch.manual_seed(16)
        model = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3)).double()
        data = (torch.randn(5, 8, dtype=torch.float64), torch.randint(0, 3, (5,)))
    objective = Objective(model, cross_entropy, data)
    for seed in range(40):
        found = top_eigenvalues(objective, 3, matrix="gauss-newton", which="smallest", seed=seed)
        np.testing.assert_allclose(found.values, 0, atol=1e-12)


def test_stopped_early_the_eigenvalues_say_that_they_have_not_converged():
    """hessian-eigenthings returns what 2 k iterations give."""
    found = top_eigenvalues(diagonal(np.linspace(0, 1, 300)), 5, max_products=10)
    assert not found.converged.any()
    assert (found.residuals > 1e-3).all()


def test_repeated_eigenvalues_are_found_as_often_as_they_are_there():
    found = top_eigenvalues(diagonal(np.r_[3, 3, 3, 2, np.linspace(0, 1, 60)]), 4, tol=1e-8)
    np.testing.assert_allclose(found.values, [3, 3, 3, 2], rtol=1e-9)


def test_the_largest_is_not_the_largest_in_magnitude():
    """Power iteration finds -9 or, asked for the largest, nothing."""
    objective = diagonal(np.r_[-9, 5, np.linspace(-1, 1, 50)])
    assert top_eigenvalues(objective).values[0] == pytest.approx(5)
    assert top_eigenvalues(objective, which="smallest").values[0] == pytest.approx(-9)
    np.testing.assert_allclose(top_eigenvalues(objective, 2, which="magnitude").values, [-9, 5], rtol=1e-5)


def test_the_trace_of_low_rank_in_few_products_is_exact_or_says_that_it_is_not():
    """curvlinops gives 49 to 54 for 55, with no hint of the error."""
    objective = diagonal(np.r_[np.arange(1, 11), np.zeros(90)])
    for products in (8, 12, 16, 24, 40):
        estimates = [trace(objective, rtol=None, max_products=products, seed=seed) for seed in range(20)]
        held = sum(e.low - 1e-9 <= 55 <= e.high + 1e-9 for e in estimates)
        assert held >= 16
    assert estimates[0].value == pytest.approx(55, rel=1e-9)


def test_a_trace_asked_to_a_tolerance_is_within_it():
    """PyHessian's tolerance is met in 1% of runs."""
    objective = diagonal(np.r_[60, 35, 22, 4 * np.exp(-np.arange(400) / 20)])
    truth = 117 + 4 * np.exp(-np.arange(400) / 20).sum()
    errors = [trace(objective, rtol=0.01, max_products=800, seed=s).value / truth - 1 for s in range(40)]
    assert np.mean(np.abs(errors) < 0.02) >= 0.85


@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout", "attention"])
def test_float32_is_near_the_float64_truth(name):
    model, inputs, targets = build(name)
    truth = np.sort(spectrum_of(model, inputs, targets))[::-1]
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets), linearize=True)
    np.testing.assert_allclose(top_eigenvalues(objective, 3).values, truth[:3], rtol=1e-4)
    estimate = trace(objective, rtol=None, max_products=2000)
    assert estimate.value == pytest.approx(truth.sum(), rel=1e-4)


@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout", "attention"])
def test_errors_in_float32_include_its_rounding(name):
    model, inputs, targets = build(name)
    model, inputs = model.float(), inputs.float()
    found = top_eigenvalues(Objective(model, cross_entropy, (inputs, targets)), 3, tol=1e-9)
    # the truth of the weights and inputs as they are in float32
    truth = np.sort(spectrum_of(model.double(), inputs.double(), targets))[::-1][:3]
    assert (np.abs(found.values - truth) <= found.errors).all()
    assert (found.errors < 1e-5 * truth[0]).all()


@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout", "attention"])
def test_the_interval_of_a_trace_from_a_whole_basis_in_float32_includes_its_rounding(name):
    model, inputs, targets = build(name)
    model, inputs = model.float(), inputs.float()
    estimate = trace(Objective(model, cross_entropy, (inputs, targets)), rtol=None, max_products=2000)
    spectrum = spectrum_of(model.double(), inputs.double(), targets)
    assert estimate.low <= spectrum.sum() <= estimate.high
    assert abs(estimate.squared_norm - (spectrum**2).sum()) <= 2 * estimate.squared_norm_error
    assert estimate.high - estimate.low < 1e-4 * spectrum.sum()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_all_eigenvalues_of_a_few_parameters(n):
    objective = diagonal(np.arange(1.0, n + 1))
    np.testing.assert_allclose(top_eigenvalues(objective, n).values, np.arange(n, 0, -1.0))
    assert trace(objective).value == pytest.approx(n * (n + 1) / 2)
    density = spectral_density(objective)
    assert density.outliers.sum() + (density.nodes * density.weights).sum() > 0


def test_k_near_n():
    values = np.linspace(-1, 2, 40)
    found = top_eigenvalues(diagonal(values), 39, tol=1e-6, max_products=400)
    np.testing.assert_allclose(found.values, values[::-1][:39], atol=1e-8)


@pytest.mark.parametrize("linearize", [False, True])
def test_a_zero_hessian_has_zero_eigenvalues_and_trace(linearize):
    model, inputs, targets = build("unreached")
    objective = Objective(model, lambda z, _: z.sum(1).mean(), (inputs, targets), linearize=linearize)
    found = top_eigenvalues(objective, 3)
    assert (found.values == 0).all()
    assert found.converged.all()
    estimate = trace(objective)
    assert (estimate.value, estimate.squared_norm, estimate.converged) == (0, 0, True)
    density = spectral_density(objective)
    assert density.negative_fraction == 0
    assert len(density.outliers) == 0


@pytest.mark.parametrize("linearize", [False, True])
def test_nan_in_the_loss_is_nan_in_the_result_and_not_converged(linearize):
    model, inputs, targets = build("mlp")
    inputs = inputs.clone()
    inputs[20] = float("nan")
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize)
    found = top_eigenvalues(objective, 2)
    assert np.isnan(found.values).all()
    assert not found.converged.any()
    estimate = trace(objective)
    assert np.isnan(estimate.value)
    assert not estimate.converged


class FunctionalDropout(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5))


def batch_statistics():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [4, 30])
@pytest.mark.parametrize("make", [batch_statistics, lambda: FunctionalDropout(6, 3)])
def test_models_that_are_no_function_of_each_sample_are_refused(make, samples, dtype):
    """A Hessian of something else at each chunk size, or at each product, and converged at that."""
    _, inputs, targets = build("mlp")
    model, data = make().to(dtype), (inputs[:samples, 0, 0].to(dtype), targets[:samples])
    state = torch.get_rng_state()
    for chunk_size in (1, 3, 512):
        with pytest.raises(ValueError, match="^model: its outputs for a sample differ"):
            Objective(model, cross_entropy, data, chunk_size=chunk_size)
    assert torch.equal(torch.get_rng_state(), state)


class MixesALittle(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.layer, self.share = nn.Linear(6, 3), share

    def forward(self, x):
        scores = self.layer(x)
        return scores + self.share * scores.mean(0)


@pytest.mark.parametrize("share", [1e-4, 1e-3, 1e-2, 0.04])
@pytest.mark.parametrize("as_dict", [False, True])
def test_models_that_mix_samples_by_less_than_float32_shows_are_refused(share, as_dict):
    _, inputs, targets = build("mlp")
    model, x, y = MixesALittle(share), inputs[:30, 0, 0].float(), targets[:30]
    batch = (x, y) if not as_dict else {"x": x, "y": y}
    options = {"forward": lambda model, batch: model(batch["x"])} if as_dict else {}
    loss_fn = (lambda z, batch: cross_entropy(z, batch["y"])) if as_dict else cross_entropy
    with pytest.raises(ValueError, match="outputs for a sample differ|is not the mean over the samples"):
        Objective(model, loss_fn, batch, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_models_that_are_one_are_not_refused_for_their_rounding(name, dtype):
    model, inputs, targets = build(name)
    for samples in (1, 2, 37):
        Objective(model.to(dtype), cross_entropy, (inputs[:samples], targets[:samples]))


def test_a_model_that_takes_no_single_sample_is_not_refused_for_that():
    class InPairs(nn.Linear):
        def forward(self, x):
            if len(x) < 2:
                raise ValueError("expected more than one sample")
            return super().forward(x)

    _, inputs, targets = build("mlp")
    Objective(InPairs(6, 3).double(), cross_entropy, (inputs[:2, 0, 0], targets[:2]))


@pytest.mark.parametrize("linearize", [False, True])
def test_no_grad_around_a_measurement_changes_nothing(linearize):
    """Recording off, every derivative is zero, which Lanczos takes for a converged zero matrix."""
    model, inputs, targets = build("mlp")
    truth = spectrum_of(model, inputs, targets)
    gradient = torch.autograd.functional.jacobian(loss_of_vector(model, inputs, targets), flat(model))
    with torch.no_grad():
        objective = Objective(model, cross_entropy, (inputs, targets), linearize=linearize)
        torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
        for matrix in ("hessian", "gauss-newton"):
            assert top_eigenvalues(objective, matrix=matrix).values[0] > 0
        assert top_eigenvalues(objective, tol=1e-8).values[0] == pytest.approx(truth[-1], rel=1e-10)


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("made_inside", [False, True])
def test_inference_mode_is_refused_rather_than_measured_as_zero(made_inside, linearize):
    model, inputs, targets = build("mlp")
    with torch.inference_mode(made_inside):
        objective = Objective(model, cross_entropy, (inputs, targets), linearize=linearize)
    with torch.inference_mode(not made_inside):
        assert objective.value() > 0
        for derivative in (objective.gradient, lambda: objective.hvp(torch.ones(objective.n_parameters))):
            with pytest.raises(RuntimeError, match="^torch.inference_mode"):
                derivative()


NARROW_SHORTCUT = """
import torch
from torch import nn
from landscape import Objective
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
for parameter in model.parameters():
    nn.init.normal_(parameter, std=0.3, generator=generator)
inputs = torch.randn(10, 3, 6, 6, generator=generator).contiguous(memory_format=torch.channels_last)
data = (inputs, torch.arange(10) % 3)
exact = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64, linearize=False)
vector = torch.randn(exact.n_parameters, generator=generator)
truth = exact.hvp(vector.double())
for linearize in (False, True):
    objective = Objective(model, nn.CrossEntropyLoss(), data, linearize=linearize)
    for _ in range(20):
        product = objective.hvp(vector).double()
    assert (product - truth).norm() < 1e-5 * truth.norm(), (product, truth)
"""


def test_narrow_strided_1x1_convolutions_of_channels_last_images_do_not_end_the_process():
    """oneDNN writes past its workspace there (uxlfoundation/oneDNN issue 6035): plain PyTorch aborts."""
    run = subprocess.run([sys.executable, "-c", NARROW_SHORTCUT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("scale", [5.0, 6.0, 8.0])
def test_a_network_that_fits_all_samples_is_measured(scale):
    """The loss, 1e-10 to 1e-15, is below the rounding of the outputs, so that its differences are rounding alone."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    targets = (inputs[:, 0] > 0).long()
    inputs[:, 0] += 2.0 * (2 * targets - 1)
    model = nn.Linear(5, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight[:, 0] = torch.tensor([-scale, scale])
    objective = Objective(model, cross_entropy, (inputs, targets))
    assert objective.value() < 1e-9
    truth = torch.linalg.eigvalsh(dense_hessian(model, inputs, targets))[-1].item()
    assert top_eigenvalues(objective, 1, tol=1e-3).values[0] == pytest.approx(truth, rel=1e-2)
