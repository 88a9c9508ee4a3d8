"""A copy of a model in which tensors share memory as in the model itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.tensor_copies import TensorsCopiedBy, constant_of_computed
from landscape.model.deep_copies import deep_copy


def copy_with_shared_memory(model: nn.Module) -> nn.Module:
    """A deep copy in which a change of a weight moves all that shares its memory, as in the model itself.

    `copy.deepcopy` gives each parameter memory of its own, so that views of it, such as a buffer made of
    `weight.data`, stay behind. Tensors computed from weights are constants in the copy.

    Raises:
        RuntimeError, TypeError, NotImplementedError: the model cannot be copied.
    """
    copies: dict[int, torch.UntypedStorage] = {}
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(_of_copied_memory(parameter.data, copies), parameter.requires_grad)
        for parameter in model.parameters()
        if type(parameter) is nn.Parameter and _is_plain(parameter)
    }

    def shared(tensor: Tensor) -> Tensor | None:
        if type(tensor) is Tensor and _is_plain(tensor):
            copied = _of_copied_memory(tensor.detach(), copies)
            return copied.requires_grad_(tensor.is_leaf and tensor.requires_grad)
        return constant_of_computed(tensor)

    with TensorsCopiedBy(shared):
        return deep_copy("model", model, memo)


def _is_plain(tensor: Tensor) -> bool:
    """Whether place, shape and strides in a memory say all about a tensor."""
    has_memory = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    return has_memory and not tensor.is_conj() and not tensor.is_neg()


def _of_copied_memory(tensor: Tensor, copies: dict[int, torch.UntypedStorage]) -> Tensor:
    memory = tensor.untyped_storage()
    if memory._cdata not in copies:
        copies[memory._cdata] = memory.clone()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(copies[memory._cdata], tensor.storage_offset(), tensor.shape, tensor.stride())
