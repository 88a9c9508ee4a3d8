"""Which modules train, and which the caller left in evaluation mode, as a frozen BatchNorm."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def left_in_evaluation_mode(networks: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """The modules in evaluation mode within networks in training mode, as after `network.train()` and `norm.eval()`.

    A network that is in evaluation mode as a whole, as a pretrained one comes, has none: it is trained as a whole.
    """
    roots = map(_without_wrapper, networks)
    return tuple(
        module for root in roots if root.training for module in root.modules() if not module.training
    )


def set_modes(networks: Iterable[nn.Module], resting: Iterable[nn.Module]) -> None:
    """Puts networks into training mode, but for the modules that rest in evaluation mode."""
    for network in networks:
        network.train()
    for module in resting:
        # its parts have modes of their own
        module.training = False


def _without_wrapper(network: nn.Module) -> nn.Module:
    """The module itself: a wrapper is made in training mode, whatever the mode of its module."""
    if isinstance(network, DistributedDataParallel | DataParallel):
        return _without_wrapper(network.module)
    compiled = getattr(network, "_orig_mod", None)
    return network if compiled is None else _without_wrapper(compiled)
