"""A small training that writes a checkpoint, and its variants."""

import functools

import torch
from torch import nn

from ncsam import NCSAM, PES, SAM, Plain, Split, corrupt_labels, fit

TARGETS = torch.arange(32) % 3


def cross_entropy(**options):
    return functools.partial(nn.functional.cross_entropy, **options)


def train(
    checkpoint,
    make=lambda model: SAM(model, nn.CrossEntropyLoss(), rho=0.05),
    optimizer=torch.optim.SGD,
    scheduler=None,
    noise_seed=0,
    epochs=2,
    change=None,
    steps=None,
    **options,
):
    torch.manual_seed(0)
    data = Split(torch.rand(32, 1, 4, 4), TARGETS)
    method = make(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)))
    optimizer = optimizer(method.parameters(), **(steps or {"lr": 0.1}))
    return fit(
        method,
        optimizer,
        data,
        corrupt_labels(TARGETS, rate=0.2, seed=noise_seed),
        data,
        epochs=epochs,
        checkpoint=checkpoint,
        scheduler=None if scheduler is None else scheduler(optimizer),
        **{"batch_size": 8, "seed": 0, **options},
    )


def sam(**options):
    return {"make": lambda model: SAM(model, nn.CrossEntropyLoss(), **{"rho": 0.05, **options})}


def plain(loss_fn):
    return {"make": lambda model: Plain(model, loss_fn)}


def ncsam(seed):
    return {
        "make": lambda model: NCSAM(
            model, nn.CrossEntropyLoss(), rho=0.05, flip_ratio=0.4, strength=0.1, warmup=0.0, seed=seed
        )
    }


def pes(first):
    return {"make": lambda model: PES(model, nn.CrossEntropyLoss(), first=first, second=0, third=0, latter=1)}


def passes(**options):
    def make(model):
        method = SAM(model, nn.CrossEntropyLoss(), rho=0.05)
        for name, value in options.items():
            setattr(method.passes, name, value)
        return method

    return {"make": make}


def in_groups(*sizes):
    """SGD over the four tensors of the network, in groups."""

    def make(weights, **options):
        weights = list(weights)
        return torch.optim.SGD(
            [{"params": [weights.pop() for _ in range(size)]} for size in sizes], **options
        )

    return {"optimizer": make}


def backward(weights, **options):
    return torch.optim.SGD(list(weights)[::-1], **options)


def constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5)


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
