"""What `copy.deepcopy` makes of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class TensorsCopiedBy(TorchFunctionMode):
    """Within, `copy.deepcopy` puts `made(tensor)` in the place of each tensor; None leaves the tensor to torch."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self._made = made

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) in memo:
                return memo[id(tensor)]
            if (found := self._made(tensor)) is not None:
                return found
        return func(*args, **(kwargs or {}))


def constant_of_computed(tensor: Tensor) -> Tensor | None:
    """A tensor that was computed from others as a constant, which torch refuses to copy; None for others."""
    return None if tensor.is_leaf else tensor.detach().clone()
