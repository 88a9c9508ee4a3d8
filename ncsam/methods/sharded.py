"""Models under FSDP2 (`torch.distributed.fsdp.fully_shard`): each rank holds a part of every weight, as a DTensor.

Gradients and perturbations are lists of DTensors too. Torch's arithmetic on these is that of the whole tensors, so that
the methods need not know. Three things differ: FSDP gives gradients to `.grad` alone, a number may be a part of a sum,
and a forward pass may leave whole weights behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor, nn


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 shards the model, or a part of it."""
    # the import takes a second, which a model that lies whole in one process need not wait for
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def reshard(model: nn.Module) -> None:
    """Puts the sharded weights in the place of whole ones, which FSDP keeps after a forward pass."""
    if not is_sharded(model):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(number: Tensor) -> Tensor:
    """A number, summed over the ranks where each holds a part of the sum; the same plain tensor on all ranks."""
    if not dist.is_available() or not dist.is_initialized():
        return number
    from torch.distributed.tensor import DTensor

    return number.full_tensor() if isinstance(number, DTensor) else number


def gradients_by_backward(
    loss: Tensor, parameters: list[nn.Parameter], *, retain_graph: bool
) -> list[Tensor | None]:
    """The gradient of `loss`, averaged over the ranks; None for parameters that it does not reach.

    FSDP reduces gradients on their way to `.grad`. `torch.autograd.grad` would find none. `.grad` is as before.
    """
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        loss.backward(retain_graph=retain_graph)
        return [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def own_parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This rank's part of each tensor, which shares its memory; the tensor itself where it lies whole."""
    if not dist.is_available() or not dist.is_initialized():
        return list(tensors)
    from torch.distributed.tensor import DTensor

    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
