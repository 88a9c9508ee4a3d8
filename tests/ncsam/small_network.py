"""A small network in float64 and gradients computed apart from the methods, shared by their tests."""

import torch
from torch import nn
from torch.func import functional_call

loss_fn = nn.CrossEntropyLoss()
COMPENSATED = {"rho": 0.3, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.1}


def network(batch_norm=False, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(7)] if batch_norm else []
        return nn.Sequential(nn.Linear(5, 7), *middle, nn.ReLU(), nn.Linear(7, 4)).double()


def batch(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 5, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(0, 4, (size,), generator=generator)


def gradient_at(model, weights, inputs, targets):
    """The gradient of the batch's mean loss at the given weights, in training mode, independent of the methods."""
    named = {name: w.clone().requires_grad_() for name, w in weights.items()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    loss = loss_fn(functional_call(model, {**named, **buffers}, (inputs,)), targets)
    return list(torch.autograd.grad(loss, list(named.values())))


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def shifted(weights, offsets):
    return {name: w + e for (name, w), e in zip(weights.items(), offsets, strict=True)}


def grads(model):
    return [p.grad for p in model.parameters()]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
