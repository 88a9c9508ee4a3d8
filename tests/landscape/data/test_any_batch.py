"""Any model, any batch: losses, derivatives and measures against those of the whole data at once, in float64."""

import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm
from torch.overrides import TorchFunctionMode

from landscape import (
    Objective,
    average_sharpness,
    filter_normalized_directions,
    layer_traces,
    sharpness,
    spectral_density,
    surface,
    tasks,
    top_eigenvalues,
    trace,
)
from landscape.evaluation.evaluator import Evaluator
from tests.landscape.data.any_batches import (
    CASES,
    Case,
    D,
    draws,
    language,
    network,
    penalized,
    pinn,
    sample_weights,
    variational,
)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]()


def dense(case):
    """Loss, gradient and Hessian of the whole data at once."""
    objective = case.objective

    def of_vector(theta):
        return case.truth(objective.unflatten(theta))

    theta = objective.theta
    with torch.enable_grad():
        gradient = torch.autograd.functional.jacobian(of_vector, theta)
        hessian = torch.autograd.functional.hessian(of_vector, theta)
    return of_vector(theta).detach(), gradient, hessian


def test_loss_gradient_and_hessian_are_those_of_all_data_at_once(case):
    objective = case.objective
    loss, gradient, hessian = dense(case)
    assert objective.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
    block = draws(objective.n_parameters, 2)
    torch.testing.assert_close(objective.hvp(block), hessian @ block, rtol=1e-9, atol=1e-11)


def test_measures_work_on_any_objective(case):
    objective = case.objective
    _, gradient, hessian = dense(case)
    values = torch.linalg.eigvalsh(hessian).numpy()
    n = objective.n_parameters
    eigen = top_eigenvalues(objective, 1, tol=1e-6, max_products=n)
    largest = values[np.abs(values).argmax()]
    assert eigen.values[0] == pytest.approx(largest, rel=1e-6)
    found = trace(objective, rtol=None, max_products=2 * n)
    assert found.value == pytest.approx(values.sum(), rel=1e-6, abs=1e-6 * np.abs(values).sum())
    assert layer_traces(objective, rtol=None, max_products=8).values.shape == (len(objective.names),)
    assert spectral_density(objective, seed=0).samples == objective.n_samples
    directions = filter_normalized_directions(objective, 2, seed=0)
    plane = surface(objective, directions, steps=5)
    corner = (
        objective.theta + plane.alpha[0] * directions.vectors[:, 0] + plane.beta[4] * directions.vectors[:, 1]
    )
    assert plane.loss[0, 4] == pytest.approx(case.truth(objective.unflatten(corner)).item(), rel=1e-10)
    small = sharpness(objective, rho=1e-5)
    assert small.value == pytest.approx(1e-5 * gradient.norm().item(), rel=1e-3)
    average_sharpness(objective, sigma=0.01, max_draws=8)


def test_the_gauss_newton_matrix_is_that_of_all_outputs_at_once():
    case = language(4)
    objective = case.objective
    batch = objective.inputs
    kept = batch["labels"] != -100

    def scores(theta):
        return objective.forward(
            theta, {k: v for k, v in batch.items() if k != "labels"} | {"labels": batch["labels"]}
        )["logits"][kept]

    jacobian = torch.autograd.functional.jacobian(scores, objective.theta)
    p = scores(objective.theta).softmax(1).detach()
    curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("icn,icd,idm->nm", jacobian, curvature, jacobian) / len(p)
    eye = torch.eye(objective.n_parameters, dtype=D)
    torch.testing.assert_close(objective.ggnvp(eye), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("make", [variational, sample_weights, penalized])
def test_traced_products_are_the_direct_ones(make):
    objective = make().objective
    block = draws(objective.n_parameters, 2)
    direct = objective.hvp(block), objective.ggnvp(block)
    objective = make().objective
    objective.linearize = True
    torch.testing.assert_close(objective.hvp(block), direct[0])
    torch.testing.assert_close(objective.ggnvp(block), direct[1])


def test_a_loss_without_outputs_has_no_gauss_newton_matrix():
    objective = pinn().objective
    with pytest.raises(ValueError, match="matrix: the functional Hessian needs outputs"):
        top_eigenvalues(objective, matrix="functional")
    with pytest.raises(ValueError, match="matrix: the Gauss-Newton matrix needs outputs"):
        objective.ggnvp(objective.theta)
    with pytest.raises(ValueError, match="matrix: the Gauss-Newton matrix needs outputs"):
        trace(objective, matrix="gauss-newton")


TORCHS_OWN = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D)),
    "an ignored class": nn.CrossEntropyLoss(ignore_index=2),
    "weights, smoothing, an ignored class": nn.CrossEntropyLoss(
        weight=torch.tensor([1.0, 2.0, 9.0], dtype=D), label_smoothing=0.2, ignore_index=0
    ),
    "the function": nn.functional.cross_entropy,
}


@pytest.mark.parametrize("name", TORCHS_OWN)
@pytest.mark.parametrize("chunk_size", [1, 5, 512])
def test_torchs_own_losses_are_those_of_all_samples_at_once(name, chunk_size):
    model, x, y = network(), draws(13, 4), torch.tensor([0, 1, 2, 2, 2, 1, 0, 1, 2, -100, -100, 1, 1])
    if name not in ("the function", "sum", "class weights"):
        y = y.clamp(min=0)
    loss_fn = TORCHS_OWN[name]
    objective = Objective(model, loss_fn, (x, y), chunk_size=chunk_size)
    case = Case(objective, lambda weights: loss_fn(functional_call(model, weights, (x,)), y))
    loss, gradient, hessian = dense(case)
    assert objective.value() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), gradient, rtol=1e-10, atol=1e-12)
    block = draws(objective.n_parameters, 2)
    torch.testing.assert_close(objective.hvp(block), hessian @ block, rtol=1e-9, atol=1e-11)
    values = Evaluator({"all": objective}, [block[:, 0]], errors=True, expected=25)(np.array([[0.0], [0.5]]))
    moved = case.truth(objective.unflatten(objective.theta + 0.5 * block[:, 0]))
    assert values.loss[1, 0] == pytest.approx(moved.item(), rel=1e-10)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("make", [nn.MSELoss, nn.SmoothL1Loss])
def test_torchs_own_losses_of_rows_of_entries_are_those_of_all_samples_at_once(make, reduction):
    model, x, y, loss_fn = network(), draws(13, 4), draws(13, 3, seed=1), make(reduction=reduction)
    objective = Objective(model, loss_fn, (x, y), chunk_size=5)
    assert objective.value() == pytest.approx(loss_fn(model(x), y).item(), rel=1e-12)


def test_standard_errors_of_a_counted_mean_are_those_of_redrawn_samples():
    """The spread of the weighted mean over bootstrap samples, to the 5% that 2,000 of them allow."""
    model, x, y = (
        network(),
        draws(300, 4),
        torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(3)),
    )
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D))
    found = Evaluator({"all": Objective(model, weighted, (x, y))}, [], errors=True, expected=1).center
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
    w = weighted.weight[y]
    rows = torch.randint(0, 300, (2000, 300), generator=torch.Generator().manual_seed(4))
    means = (w[rows] * losses[rows]).sum(1) / w[rows].sum(1)
    assert found.loss_error[0, 0] == pytest.approx(means.std().item(), rel=0.1)


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (
            lambda batch: len(batch["labels"]),
            "^loss_fn: is not the mean over the samples, as they are counted",
        ),
        (lambda _: float("nan"), "^count: must be finite"),
        (lambda batch: batch["mask"].sum() ** 2, "^count: .* samples count for"),
    ],
)
def test_a_count_that_is_not_the_losses_own_is_refused(count, says):
    objective = language(4).objective
    with pytest.raises(ValueError, match=says):
        Objective(
            objective.independent_model(),
            objective.loss_fn,
            objective.inputs,
            forward=tasks.tokens()["forward"],
            count=count,
        )


def test_batches_that_cannot_be_cut_must_be_counted():
    with pytest.raises(ValueError, match="^count: the tensors of a batch do not share their first size"):
        Objective(network(), nn.MSELoss(), [([draws(2, 4), draws(1, 4)], [draws(2, 3), draws(1, 3)])])


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.SystemRandom().random])
def test_a_loss_that_is_random_is_refused(draw):
    def noisy(model, batch):
        return model(batch[0]).square().mean() + 0.01 * draw()

    with pytest.raises(
        ValueError, match="^model: (its outputs for a sample differ|the loss of one batch is .* in one run)"
    ):
        Objective.of_loss(noisy, network(), [(draws(4, 4), draws(4, 3))])


def test_a_regularizer_of_the_callers_weights_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"^regularizer: depends on the caller's own parameters '0\.weight'"):
        Objective(
            model,
            nn.MSELoss(),
            (draws(5, 4), draws(5, 3)),
            regularizer=lambda _: sum(p.square().sum() for p in model.parameters()),
        )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
)
def test_wrappers_are_taken_off(wrap):
    model, data = network(), (draws(9, 4), draws(9, 3, seed=1))
    right, found = (Objective(each, nn.MSELoss(), data) for each in (model, wrap(model)))
    assert found.names == right.names
    vector = draws(right.n_parameters)
    assert torch.equal(found.hvp(vector), right.hvp(vector))


def test_recomputed_weights_stay_right():
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).to(D)
    x, y = draws(9, 4), draws(9, 3, seed=1)
    objective = Objective.of_loss(lambda m, batch: (m(batch[0]) - batch[1]).square().mean(), model, (x, y))
    same = Objective(model, nn.MSELoss(), (x, y))
    vector = draws(same.n_parameters)
    torch.testing.assert_close(objective.hvp(vector), same.hvp(vector))


class Clones(TorchFunctionMode):
    """Notes how many clones are alive at each copy into another tensor."""

    def __init__(self):
        super().__init__()
        self.clones, self.alive = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_:
            self.alive.append(sum(clone() is not None for clone in self.clones))
        made = func(*args, **(kwargs or {}))
        if func is torch.Tensor.clone:
            self.clones.append(weakref.ref(made))
        return made


def test_each_batch_is_freed_when_it_was_joined():
    loader = torch.utils.data.DataLoader(
        list(zip(draws(12, 4), draws(12, 3, seed=1), strict=True)), batch_size=3
    )
    with Clones() as clones:
        objective = Objective(network(), nn.MSELoss(), loader)
    # inputs and targets of each batch
    assert clones.alive[:8] == [8, 8, 6, 6, 4, 4, 2, 2]
    assert torch.equal(objective.inputs, draws(12, 4))
    assert torch.equal(objective.targets, draws(12, 3, seed=1))


def test_batches_that_a_model_takes_whole_are_held_once():
    model, batch = network(), {"input": draws(6, 4)}
    objective = Objective(model, lambda y, _: y.square().mean(), [batch, batch])
    assert objective.inputs["input"].data_ptr() == objective.targets["input"].data_ptr()
