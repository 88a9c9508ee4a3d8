"""SOP, against two updates that are followed by hand, number by number."""

import copy
import math

import pytest
import torch
from torch import nn

from ncsam import SOP
from ncsam.methods.sop import sop_losses
from tests.ncsam.small_network import batch, grads, loss_fn, network

RATE_U, RATE_V, SCALE = 0.7, 1.3, 0.4
"""Large first values, so that one step moves u and v visibly."""


def made(model, **options):
    return SOP(model, loss_fn, samples=20, seed=3, rate_u=RATE_U, rate_v=RATE_V, scale=SCALE, **options)


def square(x):
    """x^2, but at most 1, where it no longer moves."""
    return x**2 if x**2 < 1 else 0 * x + 1


def cross_entropy_by_hand(scores, label, u, v):
    """-log of the label's share of p + s, for one sample; s may not be changed by v here."""
    p = scores.exp() / scores.exp().sum()
    parts = [p[j] + square(u) if j == label else p[j] - square(v[j].detach()) for j in range(len(p))]
    parts = [part if part > 1e-4 else part * 0 + 1e-4 for part in parts]
    return -torch.log(parts[label] / sum(parts))


def distance_by_hand(scores, label, u, v):
    """The squared distance of label and predicted class plus s, for one sample; only v may change it."""
    hard = int(scores.argmax())
    total = 0
    for j in range(len(scores)):
        s = square(u.detach()) if j == label else -square(v[j])
        total = total + (int(j == hard) + s - int(j == label)) ** 2
    return total


def step_by_hand(model, u, v, inputs, targets, indices, rate):
    """One step of weights, u (a list of scalars) and v (a list of vectors), all in plain loops."""
    us = {i: u[i].clone().requires_grad_() for i in indices}
    vs = {i: v[i].clone().requires_grad_() for i in indices}
    entropy, distance = 0, 0
    for x, y, i in zip(inputs, targets.tolist(), indices, strict=True):
        scores = model(x[None])[0]
        entropy = entropy + cross_entropy_by_hand(scores, y, us[i], vs[i]) / len(indices)
        distance = distance + distance_by_hand(scores.detach(), y, us[i], vs[i]) / len(indices)
    of_weights = torch.autograd.grad(entropy, list(model.parameters()), retain_graph=True)
    of_u = torch.autograd.grad(entropy, list(us.values()))
    of_v = torch.autograd.grad(distance, list(vs.values()))
    with torch.no_grad():
        for p, g in zip(model.parameters(), of_weights, strict=True):
            p -= rate * g
        for i, gu, gv in zip(indices, of_u, of_v, strict=True):
            u[i] -= RATE_U * gu
            v[i] -= RATE_V * gv


def test_two_updates_are_those_of_the_equations():
    model = network()
    twin = copy.deepcopy(model)
    method = made(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    drawn = (SCALE * torch.randn(20, 5, generator=torch.Generator().manual_seed(3))).double()
    u, v = list(drawn[:, 0].clone()), list(drawn[:, 1:].clone())
    # the second batch meets some samples of the first one again
    for seed, indices in ((0, range(16)), (1, range(4, 20))):
        inputs, targets = batch(seed)
        optimizer.zero_grad()
        method.backward(inputs, targets, torch.tensor(list(indices)))
        optimizer.step()
        step_by_hand(twin, u, v, inputs, targets, list(indices), 0.1)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(method.noise_u.flatten(), torch.stack(u), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(method.noise_v, torch.stack(v), rtol=1e-9, atol=1e-12)
    assert (torch.stack(u) - drawn[:, 0]).abs().max() > 0.01
    assert (torch.stack(v) - drawn[:, 1:]).abs().max() > 0.01
    assert method.gradient_count == 2


def test_a_sample_that_a_batch_holds_twice_moves_by_both_gradients():
    inputs, targets = batch()
    places = torch.tensor([0, 0, 0, 1, *range(2, 14)])
    method = made(network())
    outputs = method.model(inputs).detach()
    u, v = (noise.clone().requires_grad_() for noise in method._noise(outputs))
    losses = sop_losses(outputs, targets, u[places], v[places], torch.ones(16, dtype=torch.bool))
    of_u, of_v = torch.autograd.grad(sum(losses), [u, v])
    method.backward(inputs, targets, places)
    torch.testing.assert_close(method.noise_u, u - RATE_U * of_u)
    torch.testing.assert_close(method.noise_v, v - RATE_V * of_v)


def test_without_noise_terms_it_is_cross_entropy():
    model, plain = network(), network()
    SOP(model, loss_fn, samples=16, seed=0, scale=0.0).backward(*batch(), torch.arange(16))
    loss_fn(plain(batch()[0]), batch()[1]).backward()
    for ours, theirs in zip(grads(model), grads(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_noise_takes_up_a_wrong_label_that_the_network_never_fits():
    """A network that cannot move: the noise alone has to explain the labels, and finds the wrong one."""
    model = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0]]))
    inputs = torch.eye(2, dtype=torch.float64).repeat(4, 1)
    targets = torch.tensor([0, 1] * 3 + [1, 1])
    method = SOP(model, loss_fn, samples=8, seed=0, rate_u=1.0, rate_v=1.0, scale=1e-3)
    for _ in range(60):
        method.backward(inputs, targets, torch.arange(8))
    # sample 6 is labeled 1 and shows class 0
    assert method.noise_v[6, 0] ** 2 > 0.9
    assert method.noise_u[6, 0] ** 2 > 0.3
    others = [0, 1, 2, 3, 4, 5, 7]
    assert (method.noise_v[others] ** 2).max() < 1e-4


def test_a_step_that_overflowed_does_not_move_the_noise():
    model = network()
    method = made(model)
    method.backward(*batch(), torch.arange(16))
    u = method.noise_u.clone()
    inputs = batch()[0].clone()
    inputs[0] = math.inf
    method.backward(inputs, batch()[1], torch.arange(16))
    assert torch.equal(method.noise_u, u)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: made(m).backward(*batch()), "^indices: SOP learns the noise"),
        (lambda m: SOP(m, nn.MSELoss(), samples=1, seed=0), "^loss_fn: SOP is made of plain"),
        (lambda m: SOP(m, loss_fn, samples=1, seed=0, rate_u=-1), "^rate_u: must be at least 0"),
    ],
)
def test_what_cannot_be_done_is_named(act, message):
    with pytest.raises(ValueError, match=message):
        act(network())
