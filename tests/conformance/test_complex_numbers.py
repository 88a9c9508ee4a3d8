"""Complex outputs, targets, inputs and buffers are measured as pairs of real numbers; a complex loss is refused."""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from landscape import (
    FunctionalHessian,
    Objective,
    curvature_parts,
    diagonal,
    filter_normalized_directions,
    line,
    sample_curvature,
    sharpness,
    top_eigenvalues,
    trace,
)
from ncsam import SAM

D = torch.float64
C = torch.complex128
SAMPLES = 8


def draws(*shape, seed=0, dtype=D):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Spectrum(nn.Module):
    """The Fourier transform of a small network's outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 5)

    def forward(self, x):
        return torch.fft.fft(self.second(torch.tanh(self.first(x))))


class Conjugated(Spectrum):
    """Outputs with torch's lazy mark of a conjugate."""

    def forward(self, x):
        return super().forward(x).conj()


class SpectrumAndMean(Spectrum):
    def forward(self, x):
        spectrum = super().forward(x)
        return {"mean": spectrum.real.mean(1), "spectrum": spectrum}


class OfComplex(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 3), nn.Linear(3, 3)

    def forward(self, z):
        return self.second(torch.tanh(self.first(torch.view_as_real(z).flatten(1))))


class Rotated(nn.Module):
    """Hidden units that are turned by fixed complex phases. Without the imaginary parts it is another function."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)
        self.register_buffer("phases", draws(3, seed=4, dtype=torch.complex64))

    def forward(self, x):
        turned = torch.tanh(self.first(x)) * self.phases
        return self.second(turned.real + turned.imag)


def rows(data, part):
    return tree_map(lambda leaf: leaf[part], data)


def squared_distance(outputs, targets):
    return (outputs - targets).abs().square().mean()


def distance_of_both(outputs, batch):
    return squared_distance(outputs["spectrum"], batch["z"]) + outputs["mean"].exp().mean()


@dataclasses.dataclass
class Case:
    """A model, a loss and data; all in float32 and complex64."""

    model: Callable[[], nn.Module]
    loss: Callable
    data: object
    forward: Callable | None = None

    def objective(self, **options):
        torch.manual_seed(0)
        return Objective(self.model(), self.loss, self.data, forward=self.forward, dtype=D, **options)

    def in_float64(self):
        """The model and the data, cast by hand."""
        torch.manual_seed(0)
        model = self.model()
        phases = {name: buffer.to(C) for name, buffer in model.named_buffers()}
        model = model.double()
        for name, buffer in phases.items():
            setattr(model, name, buffer)

        def long(tensor):
            return (
                tensor.to(C)
                if tensor.is_complex()
                else tensor.to(D)
                if tensor.is_floating_point()
                else tensor
            )

        return model, tree_map(long, self.data)

    def outputs_and_loss(self):
        """(theta -> outputs as one real vector) and (that vector -> loss), of all data, without the package."""
        model, data = self.in_float64()
        forward = self.forward or (lambda model, batch: model(batch[0]))
        shapes = {name: p.shape for name, p in model.named_parameters()}

        def outputs(theta):
            parts = theta.split([shape.numel() for shape in shapes.values()])
            weights = {
                f"model.{name}": part.view(s) for (name, s), part in zip(shapes.items(), parts, strict=True)
            }
            found = functional_call(Lent(model), weights, (lambda model: forward(model, data),))
            leaves = found.values() if isinstance(found, dict) else [found]
            real = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]
            return torch.cat([leaf.flatten() for leaf in real])

        def loss(vector):
            if self.forward is not None:
                mean, pairs = vector.split([SAMPLES, 2 * SAMPLES * 5])
                spectrum = torch.view_as_complex(pairs.reshape(SAMPLES, 5, 2).contiguous())
                return self.loss({"mean": mean, "spectrum": spectrum}, data)
            if data[1].is_complex():
                return self.loss(torch.view_as_complex(vector.view(SAMPLES, 5, 2)), data[1])
            return self.loss(vector.view(SAMPLES, 3), data[1])

        return outputs, loss


class Lent(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, use):
        return use(self.model)


inputs, complex_targets = draws(SAMPLES, 4).float(), draws(SAMPLES, 5, seed=1, dtype=torch.complex64)
classes = torch.arange(SAMPLES) % 3

CASES = {
    "complex outputs": Case(Spectrum, squared_distance, (inputs, complex_targets)),
    "marked conjugates": Case(Conjugated, squared_distance, (inputs, complex_targets)),
    "complex outputs in a dict": Case(
        SpectrumAndMean,
        distance_of_both,
        {"x": inputs, "z": complex_targets},
        forward=lambda model, batch: model(batch["x"]),
    ),
    "complex inputs": Case(
        OfComplex, nn.CrossEntropyLoss(), (draws(SAMPLES, 4, seed=2, dtype=torch.complex64), classes)
    ),
    "complex buffers": Case(Rotated, nn.CrossEntropyLoss(), (inputs, classes)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.mark.parametrize("linearize", [False, True])
def test_losses_and_matrices_are_those_of_pairs_of_real_numbers(case, linearize):
    objective = case.objective(linearize=linearize, chunk_size=5)
    outputs, loss = case.outputs_and_loss()
    theta = objective.theta.clone()
    assert objective.value() == pytest.approx(loss(outputs(theta)).item(), rel=1e-12)
    torch.testing.assert_close(
        objective.gradient(), torch.func.grad(lambda theta: loss(outputs(theta)))(theta)
    )
    hessian = torch.func.hessian(lambda theta: loss(outputs(theta)))(theta)
    scores = outputs(theta)
    jacobian = torch.func.jacrev(outputs)(theta)
    gauss_newton = jacobian.T @ torch.func.hessian(loss)(scores) @ jacobian
    vectors = draws(len(theta), 2, seed=3)
    torch.testing.assert_close(objective.hvp(vectors), hessian @ vectors)
    torch.testing.assert_close(objective.ggnvp(vectors), gauss_newton @ vectors)
    torch.testing.assert_close(FunctionalHessian(objective) @ vectors, (hessian - gauss_newton) @ vectors)


def test_a_stream_of_complex_data_has_the_gradient_of_the_same_data_in_memory(case):
    batches = [rows(case.data, slice(start, start + 3)) for start in (0, 3, 6)]
    stream = dataclasses.replace(case, data=batches).objective(keep="none")
    torch.testing.assert_close(stream.gradient(), case.objective().gradient())


def test_measures_of_complex_data_are_right(case):
    objective = case.objective()
    outputs, loss = case.outputs_and_loss()
    theta = objective.theta.clone()
    hessian = torch.func.hessian(lambda theta: loss(outputs(theta)))(theta)
    top = torch.linalg.eigvalsh(hessian)[-1].item()
    assert top_eigenvalues(objective, k=1, tol=1e-8).values[0] == pytest.approx(top, rel=1e-6)
    assert trace(objective, rtol=1e-9).value == pytest.approx(hessian.trace().item(), rel=1e-6)
    np.testing.assert_allclose(diagonal(objective).values, hessian.diagonal(), rtol=1e-6, atol=1e-9)
    directions = filter_normalized_directions(objective, 1, seed=0)
    for steps in (3, 25):
        alpha = np.linspace(-1, 1, steps)
        expected = [loss(outputs(theta + a * directions.vectors[:, 0])).item() for a in alpha]
        np.testing.assert_allclose(line(objective, directions, alpha=alpha).loss, expected, rtol=1e-10)
    worst = sharpness(objective, rho=0.01)
    slope = torch.func.grad(lambda theta: loss(outputs(theta)))(theta)
    rise = loss(outputs(theta + 0.01 * slope / slope.norm())) - loss(outputs(theta))
    assert worst.one_step == pytest.approx(rise.item(), rel=1e-6)
    assert worst.value >= worst.one_step


def test_curvature_of_single_samples_of_complex_data_is_that_of_each_alone(case):
    objective = case.objective()
    found = sample_curvature(objective, measures=["gradient_norm", "gauss_newton_trace"], exact_up_to=100)
    for i in range(SAMPLES):
        alone = dataclasses.replace(case, data=rows(case.data, slice(i, i + 1))).objective()
        assert found.gradient_norm[i] == pytest.approx(alone.gradient().norm().item(), rel=1e-9)
        matrix = alone.ggnvp(torch.eye(alone.n_parameters, dtype=D))
        assert found.gauss_newton_trace[i] == pytest.approx(matrix.trace().item(), rel=1e-9)


def test_ignored_complex_targets_are_noticed():
    """A loss that leaves out some complex targets is no plain mean over samples."""
    targets = complex_targets.clone()
    targets[2:4] = complex(-1, 0)

    def loss(outputs, targets):
        kept = targets != complex(-1, 0)
        return (outputs - targets)[kept].abs().square().mean()

    with pytest.raises(ValueError, match="loss_fn: is not the mean over the samples"):
        Objective(Spectrum(), loss, (inputs, targets))


def test_a_complex_loss_is_refused():
    def loss(outputs, targets):
        return (outputs - targets).square().mean()

    with pytest.raises(ValueError, match=r"loss_fn: must return a real number, got torch.complex64; take"):
        Objective(Spectrum(), loss, (inputs, complex_targets))


def test_a_loss_that_takes_no_complex_numbers_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="loss_fn: fails on .* torch.view_as_real"):
        Objective(Spectrum(), nn.MSELoss(), (inputs, complex_targets))


def test_a_complex_regularizer_is_refused():
    with pytest.raises(ValueError, match="regularizer: must return a real scalar tensor"):
        Objective(
            Spectrum(),
            squared_distance,
            (inputs, complex_targets),
            regularizer=lambda parameters: (1j * parameters["first.weight"]).sum(),
        )


def test_parts_of_a_curvature_of_complex_scores_are_refused():
    with pytest.raises(ValueError, match="objective: the parts are those of the mean cross-entropy"):
        curvature_parts(Objective(Spectrum(), squared_distance, (inputs, complex_targets)))


def test_a_step_of_sam_on_complex_outputs_is_that_of_plain_torch():
    torch.manual_seed(0)
    model = Spectrum().double()
    apart = copy.deepcopy(model)
    data = inputs.double(), complex_targets.to(C)
    SAM(model, squared_distance, rho=0.05).backward(*data)
    parameters = list(apart.parameters())

    def gradients():
        return torch.autograd.grad(squared_distance(apart(data[0]), data[1]), parameters)

    first = gradients()
    length = torch.cat([part.flatten() for part in first]).norm()
    with torch.no_grad():
        for parameter, part in zip(parameters, first, strict=True):
            parameter.add_(0.05 * part / length)
    for parameter, expected in zip(model.parameters(), gradients(), strict=True):
        torch.testing.assert_close(parameter.grad, expected)
