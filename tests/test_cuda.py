"""The main truths once more on a GPU, against the CPU in float64: about a minute.

`NCSAM_TEST_DEVICE=cpu python -m pytest tests/test_cuda.py` shows that the tests themselves work.
"""

import copy
import io
import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from analysis.engine import Resources
from analysis.engine.whole_study import run_study
from analysis.plan import read_study
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
from ncsam import Augmentation, Split, build_method, build_model, corrupt_labels, fit
from tests.analysis.tiny_study import TINY
from tests.conftest import Recurrent, build, dense_gauss_newton, dense_hessian
from tests.landscape.slices.test_planes import quadratic

DEVICE = torch.device(os.environ.get("NCSAM_TEST_DEVICE", "cuda:0"))
IS_CUDA = DEVICE.type == "cuda"

pytestmark = pytest.mark.skipif(IS_CUDA and not torch.cuda.is_available(), reason="needs a GPU")

cross_entropy = nn.CrossEntropyLoss()


def on_device(case, data_on=DEVICE, **options):
    model, inputs, targets = case
    model = copy.deepcopy(model).to(DEVICE)
    return Objective(model, cross_entropy, (inputs.to(data_on), targets.to(data_on)), **options)


def some_vectors(n, k=3):
    return torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def assert_close(found, expected, **tolerances):
    torch.testing.assert_close(found.cpu(), expected.cpu(), **tolerances)


@contextmanager
def synchronizations():
    """Where the host waited for the GPU within; none on the CPU."""
    found = []
    if IS_CUDA:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
    finally:
        if IS_CUDA:
            torch.cuda.set_sync_debug_mode("default")


# --- curvature


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


# --- training


def network(dropout=0.0):
    layers = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(dropout), nn.Linear(7, 4)]
    return nn.Sequential(*layers).double()


SETTINGS = {
    "plain": {},
    "sam": {"rho": 0.1},
    "asam": {"rho": 0.5},
    "gsam": {"rho": 0.1},
    "friendly-sam": {"rho": 0.1},
    "bsam": {"rho": 0.1},
    "saner": {"rho": 0.1},
    # all of the batch is drawn: the CPU's and the GPU's random numbers differ
    "ncsam": {"rho": 0.1, "flip_ratio": 1.0, "strength": 0.1, "warmup": 0.0},
    "oracle-sam": {"rho": 0.1},
    "co-teaching": {"forget_rate": 0.3},
    "cores2": {},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_the_cpu_and_wait_for_nothing(name):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 5, dtype=torch.float64, generator=generator)
    targets, clean = torch.randint(0, 4, (2, 16), generator=generator)
    weights, peers = network().state_dict(), network().state_dict()
    ends = []
    for device in (torch.device("cpu"), DEVICE):
        model, peer = network(), network()
        model.load_state_dict(weights)
        peer.load_state_dict(peers)
        method = build_method(
            name,
            model.to(device),
            cross_entropy,
            seed=0,
            clean_targets=clean,
            peer=peer.to(device),
            **SETTINGS[name],
        )
        method.progress = 0.5
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
        batch = [part.to(device) for part in (inputs, targets, torch.arange(16))]
        for _ in range(5):
            with synchronizations() as found:
                optimizer.zero_grad()
                method.backward(*batch)
                optimizer.step()
        assert not found
        ends.append(torch.cat([p.detach().flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-8, atol=1e-10)


def fitted(data_on, name="ncsam", device=DEVICE, dropout=0.0, epochs=3):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(101, 5, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 4, (101,), generator=generator)
    split = Split(pixels, targets).to(data_on)
    labels = corrupt_labels(targets, kind="symmetric", rate=0.4, seed=0)
    torch.manual_seed(3)
    model = network(dropout).to(device)
    method = build_method(name, model, cross_entropy, seed=0, clean_targets=labels.clean, **SETTINGS[name])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    return fit(method, optimizer, split, labels, split, epochs=epochs, batch_size=20, seed=1)


@pytest.mark.parametrize("name", ["ncsam", "oracle-sam"])
def test_fit_gives_what_it_gives_on_the_cpu_wherever_the_data_are(name):
    truth = fitted("cpu", name, torch.device("cpu"))
    for data_on in ("cpu", DEVICE):
        found = fitted(data_on, name)
        for metric in ("train_loss", "test_loss", "test_accuracy", "memorized", "perturbation_norm"):
            np.testing.assert_allclose(found.metrics[metric], truth.metrics[metric], rtol=1e-8)


def test_dropout_draws_the_same_again_and_leaves_the_callers_random_state():
    first, second = fitted(DEVICE, dropout=0.5), fitted(DEVICE, dropout=0.5)
    np.testing.assert_allclose(first.metrics["train_loss"], second.metrics["train_loss"], rtol=1e-8)
    if IS_CUDA:
        # as `fitted` itself does
        torch.manual_seed(3)
        before = torch.cuda.get_rng_state(DEVICE)
        fitted(DEVICE, dropout=0.5)
        torch.testing.assert_close(torch.cuda.get_rng_state(DEVICE), before)


@pytest.mark.parametrize("name", ["ncsam", "cluster-ncsam"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_images_are_augmented_and_trained_on_with_checkpoints(tmp_path, name, dtype):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8, generator=generator)
    targets = torch.arange(200) % 4
    mean, std = torch.full((3,), 127.0), torch.full((3,), 70.0)
    split = Split(pixels, targets, mean, std).to(DEVICE)
    labels = corrupt_labels(targets, kind="symmetric", rate=0.2, seed=0)
    rows = []
    for _ in range(2):
        model = build_model("resnet", (3, 16, 16), 4, seed=0).to(DEVICE)
        settings = {"rho": 0.1, "flip_ratio": 0.4, "strength": 0.1, "warmup": 0.1}
        method = build_method(name, model, cross_entropy, seed=0, clean_targets=labels.clean, **settings)
        method.passes.autocast_dtype = dtype
        history = fit(
            method,
            torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9),
            split,
            labels,
            split,
            epochs=2,
            batch_size=64,
            seed=0,
            augmentation=Augmentation(crop=2, flip=True, cutout=4),
            alignment_batches=1,
            max_gradient_norm=5.0,
            checkpoint=tmp_path / "state.ckpt",
        )
        assert not history.diverged
        rows.append(history.metrics["train_loss"])
    np.testing.assert_array_equal(rows[0], rows[1])


STUDY = (
    TINY.replace("epochs = 3", "epochs = 2\nprobe_epochs = [1, 2]\nprobe_samples = 40")
    .replace("seeds = [0, 1]", "seeds = [0]")
    .replace('[model]\nname = "mlp"\nhidden = [4]', '[model]\nname = "cnn"')
    + """
bound = true
surface_rates = [0.4]
surface_seeds = [0]
surface_steps = 5
surface_batch_norm = "recalibrate"
density_steps = 5
[[methods]]
name = "ncsam"
label = "NCSAM"
rho = 0.1
flip_ratio = 0.4
strength = 0.1
"""
)


def test_a_study_runs_whole(tmp_path: Path):
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    printed = io.StringIO()
    outcome = run_study(
        read_study(study),
        tmp_path / "out",
        Resources(device=str(DEVICE)),
        console=Console(file=printed, width=300),
    )
    assert not outcome.failed, printed.getvalue()
    assert len(outcome.table) == 2
