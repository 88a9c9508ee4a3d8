"""The chosen parameters of a model as one vector, and the norms of its filters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from landscape.model.copies import unwrapped
from landscape.model.fully_sharded import keeps_no_gathered_weights, own_part
from landscape.model.given_vectors import check_that_it_is_real, tensor_of
from landscape.model.long_vectors import lengths

Weights = Tensor | Iterable[Tensor] | Mapping[str, Tensor] | nn.Module
"""One vector (n,), tensors in the order of the parameters, tensors by name, or a model; NumPy arrays as tensors."""


@dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of the chosen parameters, in the order in which the vector holds them."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @staticmethod
    def chosen(model: nn.Module, names: Iterable[str], is_chosen: Callable[[str], bool] | None) -> list[str]:
        """Those of the names whose parameter is chosen, by any of its names: modules may share one parameter.

        Warns:
            UserWarning: a shared parameter is chosen by a name that is not the one in the layout.
        """
        if is_chosen is None:
            return list(names)
        known: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            known.setdefault(id(parameter), []).append(name)
        chosen = []
        for name in names:
            shared = known[id(model.get_parameter(name))]
            asked = [is_chosen(each) for each in shared]
            if any(asked):
                chosen.append(name)
            # the first name is the one in the layout: a caller who chooses it needs no warning
            if any(asked) and not asked[0]:
                warnings.warn(
                    f"parameters: {' and '.join(map(repr, shared))} are one parameter, which is a variable because it "
                    f"is chosen by {shared[asked.index(True)]!r}; choose all of its names, or none",
                    stacklevel=2,
                )
        return chosen

    @cached_property
    def sizes(self) -> list[int]:
        """Entries of each parameter."""
        return [shape.numel() for shape in self.shapes]

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (n,) as tensors by parameter name; views, not copies."""
        parts = vector.split(self.sizes)
        return {name: part.view(s) for name, part, s in zip(self.names, parts, self.shapes, strict=True)}

    def variables(self, vector: Tensor) -> dict[str, Tensor]:
        """The same as leaves that require a gradient each."""
        return {name: part.detach().requires_grad_() for name, part in self.unflatten(vector).items()}

    def flatten(self, weights: Weights, like: Tensor) -> Tensor:
        """Weights in any form as one vector with the length, dtype and device of `like`.

        Raises:
            TypeError: neither numbers nor a model, such as a file name.
            ValueError: tensors are missing, or have other sizes.
        """
        if isinstance(weights, str | PurePath):
            raise TypeError(
                f"weights: must be tensors, got the name {str(weights)!r}; load the file first (torch.load)"
            )
        if isinstance(weights, np.ndarray):
            weights = tensor_of(weights)
        if isinstance(weights, nn.Module):
            weights = dict(unwrapped(weights).named_parameters())
        if isinstance(weights, Mapping):
            missing = [name for name in self.names if name not in weights]
            if missing:
                raise ValueError(f"weights: no {missing[0]!r} among them")
            weights = [weights[name] for name in self.names]
        if not isinstance(weights, Tensor):
            parts = [own_part(tensor_of(part)) for part in weights]
            shapes = [part.shape for part in parts]
            if shapes != list(self.shapes):
                raise ValueError(
                    f"weights: must be tensors of the shapes {list(map(tuple, self.shapes))}, got "
                    f"{list(map(tuple, shapes))}"
                )
            for part in parts:
                check_that_it_is_real("weights", part, like)
            weights = torch.cat([part.detach().flatten().to(like) for part in parts])
        check_that_it_is_real("weights", weights, like)
        if weights.shape != like.shape:
            raise ValueError(f"weights: must be ({len(like)},), got {tuple(weights.shape)}")
        return weights.detach().to(like)


T = TypeVar("T")


class _Lent(nn.Module):
    """A module that calls a function with a model, so that `functional_call` puts other weights there meanwhile."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, use: Callable[[nn.Module], T]) -> T:
        return use(self.model)


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], use: Callable[[nn.Module], T]) -> T:
    """`use(model)`, while `weights` stand in place of the model's own parameters and buffers of these names.

    A derivative that is taken within `use` is right for activation checkpointing too, which runs parts of the model
    again in the backward pass.
    """
    with keeps_no_gathered_weights(model), _nothing_cached():
        placed = {f"model.{name}": aligned(tensor) for name, tensor in at_every_place(model, weights).items()}
        # torch puts weights back wrongly where a module has two names, if it looks for the places itself
        result: T = functional_call(_Lent(model), placed, (use,), tie_weights=False)
    return result


def at_every_place(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names of all places that hold these parameters and buffers, each place by one name.

    A tensor that two modules share has two places. A module that has two names has its places once.
    """
    held = {
        f"{path}.{name}" if path else name: tensor
        for path, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }
    given = {id(held[name]): tensor for name, tensor in weights.items() if name in held}
    shared = {name: given[id(tensor)] for name, tensor in held.items() if id(tensor) in given}
    return {**shared, **weights}


def aligned(part: Tensor) -> Tensor:
    """A part of a vector; a copy where it holds pairs at an odd place, where `torch.view_as_complex` takes none.

    The copy is a product with 1, because derivatives of the copy must be copies too.
    """
    return part * 1 if part.ndim and part.shape[-1] == 2 and part.storage_offset() % 2 else part


@contextmanager
def _nothing_cached() -> Iterator[None]:
    """Inside the block `parametrize.cached()` of the caller is off, because it keeps what other weights gave."""
    if not parametrize._cache_enabled:
        yield
        return
    kept = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = kept


def outputs_at(
    model: nn.Module,
    layout: ParameterLayout,
    run: Callable[[nn.Module, Any], Any],
    theta: Tensor,
    inputs: Any,
    buffers: Mapping[str, Tensor] | None = None,
) -> Any:
    """`run(model, inputs)`, while `theta`, and other buffers if given, stand in place of the model's own."""
    return with_weights(
        model, {**layout.unflatten(theta), **(buffers or {})}, lambda model: run(model, inputs)
    )


def share_memory(model: nn.Module, layout: ParameterLayout, theta: Tensor) -> None:
    """Makes the parameters views of `theta`, which holds the same values, so that these are held once."""
    for name, part in layout.unflatten(theta).items():
        parameter = model.get_parameter(name)
        # those made in inference mode cannot be moved, and pairs must stay such as `torch.view_as_complex` takes them
        if not parameter.is_inference() and aligned(part) is part:
            parameter.data = part


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name. `state_dict` leaves out the buffers that are not persistent."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def filter_norms(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """The norms of the output filters or rows of one weight tensor, in a shape that broadcasts to the tensor's.

    The outputs lie along the first axis. A transposed convolution is another case: its weights are (inputs, outputs of
    a group, ...), so the outputs lie along the second axis, in each group of inputs. The torch module that holds the
    tensor tells the case. It holds the tensors from which its weights are computed, too (`parametrizations`).
    """
    # "layer.parametrizations.weight.original0", or without a layer before it
    before, is_computed, _ = f".{name}".partition(".parametrizations.")
    owner = model.get_submodule((before if is_computed else before.rpartition(".")[0]).lstrip("."))
    is_transposed = isinstance(owner, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    if not is_transposed or tensor.ndim < 3 or len(tensor) != owner.in_channels:
        return lengths(tensor.flatten(1), 1).view(-1, *[1] * (tensor.ndim - 1))
    groups = tensor.unflatten(0, (owner.groups, -1))
    norms = lengths(groups, [1, *range(3, groups.ndim)])
    return norms.expand(-1, groups.shape[1], *[-1] * (groups.ndim - 2)).flatten(0, 1)
