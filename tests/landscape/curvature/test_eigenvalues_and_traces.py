import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, layer_traces, sampling_error, spectral_density, top_eigenvalues, trace
from landscape.krylov.traces import METHODS
from tests.conftest import MODEL_NAMES, build
from tests.landscape.dense import gauss_newton_of, hessian_of

cross_entropy = nn.CrossEntropyLoss()


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_eigenvalues_are_those_of_the_dense_hessian(name, which):
    model, inputs, targets = build(name)
    spectrum = torch.linalg.eigvalsh(hessian_of(name)).numpy()
    key = {"largest": spectrum, "smallest": -spectrum, "magnitude": np.abs(spectrum)}[which]
    truth = spectrum[np.argsort(-key)][:3]
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10)
    found = top_eigenvalues(objective, 3, which=which, tol=1e-8, max_products=600)
    # an eigenvalue of zero has no relative accuracy
    largest = np.abs(spectrum).max()
    assert (found.converged | (found.errors < 1e-8 * largest)).all()
    np.testing.assert_allclose(found.values, truth, atol=1e-8 * largest)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_float32_is_within_rounding_of_the_float64_truth(name):
    model, inputs, targets = build(name)
    spectrum = torch.linalg.eigvalsh(hessian_of(name)).numpy()[::-1]
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets), chunk_size=10)
    found = top_eigenvalues(objective, 2, tol=1e-4)
    assert found.converged.all()
    # Weyl: the residual bounds the error for the float32 operator, whose own rounding is of order 1e-6 ||H||
    np.testing.assert_allclose(found.values, spectrum[:2], atol=1e-4 * spectrum[0])


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_trace_is_that_of_the_dense_hessian_within_its_error(name):
    model, inputs, targets = build(name)
    truth = torch.trace(hessian_of(name)).item()
    objective = Objective(model, cross_entropy, (inputs, targets))
    eigen = top_eigenvalues(objective, 3)
    estimate = trace(objective, rtol=None, max_products=100, deflate=eigen)
    # 100 probes: the error in standard errors is nearly Gaussian, and beyond 4 once in 15,000 draws
    assert abs(estimate.value - truth) <= 4 * estimate.standard_error + 1e-10
    assert estimate.standard_error < 0.2 * abs(truth)


def test_all_eigenpairs_leave_nothing_to_sample_and_the_trace_is_their_sum():
    model, inputs, targets = build("mlp")
    hessian = hessian_of("mlp")
    whole = Objective(model, cross_entropy, (inputs, targets))
    objective = whole.subset(parameters=lambda name: name.startswith("3"))
    truth = hessian.diag()[-objective.n_parameters :].sum().item()
    eigen = top_eigenvalues(objective, objective.n_parameters, tol=1e-10)
    for found in (trace(objective, deflate=eigen, method=method) for method in (None, *METHODS)):
        assert found.value == pytest.approx(truth, rel=1e-10)
        assert (found.products, found.converged) == (0, True)
    assert layer_traces(objective, deflate=eigen).values.sum() == pytest.approx(truth, rel=1e-10)
    density = spectral_density(objective, deflate=eigen, steps=3, probes=2)
    np.testing.assert_allclose(density.outliers.sum(), truth)


def test_pyhessian_is_a_second_opinion_on_the_top_eigenvalue_and_the_trace():
    model, inputs, targets = build("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    ours = top_eigenvalues(objective, 1, which="magnitude", tol=1e-5)
    theirs = top_eigenvalues(objective, 1, which="magnitude", tol=1e-6, max_products=1000, method="pyhessian")
    # power iteration stops by the change between iterations, which bounds its error only loosely
    assert theirs.values[0] == pytest.approx(ours.values[0], rel=1e-3)
    assert theirs.products > ours.products

    estimate = trace(objective, rtol=None, max_products=200)
    second = trace(objective, rtol=1e-9, max_products=200, method="pyhessian")
    # both are means of as many sign probes, so their difference has sqrt(2) of our standard error
    assert abs(second.value - estimate.value) < 4 * 2**0.5 * estimate.standard_error
    assert np.isnan(second.standard_error)
    assert not second.converged
    assert second.products > 0


def test_pyhessians_residuals_are_those_of_the_dense_hessian():
    model, inputs, targets = build("mlp")
    dense = hessian_of("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    theirs = top_eigenvalues(objective, 2, which="magnitude", tol=1e-3, method="pyhessian")
    truth = torch.linalg.vector_norm(
        dense @ theirs.vectors - theirs.vectors * torch.from_numpy(theirs.values), dim=0
    )
    np.testing.assert_allclose(theirs.residuals, truth.numpy(), rtol=1e-2)
    # as its description says, whoever computed it
    np.testing.assert_allclose(theirs.errors, 3 * theirs.residuals)


@pytest.mark.parametrize(
    "measure",
    [
        lambda o: top_eigenvalues(o, 1, which="magnitude", method="pyhessian"),
        lambda o: trace(o, method="pyhessian"),
    ],
)
def test_pyhessian_refuses_unreached_parameters_in_one_line(measure):
    model, inputs, targets = build("unreached")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    with pytest.raises(ValueError, match="^method: PyHessian"):
        measure(objective)


def test_only_our_own_eigenvectors_deflate():
    model, inputs, targets = build("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    theirs = top_eigenvalues(objective, 1, which="magnitude", method="pyhessian")
    with pytest.raises(ValueError, match="^deflate"):
        trace(objective, deflate=theirs)
    with pytest.raises(ValueError, match="^deflate"):
        trace(objective, deflate=top_eigenvalues(objective, 1), method="pyhessian")


def test_pyhessian_leaves_the_model_and_the_random_state_alone():
    model, inputs, targets = build("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    before = torch.get_rng_state()
    top_eigenvalues(objective, 1, which="magnitude", method="pyhessian")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is None for p in objective.model.parameters())


@pytest.mark.parametrize(
    ("options", "field"),
    [({"method": "scipy"}, "method"), ({"method": "pyhessian"}, "which"), ({"k": 10_000}, "k")],
)
def test_bad_arguments_are_named(options, field):
    model, inputs, targets = build("mlp")
    objective = Objective(model.float(), cross_entropy, (inputs.float(), targets))
    with pytest.raises(ValueError, match=f"^{field}"):
        top_eigenvalues(objective, **options)


def test_pyhessian_refuses_float64_in_one_line():
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match="^method: PyHessian"):
        trace(objective, method="pyhessian")


def dense_matrices(name):
    model, inputs, targets = build(name)
    hessian = hessian_of(name)
    gauss_newton = gauss_newton_of(name)
    matrices = {"hessian": hessian, "gauss-newton": gauss_newton, "functional": hessian - gauss_newton}
    return matrices, Objective(model, cross_entropy, (inputs, targets), chunk_size=10)


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "functional"])
def test_the_hessian_and_its_two_parts_have_their_own_spectra(matrix):
    matrices, objective = dense_matrices("mlp")
    spectrum = torch.linalg.eigvalsh(matrices[matrix]).numpy()
    found = top_eigenvalues(objective, 2, which="smallest", matrix=matrix, tol=1e-8, max_products=2000)
    np.testing.assert_allclose(found.values, spectrum[:2], atol=1e-8 * np.abs(spectrum).max())
    estimate = trace(objective, matrix=matrix, rtol=None, max_products=400)
    assert estimate.value == pytest.approx(spectrum.sum(), rel=1e-10)
    assert estimate.squared_norm == pytest.approx(np.square(spectrum).sum(), rel=1e-10)


def test_labels_enter_the_functional_part_alone():
    model, inputs, targets = build("mlp")
    clean = Objective(model, cross_entropy, (inputs, targets))
    noisy = Objective(model, cross_entropy, (inputs, (targets + 1) % 3))
    vector = torch.randn(clean.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(clean.ggnvp(vector), noisy.ggnvp(vector))
    assert (clean.hvp(vector) - noisy.hvp(vector)).norm() > 0.01 * clean.hvp(vector).norm()


@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
def test_every_trace_method_is_within_its_error(method):
    matrices, objective = dense_matrices("relu-mlp")
    estimate = trace(objective, rtol=None, max_products=60, method=method)
    assert abs(estimate.value - matrices["hessian"].trace().item()) < 4 * estimate.standard_error
    assert estimate.low < estimate.value < estimate.high
    assert estimate.method == method


@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton"])
def test_a_trace_by_the_help_of_a_part_is_that_of_all_samples_within_its_error(matrix):
    matrices, objective = dense_matrices("relu-mlp")
    estimate = trace(objective, rtol=None, max_products=60, part=0.5, matrix=matrix)
    truth = matrices[matrix]
    assert abs(estimate.value - truth.trace().item()) < 4 * estimate.standard_error
    assert abs(estimate.squared_norm - truth.square().sum().item()) < 4 * estimate.squared_norm_error
    assert estimate.samples == objective.n_samples
    assert estimate.products <= 60
    # another seed draws another part and other probes
    assert estimate.value != trace(objective, rtol=None, max_products=60, part=0.5, seed=1).value


@pytest.mark.parametrize(
    ("loss", "options", "field"),
    [
        (cross_entropy, {"part": 1.0}, "part: must be a share"),
        (cross_entropy, {"part": 0.5, "method": "hutch++"}, "part: goes with"),
        (cross_entropy, {"part": 0.5, "method": "pyhessian"}, "part, goal: PyHessian"),
        (nn.CrossEntropyLoss(reduction="sum"), {"part": 0.5}, "part: the loss is a sum"),
    ],
    ids=["all samples", "Hutch++", "PyHessian", "sum"],
)
def test_a_part_that_cannot_help_is_refused(loss, options, field):
    model, inputs, targets = build("relu-mlp")
    with pytest.raises(ValueError, match=field):
        trace(Objective(model, loss, (inputs, targets)), **options)


def test_a_part_of_batches_that_cannot_be_cut_is_refused():
    model, inputs, targets = build("relu-mlp")
    batches = [(inputs[:7], targets[:7]), (inputs[7:], targets[7:])]
    objective = Objective(model, cross_entropy, batches, keep="none")
    with pytest.raises(ValueError, match="part: these data are a stream"):
        trace(objective, part=0.5)


def test_the_trace_falls_back_to_hutchinson_where_xtraces_vectors_do_not_fit():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), memory_budget=100_000)
    assert trace(objective, max_products=30).method == "hutchinson"
    assert trace(objective, max_products=12).method == "xtrace"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_layer_traces_are_those_of_the_layers_alone_and_sum_to_the_whole(name):
    model, inputs, targets = build(name)
    hessian = hessian_of(name)
    objective = Objective(model, cross_entropy, (inputs, targets))
    eigen = top_eigenvalues(objective, 3)
    layers = layer_traces(objective, rtol=1e-9, max_products=100, deflate=eigen)
    start = 0
    for name, value, error, size in zip(
        layers.layer, layers.values, layers.standard_errors, layers.parameters, strict=True
    ):
        truth = hessian.diag()[start : start + size].sum().item()
        assert abs(value - truth) <= 4.5 * error + 1e-10, name
        start += size
    assert start == objective.n_parameters
    assert not layers.converged or layers.standard_errors.max() < 1e-9


def test_layer_traces_without_a_tolerance_spend_the_whole_budget():
    model, inputs, targets = build("mlp")
    layers = layer_traces(Objective(model, cross_entropy, (inputs, targets)), rtol=None, max_products=37)
    assert (layers.products, layers.converged) == (37, True)


def test_eigenvectors_of_nearby_weights_warm_start_a_search():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    before = top_eigenvalues(objective, 2, tol=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.001)
    after = Objective(model, cross_entropy, (inputs, targets))
    cold, warm = top_eigenvalues(after, 2, tol=1e-6), top_eigenvalues(after, 2, tol=1e-6, start=before)
    assert warm.products < cold.products
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-8)


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda o: top_eigenvalues(o, matrix="fisher"), "matrix"),
        (lambda o: trace(o, matrix="fisher"), "matrix"),
        (lambda o: spectral_density(o, matrix="fisher"), "matrix"),
        (lambda o: spectral_density(o, smoothing=0.0), "smoothing"),
        (lambda o: spectral_density(o, points=1), "points"),
        (lambda o: layer_traces(o, rtol=-1.0), "rtol"),
        (lambda o: layer_traces(o, max_products=1), "max_products"),
        (lambda o: trace(o, deflate=top_eigenvalues(o, 1), matrix="gauss-newton"), "deflate"),
        (lambda o: trace(o, deflate=dataclasses.replace(top_eigenvalues(o, 1), vectors=None)), "deflate"),
        (lambda o: trace(o, deflate=top_eigenvalues(o.subset(samples=torch.arange(20)), 1)), "deflate"),
        (
            lambda o: top_eigenvalues(o, start=dataclasses.replace(top_eigenvalues(o, 1), vectors=None)),
            "start",
        ),
    ],
)
def test_matrices_and_vectors_that_do_not_fit_are_refused(ask, field):
    model, inputs, targets = build("mlp")
    with pytest.raises(ValueError, match=f"^{field}"):
        ask(Objective(model, cross_entropy, (inputs, targets)))


@pytest.mark.parametrize("ask", [trace, layer_traces, spectral_density, sampling_error])
@pytest.mark.parametrize("change", ["a step", "other labels"])
def test_eigenpairs_of_other_weights_or_labels_are_refused(ask, change):
    model, inputs, targets = build("mlp")
    eigen = top_eigenvalues(Objective(model, cross_entropy, (inputs, targets)), 3)
    if change == "a step":
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.01
    else:
        targets = targets.roll(1)
    now = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match=r"^(deflate|measured): holds eigenpairs of other weights or data"):
        ask(now, eigen) if ask is sampling_error else ask(now, deflate=eigen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("matrix", ["hessian", "gauss-newton", "functional"])
@pytest.mark.parametrize("tol", [0.3, 1e-6])
def test_eigenpairs_found_to_any_tolerance_are_taken_for_their_own_objective(dtype, matrix, tol):
    model, inputs, targets = build("mlp")
    objective = Objective(model.to(dtype), cross_entropy, (inputs.to(dtype), targets), chunk_size=7)
    eigen = top_eigenvalues(objective, 4, which="magnitude", tol=tol, matrix=matrix)
    deflated, whole = (trace(objective, deflate=known, matrix=matrix) for known in (eigen, None))
    error = np.hypot(deflated.standard_error, whole.standard_error)
    assert abs(deflated.value - whole.value) <= 5 * error
