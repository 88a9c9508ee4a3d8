"""Which modules train, and which the caller left in evaluation mode, as a frozen BatchNorm."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def left_in_evaluation_mode(networks: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """The modules in evaluation mode within networks in training mode, as after `network.train()` and `norm.eval()`.

    A network that is in evaluation mode as a whole, as a pretrained one comes, has none: it is trained as a whole.
    """
    return tuple(module for _, module in _resting(networks))


def warn_of_trained_parts(networks: Iterable[nn.Module]) -> None:
    """Warns of weights that are trained in evaluation mode, as those of a pretrained part in the caller's module."""
    for name, module in _resting(networks):
        if not any(weight.requires_grad for weight in module.parameters()):
            continue
        warnings.warn(
            f"model: {name!r} is in evaluation mode within a model in training mode, and stays in it, though its "
            "weights are trained: no dropout, and BatchNorm keeps its statistics; call model.train() before fit if "
            "that is not meant, or freeze the weights with requires_grad_(False)",
            stacklevel=3,
        )
        return


def _resting(networks: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [
        (name, module)
        for root in map(without_wrapper, networks)
        if root.training
        for name, module in root.named_modules()
        if not module.training
    ]


def set_modes(networks: Iterable[nn.Module], resting: Iterable[nn.Module]) -> None:
    """Puts networks into training mode, but for the modules that rest in evaluation mode."""
    for network in networks:
        network.train()
    for module in resting:
        # its parts have modes of their own
        module.training = False


@contextmanager
def in_evaluation_mode(network: nn.Module) -> Iterator[None]:
    """A block in which a network is in evaluation mode; each of its modules has its former mode afterward."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def without_wrapper(network: nn.Module) -> nn.Module:
    """The module itself: a wrapper is made in training mode, whatever the mode of its module."""
    if isinstance(network, DistributedDataParallel | DataParallel):
        return without_wrapper(network.module)
    compiled = getattr(network, "_orig_mod", None)
    return network if compiled is None else without_wrapper(compiled)
