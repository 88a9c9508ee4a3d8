"""Plain formulas for operations whose second derivatives torch lacks or gets wrong, or that it cannot trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from landscape.fx.threads import HeldSetting


@contextmanager
def as_if_compiled() -> Iterator[None]:
    """Inside the block models believe that they are compiled. Those of transformers then do not branch on values.

    Use it only while `TRACING` is held, because the flag belongs to the whole process.
    """
    compiler: Any = torch.compiler
    before, compiler._is_compiling_flag = compiler._is_compiling_flag, True
    try:
        yield
    finally:
        compiler._is_compiling_flag = before


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside the block plain formulas replace operations whose second derivatives torch lacks or gets wrong.

    torch has no second derivatives of fused attention. Its second derivatives of weight norm are wrong, and so are
    those of an embedding's padding row: forward mode moves the row, and reverse mode does not.
    """
    plain: dict[Callable[..., Any], Callable[..., Any]] = {
        torch._weight_norm: _weight_norm,
        torch.nn.functional.embedding: _embedding,
        torch.nn.functional.embedding_bag: _embedding_bag,
        torch.nn.functional.hardsigmoid: _hardsigmoid,
    }
    with _PLAIN_ATTENTION.held(), _Instead(plain):
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


_PLAIN_ATTENTION = HeldSetting(_plain_attention)


def without_cudnn_norms() -> TorchFunctionMode:
    """Inside the block a GPU runs BatchNorm as the CPU does, by the operation that `fold_batch_norm` recognizes."""
    return _Instead({torch.nn.functional.batch_norm: _batch_norm})


def without_checks_of_values() -> TorchFunctionMode:
    """Inside the block operations do not check the values of their arguments, because a trace has no values."""
    return _Instead({torch.nn.functional.one_hot: _one_hot})


class _Instead(TorchFunctionMode):
    """Replaces some functions of torch by others."""

    def __init__(self, replacements: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """v g / ||v||. The derivative of torch's own backward treats ||v|| as a constant, which is wrong."""
    if dim == -1:
        return v * (g / torch.linalg.vector_norm(v))
    others = [axis for axis in range(v.ndim) if axis != dim % v.ndim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=True))


def _batch_norm(
    inputs: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    return torch.native_batch_norm(inputs, weight, bias, mean, variance, training, momentum, eps)[0]


def _embedding(
    rows: Tensor, weight: Tensor, padding_idx: int | None = None, *others: Any, **more: Any
) -> Tensor:
    """An embedding whose padding row is a constant."""
    if padding_idx is not None:
        is_padding = torch.arange(len(weight), device=weight.device) == padding_idx % len(weight)
        weight = torch.where(is_padding.unsqueeze(1), weight.detach(), weight)
    return torch.nn.functional.embedding(rows, weight, None, *others, **more)


def _embedding_bag(
    rows: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of each bag's rows, from operations that torch differentiates twice."""
    del max_norm, norm_type, scale_grad_by_freq, sparse
    if offsets is None:
        bags, count = torch.arange(len(rows), device=rows.device).repeat_interleave(rows.shape[1]), len(rows)
    else:
        count = len(offsets) - include_last_offset
        places = torch.arange(len(rows), device=rows.device)
        bags = torch.searchsorted(offsets[:count].contiguous(), places, right=True) - 1
    rows = rows.flatten()
    counted = torch.ones_like(rows, dtype=torch.bool)
    if padding_idx is not None:
        counted = rows != padding_idx % len(weight)
    values = torch.nn.functional.embedding(rows, weight)
    if per_sample_weights is not None:
        values = values * per_sample_weights.flatten().unsqueeze(1)
    empty = values.new_zeros(count, weight.shape[1])
    if mode == "max":
        lowest = values.masked_fill(~counted.unsqueeze(1), -torch.inf)
        index = bags.unsqueeze(1).expand_as(values)
        largest = empty.scatter_reduce(0, index, lowest, "amax", include_self=False)
        return torch.where(largest.isinf(), 0.0, largest)
    sums = empty.index_add(0, bags, values * counted.unsqueeze(1))
    if mode == "sum":
        return sums
    sizes = values.new_zeros(count).index_add(0, bags, counted.to(values))
    return sums / sizes.clamp(min=1).unsqueeze(1)


def _hardsigmoid(values: Tensor, inplace: bool = False) -> Tensor:
    """The same function from operations that torch differentiates twice."""
    gate = torch.nn.functional.relu6(values + 3) / 6
    return values.copy_(gate) if inplace else gate


def _one_hot(classes: Tensor, num_classes: int = -1) -> Tensor:
    """One-hot vectors without torch's check of the values, which a trace cannot make."""
    if num_classes < 1:
        return torch.nn.functional.one_hot(classes, num_classes)
    return (classes.unsqueeze(-1) == torch.arange(num_classes, device=classes.device)).long()
