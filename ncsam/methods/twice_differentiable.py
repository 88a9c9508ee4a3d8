"""Forward passes that torch can differentiate twice, and refusals of those that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside the block plain formulas replace operations whose second derivatives torch lacks or gets wrong.

    The fast kernels of attention have none, and neither has `hardsigmoid`. Those of weight norm are wrong.
    """
    with sdpa_kernel(SDPBackend.MATH), _PlainFormulas():
        yield


@contextmanager
def refusing_what_has_no_second_derivative(method: str) -> Iterator[None]:
    """Inside the block errors of torch about second derivatives name the method and the remedy.

    Raises:
        ValueError: an operation of the model or the loss has no second derivative in torch.
    """
    try:
        yield
    except RuntimeError as error:
        if "not implemented" not in str(error) and "differentiate twice" not in str(error):
            raise
        raise ValueError(
            f"model: {method} differentiates it twice, and an operation of it has no second derivative in torch: "
            f"{error}; put a formula of plain operations in its place, such as nn.Embedding and a mean for "
            "nn.EmbeddingBag"
        ) from error


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """v g / ||v||. The derivative of torch's own backward treats ||v|| as a constant, which is wrong."""
    axes = None if dim == -1 else [axis for axis in range(v.ndim) if axis != dim % v.ndim]
    return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=axes is not None))


def _hardsigmoid(values: Tensor, inplace: bool = False) -> Tensor:
    gate = torch.nn.functional.relu6(values + 3) / 6
    return values.copy_(gate) if inplace else gate


PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    torch._weight_norm: _weight_norm,
    torch.nn.functional.hardsigmoid: _hardsigmoid,
}


class _PlainFormulas(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return PLAIN.get(func, func)(*args, **(kwargs or {}))
