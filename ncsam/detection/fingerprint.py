"""A digest of everything that decides a training, by which a checkpoint of another training is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ncsam.datasets import Split
from ncsam.methods.method import Method
from ncsam.tensor_bytes import tensor_bytes

PLAIN = (bool, int, float, str, torch.dtype, torch.device, type(None))


def training_fingerprint(
    method: Method, optimizer: torch.optim.Optimizer, train: Split, observed: Tensor, *others: object
) -> str:
    """A digest of data, labels, initial weights, method, loss and optimizer, each with its options.

    Take the digest before the training, because it covers the current weights.

    Args:
        method: its options, its loss, its networks with all weights, and its random state count.
        optimizer: its kind and its options count.
        train: inputs and their normalization count.
        observed: int64 (n,), labels.
        others: other values that decide the training, such as seeds. Different values need a different `repr`.
    """
    states = [network.state_dict() for network in method.networks()]
    if isinstance(method.loss_fn, nn.Module):
        states.append(method.loss_fn.state_dict())
    settings = [_settings(part) for part in (method, method.passes, method.loss_fn)]
    inputs = [train.pixels, train.mean, train.std]
    return _digest(
        tree_leaves([inputs, observed, states, method.state_dict(), settings, repr(optimizer), others])
    )


def _settings(part: object) -> list[object]:
    """The name of a function, or the name of a class and the attributes of an object of it."""
    if isinstance(part, partial):
        return [*_settings(part.func), part.args, sorted(part.keywords.items())]
    named: list[object] = [getattr(part, "__qualname__", type(part).__qualname__)]
    for name, value in sorted(getattr(part, "__dict__", {}).items()):
        if name == "arguments":
            # they are attributes under their own names too, by which checkpoints of earlier versions are known
            continue
        known = isinstance(value, (*PLAIN, Tensor))
        named += [name, value if known else getattr(value, "__qualname__", type(value).__qualname__)]
    return named


def _digest(leaves: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            digest.update(repr((leaf.shape, leaf.dtype)).encode())
            digest.update(tensor_bytes(leaf))
        else:
            digest.update(repr(leaf).encode())
        digest.update(b"\0")
    return digest.hexdigest()
