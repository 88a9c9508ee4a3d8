"""State that forward passes keep, and gradients that are not those of the loss: right, or refused with the cause."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from landscape import (
    Objective,
    filter_normalized_directions,
    line,
    sharpness,
    spectral_density,
    surface,
    top_eigenvalues,
    trace,
)
from landscape.loss.same_function import same_function

D = torch.float64
cross_entropy = nn.CrossEntropyLoss()


def samples(count=24):
    return torch.randn(count, 5, dtype=D, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3


class Network(nn.Module):
    """With something between two layers: a function of the hidden values and the module."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head, self.between = nn.Linear(5, 6), nn.Linear(6, 3), between
        self.register_buffer("mean", torch.zeros(6))
        self.kept, self.passes = None, 0
        self.to(D)

    def forward(self, x):
        return self.head(torch.tanh(self.between(self.inner(x), self)))


def product_of_weights(hidden, module):
    if module.kept is None:
        module.kept = module.inner.weight @ module.inner.weight.T
    return hidden @ module.kept


def constant_product_of_weights(hidden, module):
    if module.kept is None:
        module.kept = (module.inner.weight @ module.inner.weight.T).detach().clone()
    return hidden @ module.kept


def slow_statistics(hidden, module):
    module.mean.mul_(0.99999).add_(1e-5 * hidden.detach().mean(0))
    return hidden - module.mean


def counted_passes(hidden, module):
    module.passes += 1
    return hidden * (1 + 1e-6 * module.passes)


@pytest.mark.parametrize(
    ("between", "kept"),
    [
        (product_of_weights, "'kept'"),
        (constant_product_of_weights, "'kept'"),
        (slow_statistics, "'mean'"),
        (counted_passes, "'passes'"),
    ],
)
def test_outputs_that_depend_on_the_passes_before_are_refused(between, kept):
    with pytest.raises(
        ValueError, match=f"model: its outputs depend on the passes before, of which it keeps {kept}"
    ):
        Objective(Network(between), cross_entropy, samples())


def positions(hidden, module):
    if module.kept is None:
        module.kept = torch.arange(6).to(hidden)
    return hidden * module.kept


def last_features(hidden, module):
    module.kept, module.passes = hidden, module.passes + 1
    return hidden


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("between", [positions, last_features])
def test_what_is_kept_without_harm_is_no_hindrance(between, dtype):
    """Positions that are computed once, also where a surface is measured before a gradient."""
    model = Network(between)
    objective = Objective(model, cross_entropy, samples(), dtype=dtype)
    assert model.kept is None
    directions = filter_normalized_directions(objective, 2, seed=0)
    assert np.isfinite(surface(objective, directions, steps=3).loss).all()
    assert objective.gradient().norm() > 0
    assert top_eigenvalues(objective, tol=0.1).converged.all()


def with_gradient(forward, backward):
    """A function whose gradient is not its derivative."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return forward(x)

        @staticmethod
        def backward(_, slope):
            return backward(slope)

    return Function.apply


straight_through = with_gradient(torch.round, lambda slope: slope)
reversed_slope = with_gradient(torch.clone, torch.neg)


def hooked(hidden, _):
    if hidden.requires_grad:
        hidden.register_hook(lambda slope: 0.5 * slope)
    return hidden


def bounded_by_assignment(hidden, module):
    module.head.weight.data = module.head.weight.data.clamp(-0.2, 0.2)
    return hidden


WRONG_GRADIENTS = {
    "straight-through": lambda hidden, _: straight_through(hidden),
    "reversed": lambda hidden, _: reversed_slope(hidden),
    "hook": hooked,
    "detached scale": lambda hidden, _: hidden / hidden.detach().norm(dim=1, keepdim=True),
    "weights put in place": bounded_by_assignment,
    "cut off": lambda hidden, _: hidden.detach(),
}


class InShorterDtype(nn.Module):
    """Logits in float32, as language models have them, or a forward pass under autocast."""

    def __init__(self, way):
        super().__init__()
        self.layers, self.way = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), way

    def forward(self, x):
        if self.way == "float32 logits":
            return self.layers(x).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x).float()


@pytest.mark.parametrize("way", ["float32 logits", "autocast"])
@pytest.mark.parametrize("seed", range(12))
def test_rounding_to_a_shorter_dtype_inside_raises_no_alarm(way, seed):
    torch.manual_seed(seed)
    inputs, targets = samples()
    objective = Objective(InShorterDtype(way), cross_entropy, (inputs.float(), targets))
    assert objective.gradient().norm() > 0
    assert top_eigenvalues(objective, tol=0.5).values[0] > 0


@pytest.mark.parametrize("measure", [Objective.gradient, sharpness, top_eigenvalues])
@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_a_gradient_that_is_not_that_of_the_loss_is_refused(name, measure):
    objective = Objective(Network(WRONG_GRADIENTS[name]), cross_entropy, samples())
    with pytest.raises(ValueError, match="model: its gradient is not that of its loss"):
        measure(objective)


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_losses_of_such_a_model_can_be_had(name):
    objective = Objective(Network(WRONG_GRADIENTS[name]), cross_entropy, samples())
    found = line(objective, filter_normalized_directions(objective, 1, seed=0), steps=3)
    assert found.loss[1] == pytest.approx(objective.value())


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_right_gradients_raise_no_alarm(scale, dtype):
    model = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 3)).to(
        dtype
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    objective = Objective(model, cross_entropy, samples())
    objective.gradient()
    assert objective.has_right_gradient


class ByNumPy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, slope):
        return slope * torch.from_numpy(1 - ctx.saved_tensors[0].numpy() ** 2)


@pytest.mark.parametrize("matrix", ["hvp", "ggnvp"])
def test_products_without_second_derivatives_are_differences_of_gradients(matrix):
    """With a warning that says how good they are."""
    by_numpy = Objective(
        Network(lambda hidden, _: ByNumPy.apply(hidden)), cross_entropy, samples(), chunk_size=10
    )
    plain = Objective(Network(lambda hidden, _: torch.tanh(hidden)), cross_entropy, samples(), chunk_size=10)
    block = torch.randn(plain.n_parameters, 2, dtype=D, generator=torch.Generator().manual_seed(1))
    with pytest.warns(
        UserWarning, match="products are differences of gradients, with a relative error of about"
    ):
        found = getattr(by_numpy, matrix)(block)
    torch.testing.assert_close(found, getattr(plain, matrix)(block), rtol=1e-6, atol=1e-8)


def test_an_operation_without_a_second_derivative_is_named_where_the_model_does_not_run_in_float64():
    """There short differences of gradients are not good enough."""
    model = Network(lambda hidden, _: ByNumPy.apply(hidden.float()) @ torch.eye(6)).float()
    objective = Objective(model, cross_entropy, samples())
    with pytest.raises(RuntimeError, match="model: an operation of it has no second derivative in torch"):
        objective.hvp(torch.ones_like(objective.theta))


def switched_by_an_attribute(last):
    def between(hidden, module):
        module.passes += 1
        return hidden * (1.0 if module.passes < last else 1.02)

    return between


def switched_by_a_buffer(last):
    def between(hidden, module):
        module.mean += 1
        return hidden * (1.0 if module.mean[0] < last else 1.02)

    return between


LONG_MEASURES = {
    "eigenvalues": lambda objective: top_eigenvalues(objective, 1, tol=1e-6),
    "trace": lambda objective: trace(objective, rtol=None, max_products=40),
    "density": lambda objective: spectral_density(objective, steps=10, probes=3),
    "sharpness": lambda objective: sharpness(objective, rho=0.5),
    "line": lambda objective: line(objective, objective.gradient(), steps=61),
}


@pytest.mark.parametrize("switched", [switched_by_an_attribute, switched_by_a_buffer])
@pytest.mark.parametrize("measure", LONG_MEASURES)
def test_a_model_that_changes_while_it_is_measured_is_refused_and_one_that_only_counts_is_not(
    measure, switched
):
    # passes of a line over samples in memory are traced, and then of one function; a stream's first checks take 32
    keep, last = ("none", 50) if measure == "line" else ("all", 12)

    def measured(last):
        model = Network(switched(last))
        return LONG_MEASURES[measure](
            Objective(model, cross_entropy, [samples()], keep=keep, linearize=False)
        )

    measured(10**9)
    with pytest.raises(ValueError, match="^model: its outputs for the same samples .* this measure"):
        measured(last)


class ChangesLate(nn.Module):
    """A network whose outputs change after some passes."""

    def __init__(self, passes, change, classes):
        super().__init__()
        self.network = nn.Linear(5, classes, dtype=D)
        self.change, self.left = change, passes

    def forward(self, x):
        self.left -= 1
        outputs = self.network(x)
        return outputs if self.left > 0 else self.change(outputs)


@pytest.mark.parametrize(
    ("change", "classes"),
    [
        # norm and sum stay
        pytest.param(lambda outputs: outputs.flip(-1), 3, id="order of the classes"),
        pytest.param(lambda outputs: outputs * 1.01, 50_000, id="size of many outputs"),
    ],
)
def test_every_late_change_of_the_outputs_is_noticed(change, classes):
    inputs, targets = samples()
    objective = Objective(ChangesLate(14, change, classes), cross_entropy, (inputs, targets), linearize=False)
    with pytest.raises(ValueError, match="^model: its outputs for the same samples"):
        trace(objective, rtol=None, max_products=20)


class CountsPasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(5, 3, dtype=D)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.passes += 1
        return self.network(x)


def test_a_measure_that_calls_others_looks_at_the_model_once_and_directions_do_not():
    objective = Objective(CountsPasses(), cross_entropy, samples(), linearize=False)
    passes = objective.model.passes
    before = passes.item()
    filter_normalized_directions(objective, 2)
    assert passes.item() == before
    with same_function([objective]):
        before = passes.item()
        with same_function([objective]):
            assert passes.item() == before


def test_reentrant_checkpoints_have_losses_and_are_refused_for_gradients_with_the_remedy():
    def between(hidden, module):
        return checkpoint(torch.tanh, hidden, use_reentrant=True)

    objective = Objective(Network(between), cross_entropy, samples())
    assert objective.value() > 0
    with pytest.raises(ValueError, match="^model: it uses reentrant checkpoints .* use_reentrant=False"):
        objective.gradient()
