"""Models and losses that were once measured wrongly without a word: each is right, or refused with its cause."""

import copy
import functools
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from landscape import Objective, filter_normalized_directions, line, sharpness, top_eigenvalues
from tests.conftest import MODEL_NAMES, build

cross_entropy = nn.CrossEntropyLoss()


def samples(count=12, features=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, features, generator=generator, dtype=dtype), torch.arange(count) % 3


def network():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def by_closure(model):
    original = model.forward
    model.forward = lambda x: original(x.float())


def by_weak_reference(model):
    model.forward = functools.partial(lambda own, x: type(own()).forward(own(), x), weakref.ref(model))


def by_compiled_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")


def by_compiled_layer(model):
    model[0].forward = torch.compile(model[0].forward, backend="eager")


def by_hook(model):
    last = model[2]
    last.register_forward_hook(lambda _, x, __: nn.functional.linear(x[0], last.weight, last.bias))


@pytest.mark.parametrize(
    "patch", [by_closure, by_weak_reference, by_compiled_forward, by_compiled_layer, by_hook]
)
def test_a_copy_that_still_runs_the_original_is_refused(patch):
    """fairscale#816, accelerate#1835, gpytorch#1360."""
    model = network()
    patch(model)
    with pytest.raises(
        ValueError, match=r"model: the forward of its copy .* parameters '[02]\.(weight|bias)'"
    ):
        Objective(model, cross_entropy, samples())


class Renormalized(nn.Module):
    """Halves its weights at each pass: a write that is not the same when made twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        with torch.no_grad():
            self.inner.weight.mul_(0.5)
        return self.head(torch.tanh(self.inner(x)))


class BoundedWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4, max_norm=1.0), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.words(x.abs().long()).mean(1)))


@pytest.mark.parametrize("model_type", [Renormalized, BoundedWords])
def test_losses_of_a_forward_that_writes_to_its_weights_are_those_of_a_fresh_copy_each(model_type):
    """braindecode#429, pytorch#26596."""
    model = model_type()
    inputs, targets = samples(40, dtype=torch.float64)
    objective = Objective(model, cross_entropy, (inputs, targets), dtype=torch.float64)
    theta = objective.theta.clone()
    directions = filter_normalized_directions(objective, 1, seed=1)

    def loss_at(multiple):
        fresh = copy.deepcopy(model).double()
        point = theta + multiple * directions.vectors[:, 0]
        nn.utils.vector_to_parameters(point, fresh.parameters())
        return cross_entropy(fresh(inputs), targets).item()

    # 25 points would be traced
    found = line(objective, directions, alpha=np.linspace(-1, 1, 25)).loss
    np.testing.assert_allclose(found, [loss_at(a) for a in np.linspace(-1, 1, 25)], rtol=1e-12)
    assert torch.equal(objective.theta, theta)


@pytest.mark.parametrize("measure", [Objective.gradient, top_eigenvalues, sharpness])
def test_derivatives_of_a_forward_that_writes_to_its_weights_are_refused(measure):
    objective = Objective(Renormalized(), cross_entropy, samples())
    with pytest.raises(ValueError, match="model: its forward writes to its weights"):
        measure(objective)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Detached(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.x * slope


class Saved(Detached):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Squared(nn.Module):
    """With a square in the middle, by an `autograd.Function`."""

    def __init__(self, square):
        super().__init__()
        self.inner, self.head, self.square = nn.Linear(5, 4), nn.Linear(4, 3), square

    def forward(self, x):
        return self.head(self.square.apply(self.inner(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("square", [Once, Detached])
@pytest.mark.parametrize("bias_only", [False, True])
def test_a_function_that_loses_second_derivatives_is_refused(square, dtype, bias_only):
    """pytorch#58509: 38 to 79% off, "converged"."""
    model = Squared(square).to(dtype)
    chosen = (lambda name: name == "inner.bias") if bias_only else None
    objective = Objective(model, cross_entropy, samples(dtype=dtype), parameters=chosen)
    with pytest.raises(ValueError, match="model: its second derivatives are wrong"):
        top_eigenvalues(objective)


def test_the_refusal_of_second_derivatives_names_the_remedies_of_libraries():
    """torchdiffeq's adjoint and gpytorch's kernels are such functions."""
    objective = Objective(Squared(Once), cross_entropy, samples(dtype=torch.float32))
    with pytest.raises(
        ValueError, match=r"odeint, not odeint_adjoint.* gpytorch\.settings\.trace_mode\(True\)"
    ):
        objective.hvp(torch.ones_like(objective.theta))


def test_a_subset_with_right_second_derivatives_does_not_vouch_for_all_samples():
    def loss(outputs, targets):
        return torch.where(targets == 1, Detached.apply(outputs), outputs * outputs).mean()

    targets = (torch.arange(40) % 2).double()[:, None]
    inputs = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    objective = Objective(nn.Linear(3, 1, dtype=torch.float64), loss, (inputs, targets))
    vector = torch.ones(4, dtype=torch.float64)
    objective.subset(samples=torch.arange(0, 40, 2)).hvp(vector)
    with pytest.raises(ValueError, match="^model: its second derivatives are wrong"):
        objective.hvp(vector)


def test_a_function_whose_backward_can_be_differentiated_is_right():
    inputs, targets = samples(dtype=torch.float64)
    objective = Objective(Squared(Saved).double(), cross_entropy, (inputs, targets))
    theta, eye = objective.theta, torch.eye(objective.n_parameters, dtype=torch.float64)

    def loss(point):
        weights = objective.unflatten(point)
        hidden = nn.functional.linear(inputs, weights["inner.weight"], weights["inner.bias"]).square()
        return cross_entropy(
            nn.functional.linear(hidden, weights["head.weight"], weights["head.bias"]), targets
        )

    torch.testing.assert_close(objective.hvp(eye), torch.func.hessian(loss)(theta), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_right_second_derivatives_raise_no_alarm(name, dtype, scale):
    """Also at weights of 0, where all ReLUs are on their kinks, and at large ones, where losses are steep."""
    model, inputs, targets = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    objective = Objective(model.to(dtype), cross_entropy, (inputs.to(dtype), targets))
    objective.hvp(torch.ones_like(objective.theta))
    objective.ggnvp(torch.ones_like(objective.theta))
    assert len(objective.verified) == 2


def test_a_wide_network_of_kinks_raises_no_alarm():
    model = nn.Sequential(nn.Linear(5, 3000), nn.ReLU(), nn.Linear(3000, 300), nn.ReLU(), nn.Linear(300, 3))
    objective = Objective(model, cross_entropy, samples(40))
    objective.hvp(torch.ones_like(objective.theta))
    assert len(objective.verified) == 1


class Checkpointed(nn.Module):
    def __init__(self, on):
        super().__init__()
        self.inner, self.hidden, self.head = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.on = on

    def block(self, x):
        return torch.tanh(self.hidden(x))

    def forward(self, x):
        x = self.inner(x)
        return self.head(checkpoint(self.block, x, use_reentrant=False) if self.on else self.block(x))


def test_activation_checkpointing_recomputes_with_the_weights_that_are_measured():
    """functorch#993, pytorch#102223: 39 to 51% off at moved weights."""
    model, plain = Checkpointed(True).double(), Checkpointed(False).double()
    plain.load_state_dict(model.state_dict())
    found, right = (Objective(each, cross_entropy, samples(dtype=torch.float64)) for each in (model, plain))
    vector = torch.ones_like(found.theta)
    for point in (found.theta, found.theta + 0.5):
        torch.testing.assert_close(found.gradient(point), right.gradient(point))
        torch.testing.assert_close(found.hvp(vector, point), right.hvp(vector, point))
        torch.testing.assert_close(found.ggnvp(vector, point), right.ggnvp(vector, point))
    assert sharpness(found, rho=1.0).value == pytest.approx(sharpness(right, rho=1.0).value, rel=1e-12)


def test_autocast_of_the_caller_changes_no_number():
    """eigenthings#34: errors were understated 350 times."""
    model, inputs, targets = build("mlp")
    data = (inputs.float(), targets)
    right = Objective(model.float(), cross_entropy, data)
    with torch.autocast("cpu", torch.bfloat16):
        found = Objective(model, cross_entropy, data)
        eigen = top_eigenvalues(found, 2)
        along = line(found, filter_normalized_directions(found, 1, seed=0), steps=3)
        assert torch.is_autocast_enabled("cpu")
        gradient = found.gradient()
    np.testing.assert_array_equal(eigen.values, top_eigenvalues(right, 2).values)
    np.testing.assert_array_equal(
        along.loss, line(right, filter_normalized_directions(right, 1, seed=0), steps=3).loss
    )
    assert torch.equal(gradient, right.gradient())


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_complex_weights_are_refused(dtype):
    """jaxopt#169."""

    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3, dtype=torch.cfloat))

        def forward(self, x):
            return (x.to(self.weight.dtype) @ self.weight).abs()

    with pytest.raises(ValueError, match="model: its parameter 'weight' is complex"):
        Objective(Complex(), cross_entropy, samples(), dtype=dtype)


def test_a_loss_that_closes_over_the_weights_is_refused():
    """how-do-vits-work#12: the gradient of the penalty was 0."""
    model = network()

    def penalized(outputs, targets):
        return cross_entropy(outputs, targets) + 0.25 * sum(p.square().sum() for p in model.parameters())

    with pytest.raises(ValueError, match=r"loss_fn: depends on the caller's own parameters '0\.weight'"):
        Objective(model, penalized, samples())


def test_a_loss_that_closes_over_a_parameter_of_its_own_is_refused():
    temperature = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="loss_fn: depends on a parameter of shape"):
        Objective(network(), lambda z, y: cross_entropy(z / temperature, y), samples())


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
def test_outputs_that_are_a_little_random_are_refused(noise):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x):
            return self.network(x + noise * torch.randn_like(x))

    with pytest.raises(
        ValueError, match="model: its outputs for a sample differ from one run of the same batch"
    ):
        Objective(Noisy(), cross_entropy, samples())


def test_the_hard_sigmoid_has_second_derivatives():
    model = nn.Sequential(nn.Linear(5, 6), nn.Hardsigmoid(), nn.Linear(6, 3)).double()
    objective = Objective(model, cross_entropy, samples(dtype=torch.float64))
    vector = torch.randn(objective.n_parameters, dtype=torch.float64)
    ahead, behind = (objective.gradient(objective.theta + h * vector) for h in (1e-6, -1e-6))
    torch.testing.assert_close(objective.hvp(vector), (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-8)
