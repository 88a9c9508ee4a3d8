"""What moves in a training and is in no `state_dict`: attributes of modules and losses, and their generators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.method import Method

NUMBERS = (bool, int, float, complex, str, type(None), np.generic)
OF_TORCH = ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class HiddenState:
    """What the networks and the loss of a method held at the beginning of a training beside their `state_dict`.

    It is looked for among the attributes of modules, and of a loss that is an object of another type: numbers, words,
    tensors, buffers that are not persistent, and generators of torch. Attributes of other types cannot be kept.

    Attributes:
        method: of the training.
        begun: name of each such value -> what tells whether it has moved.
    """

    method: Method
    begun: dict[str, Any]

    @classmethod
    def of(cls, method: Method) -> HiddenState:
        """What there is now."""
        return cls(method, {name: _mark(table[key]) for name, table, key in _attributes(method)})

    def state_dict(self) -> dict[str, Any]:
        """Name -> value, for all that has moved since the beginning.

        Warns:
            UserWarning: something moved that cannot be kept, so that a resumed training may be another one.
        """
        moved: dict[str, Any] = {}
        for name, table, key in _attributes(self.method):
            value = table[key]
            if name in self.begun and self.begun[name] == _mark(value):
                continue
            if isinstance(value, NUMBERS):
                moved[name] = value
            elif isinstance(value, torch.Generator):
                moved[name] = value.get_state()
            elif isinstance(value, Tensor):
                moved[name] = value.detach().clone()
            elif isinstance(self.begun.get(name), int):
                warnings.warn(
                    f"checkpoint: {name}, a {type(value).__name__}, changes in training and is in no state_dict, so "
                    "that a resumed training may differ; keep numbers in a buffer (register_buffer), or give the "
                    "module get_extra_state and set_extra_state",
                    stacklevel=5,
                )
        return moved

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the values in their places. Names that no longer exist are passed over."""
        for name, table, key in _attributes(self.method):
            if name not in state:
                continue
            held, value = table[key], state[name]
            if isinstance(held, torch.Generator):
                held.set_state(value.cpu())
            elif isinstance(held, Tensor) and isinstance(value, Tensor) and held.shape == value.shape:
                with torch.no_grad():
                    held.copy_(value)
            else:
                table[key] = value


def _attributes(method: Method) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The name of each attribute, the table that holds it, and its key there."""
    loss_fn = method.loss_fn
    owners = [
        ("model" if place == 0 else f"model {place}", each) for place, each in enumerate(method.networks())
    ]
    for owner, network in [*owners, *([("loss_fn", loss_fn)] if isinstance(loss_fn, nn.Module) else [])]:
        # a wrapper counts what belongs to its own process
        bare = network.module if isinstance(network, DistributedDataParallel) else network
        for path, module in getattr(bare, "_orig_mod", bare).named_modules():
            prefix = f"{owner}.{path}" if path else owner
            for key in vars(module):
                if key not in OF_TORCH and not (key.startswith("_") and "hooks" in key):
                    yield f"{prefix}.{key}", vars(module), key
            for key in module._non_persistent_buffers_set:
                yield f"{prefix}.{key}", module._buffers, key
    if not isinstance(loss_fn, nn.Module | FunctionType | MethodType | type) and hasattr(loss_fn, "__dict__"):
        for key in vars(loss_fn):
            yield f"loss_fn.{key}", vars(loss_fn), key


def _mark(value: Any) -> Any:
    """What differs once a value has moved; tensors are not copied for it."""
    if isinstance(value, NUMBERS):
        # as a word, in which NaN is equal to itself
        return type(value).__name__, repr(value)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, Tensor):
        return id(value), None if value.is_inference() else value._version
    return len(value) if isinstance(value, Sized) and not isinstance(value, nn.Module) else ...
