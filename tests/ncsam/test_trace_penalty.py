"""The penalties on tr J^T J and on the Fisher trace against Jacobians that `torch.func` computes, sample by sample."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from ncsam import FisherPenalty, JacobianPenalty, Plain
from ncsam.random_state import generator_from
from tests.ncsam.small_network import assert_same, batch, grads, loss_fn, network, weights_of

STRENGTH = 0.3
PENALTIES = {"fisher": FisherPenalty, "jacobian": JacobianPenalty}


def jacobians(model, weights, inputs):
    """(samples, outputs, weights): the Jacobian of each sample's outputs, with its graph."""
    found = [
        jacrev(lambda w, x=sample: functional_call(model, w, (x[None],))[0])(weights) for sample in inputs
    ]
    return torch.stack([torch.cat([part.flatten(1) for part in of.values()], 1) for of in found])


def covariances(name, outputs):
    """(samples, outputs, outputs): C, with which the penalty weights the outputs."""
    if name == "jacobian":
        return torch.eye(outputs.shape[1], dtype=outputs.dtype).expand(len(outputs), -1, -1)
    p = outputs.softmax(1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("name", PENALTIES)
def test_over_draws_the_estimate_is_the_trace_of_the_dense_matrix(name):
    model, (inputs, _) = network(), batch()
    inputs = inputs[:6]
    method = PENALTIES[name](model, loss_fn, seed=3, strength=STRENGTH)
    found = []
    for step in range(600):
        method.steps = step
        found.append(method.estimated_trace(model(inputs)).detach())
    estimates = torch.stack(found)
    jacobian = jacobians(model, weights_of(model), inputs)
    truth = torch.einsum("son,sop,spn->", jacobian, covariances(name, model(inputs)), jacobian) / len(inputs)
    error = estimates.std() / len(estimates) ** 0.5
    assert error < 0.05 * truth
    assert abs(estimates.mean() - truth) < 4 * error


def drawn_slopes(name, outputs, seed):
    """v of the first step: the penalty's own draw, by another route."""
    generator = generator_from(seed, 0)
    if name == "jacobian":
        return 2 * torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) - 1
    levels = torch.rand(len(outputs), 1, generator=generator)
    shares = outputs.detach().float().softmax(1)
    labels = torch.stack(
        [(share.cumsum(0) < level).sum() for share, level in zip(shares, levels, strict=True)]
    )
    return outputs.softmax(1) - nn.functional.one_hot(labels, outputs.shape[1])


@pytest.mark.parametrize("name", PENALTIES)
def test_the_gradient_is_that_of_the_loss_plus_strength_times_the_estimate(name):
    model, (inputs, targets) = network(), batch()
    method = PENALTIES[name](model, loss_fn, seed=3, strength=STRENGTH)
    assert method.backward(inputs, targets) == pytest.approx(loss_fn(model(inputs), targets).item())
    weights = {key: w.clone().requires_grad_() for key, w in weights_of(model).items()}
    outputs = functional_call(model, weights, (inputs,))
    slopes = drawn_slopes(name, outputs, seed=3)
    mean = torch.einsum("son,so->n", jacobians(model, weights, inputs), slopes) / len(inputs)
    whole = loss_fn(outputs, targets) + STRENGTH * len(inputs) * mean.square().sum()
    assert_same(grads(model), torch.autograd.grad(whole, list(weights.values())))


@pytest.mark.parametrize("name", PENALTIES)
def test_without_strength_the_gradient_is_the_plain_one(name):
    inputs, targets = batch()
    found = []
    for build in (lambda m: PENALTIES[name](m, loss_fn, seed=0, strength=0.0), lambda m: Plain(m, loss_fn)):
        model = network()
        build(model).backward(inputs, targets)
        found.append(grads(model))
    assert_same(*found)


@pytest.mark.parametrize("name", PENALTIES)
def test_each_step_has_its_own_draw_and_a_resumed_one_repeats_it(name):
    inputs, targets = batch()

    def step(method):
        method.model.zero_grad()
        method.backward(inputs, targets)
        return torch.cat([part.flatten() for part in grads(method.model)]).clone()

    method = PENALTIES[name](network(), loss_fn, seed=0, strength=STRENGTH)
    first, kept = step(method), method.state_dict()
    second = step(method)
    resumed = PENALTIES[name](network(), loss_fn, seed=0, strength=STRENGTH)
    resumed.load_state_dict(kept)
    assert not torch.equal(first, second)
    assert torch.equal(step(resumed), second)


def test_a_step_counts_as_three_gradients():
    method = JacobianPenalty(network(), loss_fn, seed=0, strength=STRENGTH)
    method.backward(*batch())
    assert method.gradient_count == 3


def test_attention_is_differentiated_twice():
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3))
    JacobianPenalty(model, loss_fn, seed=0, strength=1.0).backward(
        torch.randn(4, 3, 8), torch.tensor([0, 1, 2, 0])
    )
    assert all(p.grad.isfinite().all() for p in model.parameters())


TWICE = {
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))),
    "weight norm of the whole": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 4), dim=None)
    ),
    "hardsigmoid": lambda: nn.Sequential(nn.Linear(5, 4), nn.Hardsigmoid()),
}


@pytest.mark.parametrize("layers", TWICE)
@pytest.mark.parametrize("name", PENALTIES)
def test_operations_without_a_right_second_derivative_in_torch_have_the_right_gradient(name, layers):
    torch.manual_seed(0)
    model = TWICE[layers]().append(nn.Tanh()).append(nn.Linear(4, 4)).double()
    inputs, targets = batch()
    method = PENALTIES[name](model, loss_fn, seed=3, strength=STRENGTH)
    method.backward(inputs, targets)
    weights = list(model.parameters())
    direction = [torch.randn_like(weight) for weight in weights]
    slope = sum((weight.grad * part).sum() for weight, part in zip(weights, direction, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=step)
        # the draw of the step that was taken
        method.steps = 0
        outputs = model(inputs)
        values.append(loss_fn(outputs, targets) + STRENGTH * method.estimated_trace(outputs))
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-5, rtol=1e-5, atol=1e-8)


class OfDistances(nn.Linear):
    def forward(self, x):
        return torch.cdist(x, self.weight)


def test_an_operation_without_a_second_derivative_is_refused_with_the_remedy():
    method = JacobianPenalty(OfDistances(5, 4).double(), loss_fn, seed=0, strength=1.0)
    with pytest.raises(
        ValueError, match=r"^model: JacobianPenalty differentiates it twice.*plain operations"
    ):
        method.backward(*batch())


REFUSED = {
    "strength": lambda: FisherPenalty(network(), loss_fn, seed=0, strength=-1.0),
    "micro_batch_size": lambda: cut_into_pieces().backward(*batch()),
    "model": lambda: FisherPenalty(nn.Unflatten(1, (5, 1)), loss_fn, seed=0, strength=1.0).backward(
        batch()[0].requires_grad_(), torch.zeros(16, 1, dtype=torch.long)
    ),
    "closure": lambda: JacobianPenalty(network(), loss_fn, seed=0, strength=1.0).backward(
        closure=lambda: torch.zeros(())
    ),
}


def cut_into_pieces():
    method = FisherPenalty(network(), loss_fn, seed=0, strength=1.0)
    method.passes.micro_batch_size = 4
    return method


@pytest.mark.parametrize("field", REFUSED)
def test_what_cannot_be_penalized_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        REFUSED[field]()


@pytest.mark.parametrize("name", PENALTIES)
def test_batches_and_models_that_no_method_takes_are_refused(name):
    inputs, targets = batch()
    frozen = network().requires_grad_(False)
    with pytest.raises(ValueError, match=r"^inputs: the batch is empty"):
        PENALTIES[name](network(), loss_fn, seed=0, strength=1.0).backward(inputs[:0], targets[:0])
    with pytest.raises(ValueError, match=r"^targets: 1 for 16 inputs"):
        PENALTIES[name](network(), loss_fn, seed=0, strength=1.0).backward(inputs, targets[:1])
    with pytest.raises(ValueError, match=r"^model: none of its parameters"):
        PENALTIES[name](frozen, loss_fn, seed=0, strength=1.0).backward(inputs, targets)
    with pytest.raises(ValueError, match=r"^model: is compiled"):
        PENALTIES[name](torch.compile(network()), loss_fn, seed=0, strength=1.0)
