"""Measurements on a GPU, against the CPU in float64."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from landscape import (
    Hessian,
    Objective,
    filter_normalized_directions,
    layer_traces,
    lines,
    load,
    low_loss_bend,
    matched,
    path,
    save,
    sharpness_profile,
    spectral_density,
    spectral_measure,
    surface,
    surfaces,
    top_eigenvalues,
    trace,
    trajectory_directions,
)
from tests.conftest import Recurrent, build, dense_gauss_newton, dense_hessian
from tests.cuda.device import (
    DEVICE,
    IS_CUDA,
    NEEDS_DEVICE,
    assert_close,
    cross_entropy,
    on_device,
    some_vectors,
    synchronizations,
)
from tests.landscape.slices.test_planes import quadratic

pytestmark = NEEDS_DEVICE


@pytest.mark.parametrize("linearize", [False, True])
def test_products_are_those_of_the_dense_matrices(case, linearize):
    hessian, gauss_newton = dense_hessian(*case), dense_gauss_newton(*case)
    for data_on in {DEVICE, torch.device("cpu")}:
        objective = on_device(case, data_on, chunk_size=10, linearize=linearize)
        vectors = some_vectors(objective.n_parameters)
        assert_close(objective.hvp(vectors), hessian @ vectors.cpu(), rtol=1e-8, atol=1e-10)
        assert_close(objective.ggnvp(vectors), gauss_newton @ vectors.cpu(), rtol=1e-8, atol=1e-10)
        assert objective.inputs.device == objective.targets.device == objective.theta.device


@pytest.mark.skipif(not IS_CUDA, reason="CUDA graphs")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_products_are_the_same(mode):
    case = build("mlp")
    objective = on_device(case, linearize=True, compile_mode=mode)
    vectors = some_vectors(objective.n_parameters)
    for _ in range(4):
        assert_close(objective.hvp(vectors), dense_hessian(*case) @ vectors.cpu())


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks_have_gradients_and_products(layer):
    case = Recurrent(layer).double(), torch.randn(9, 5, 4, dtype=torch.float64), torch.arange(9) % 2
    objective, truth = on_device(case), Objective(case[0], cross_entropy, case[1:])
    vectors = some_vectors(objective.n_parameters)
    assert_close(objective.gradient(), truth.gradient())
    assert_close(objective.hvp(vectors), truth.hvp(vectors.cpu()))
    assert_close(objective.ggnvp(vectors), truth.ggnvp(vectors.cpu()))


def test_eigenvalues_traces_and_density_are_those_of_the_dense_matrix(tmp_path):
    case = build("cnn-batchnorm-dropout")
    objective = on_device(case)
    truth = torch.linalg.eigvalsh(dense_hessian(*case)).numpy()
    eigen = top_eigenvalues(objective, 3, tol=1e-6)
    assert eigen.converged.all()
    np.testing.assert_allclose(eigen.values, truth[::-1][:3], rtol=1e-8)
    again = top_eigenvalues(objective, 3, tol=1e-6, start=eigen)
    np.testing.assert_allclose(again.values, eigen.values, rtol=1e-8)
    found = trace(objective, deflate=eigen, rtol=0.02, max_products=truth.size)
    assert abs(found.value - truth.sum()) <= max(4 * found.standard_error, 1e-8)
    layers = layer_traces(objective, deflate=eigen, rtol=None, max_products=400)
    error = np.sqrt((layers.standard_errors**2).sum())
    assert abs(layers.values.sum() - truth.sum()) < 5 * error
    for deflate in (eigen, None):
        values, masses = spectral_measure(spectral_density(objective, deflate=deflate))
        assert masses.sum() == pytest.approx(1)
        assert values.max() == pytest.approx(truth[-1], rel=1e-3)
    save(tmp_path / "results.h5", "eigen", eigen)
    assert_close(load(tmp_path / "results.h5", "eigen").vectors, eigen.vectors)


def test_float32_is_float32():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    exact = torch.linalg.eigvalsh(dense_hessian(model, inputs, targets))[-1].item()
    objective = on_device((model.float(), inputs.float(), targets))
    if IS_CUDA:
        torch.backends.cuda.matmul.allow_tf32 = True
    try:
        eigen = top_eigenvalues(objective, tol=1e-4)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert abs(eigen.values[0] - exact) <= eigen.errors[0] + 1e-6 * exact


def test_products_wait_for_nothing():
    objective = on_device(build("cnn-batchnorm-dropout"), linearize=False)
    traced = on_device(build("cnn-batchnorm-dropout"), linearize=True)
    vectors = some_vectors(objective.n_parameters)
    for each in (objective, traced):
        each.hvp(vectors)
        each.gradient()
        with synchronizations() as found:
            each.hvp(vectors)
            each.gradient()
        assert not found
    assert Hessian(traced).is_traced


@pytest.mark.parametrize("product", [Objective.hvp, Objective.ggnvp])
def test_parts_of_the_samples_add_up_wherever_their_mask_is(product):
    objective = on_device(build("mlp"))
    mask = torch.arange(37) < 12
    vectors = some_vectors(objective.n_parameters)
    parts = [
        len(part.inputs) * product(part, vectors)
        for part in (objective.subset(samples=mask), objective.subset(samples=~mask.to(DEVICE)))
    ]
    assert_close(sum(parts) / 37, product(objective, vectors))


# --- surfaces


@pytest.mark.parametrize("steps", [5, 9])
def test_every_point_of_a_surface_has_the_loss_at_its_coordinates(steps):
    objective, (first, second), truth = quadratic()
    data = objective.inputs.to(DEVICE), objective.targets.to(DEVICE)
    moved = Objective(objective.independent_model().to(DEVICE), nn.MSELoss(), data)
    result = surface(moved, (first, second), extent=0.7, steps=steps)
    for i, alpha in enumerate(result.alpha):
        for j, beta in enumerate(result.beta):
            expected = truth(objective.theta + alpha * first + beta * second)
            assert result.loss[i, j] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("batch_norm", ["eval", "recalibrate"])
def test_surfaces_of_several_losses_are_those_of_the_cpu(batch_norm):
    model, inputs, targets = case = build("cnn-batchnorm-dropout")
    directions = filter_normalized_directions(Objective(model, cross_entropy, (inputs, targets)), 2)
    options = {"steps": 5, "batch_norm": batch_norm}
    truth, found = (
        surfaces(
            {"first": make(case), "second": make((model, inputs, targets.flip(0)))}, directions, **options
        )
        for make in (lambda case: Objective(case[0], cross_entropy, case[1:]), on_device)
    )
    for name in truth:
        np.testing.assert_allclose(found[name].loss, truth[name].loss, rtol=1e-8)
        np.testing.assert_allclose(found[name].accuracy, truth[name].accuracy)


def test_samples_refinement_and_checkpoints(tmp_path):
    objective = on_device(build("mlp"))
    directions = filter_normalized_directions(objective, 2)
    options = {"steps": 11, "samples": 20, "adaptive": True, "checkpoint": tmp_path / "plane.h5"}
    first, again = (surface(objective, directions, **options) for _ in range(2))
    np.testing.assert_array_equal(first.loss, again.loss)
    assert np.isfinite(first.loss_error).all()


def test_a_surface_waits_as_often_whatever_its_size():
    objective = on_device(build("cnn-batchnorm-dropout"))
    directions = filter_normalized_directions(objective, 2)
    counts = []
    for steps in (5, 5, 21):
        with synchronizations() as found:
            surface(objective, directions, steps=steps)
        counts.append(len(found))
    assert counts[1] == counts[2]


def test_paths_trajectories_and_all_measures_of_sharpness():
    case = build("relu-mlp")
    objective, truth = on_device(case), Objective(case[0], cross_entropy, case[1:])
    model = objective.independent_model()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    moved, _ = matched(model, other.cpu())
    bend = low_loss_bend(objective, moved, steps=3, batch_size=16)
    assert np.isfinite(path(objective, moved).loss).all()
    assert np.isfinite(bend.loss).all()
    directions, _ = trajectory_directions(objective, [objective.theta + 1, other, model], 2)
    assert np.isfinite(lines({"loss": objective}, directions, steps=3)["loss"].loss).all()
    profile = sharpness_profile(objective, max_draws=16, steps=2)
    expected = sharpness_profile(truth, max_draws=16, steps=2)
    exact = [row for row, bound in enumerate(profile.bound) if bound == "exact"]
    np.testing.assert_allclose(profile.value[exact], expected.value[exact], rtol=1e-7)
    assert np.isfinite(profile.value).all()
