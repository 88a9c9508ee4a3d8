"""A small network in float64 and gradients computed apart from the methods, shared by their tests."""

import torch
from torch import nn
from torch.func import functional_call

from ncsam import (
    ASAM,
    BSAM,
    GSAM,
    NCSAM,
    SAM,
    SANER,
    ClusterNCSAM,
    FriendlySAM,
    JacobianSAM,
    LogitSAM,
    OracleSAM,
    Plain,
)

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


METHODS = {
    "plain": lambda m: Plain(m, loss_fn),
    "sam": lambda m: SAM(m, loss_fn, rho=0.3),
    "asam": lambda m: ASAM(m, loss_fn, rho=0.3),
    "gsam": lambda m: GSAM(m, loss_fn, rho=0.3),
    "friendly-sam": lambda m: FriendlySAM(m, loss_fn, rho=0.3),
    "bsam": lambda m: BSAM(m, loss_fn, rho=0.3),
    "saner": lambda m: SANER(m, loss_fn, rho=0.3),
    "j-sam": lambda m: JacobianSAM(m, loss_fn, rho=0.3),
    "l-sam": lambda m: LogitSAM(m, loss_fn, rho=0.3),
    "ncsam": lambda m: NCSAM(m, loss_fn, **COMPENSATED),
    "cluster-ncsam": lambda m: ClusterNCSAM(m, loss_fn, **{**COMPENSATED, "flip_ratio": 0.9}),
    "oracle": lambda m: OracleSAM(m, loss_fn, rho=0.3, clean_targets=batch(seed=5)[1]),
}
"""Name -> (model) -> the method, with the radius 0.3 where it has one."""
