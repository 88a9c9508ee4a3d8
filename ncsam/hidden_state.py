"""What moves in a training and is in no `state_dict`: attributes of modules and losses, and their generators."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ncsam.methods.method import Method
from ncsam.methods.rebound_names import Rebound, rebound_by, rebound_by_methods
from ncsam.methods.state import MOST_ENTRIES, OF_ALL_MODULES
from ncsam.training_modes import without_wrapper

NUMBERS = (bool, int, float, complex, str, type(None), np.generic)
OF_NAMES = " (names)"
CONTAINERS = (list, tuple, dict, set, deque)
"""Types of attributes that are not kept; a warning names one whose numbers or length changed."""


@dataclass(frozen=True)
class HiddenState:
    """What the networks and the loss of a method held at the beginning of a training beside their `state_dict`.

    It is looked for among the attributes of modules, and of a loss that is an object of another type: numbers, words,
    tensors, arrays, buffers that are not persistent, and generators of torch. Attributes of other types cannot be kept.
    So are names that methods of modules, or a loss that is a function, bind anew by `global` or `nonlocal`.

    Attributes:
        method: of the training.
        begun: (owner, attribute) -> what tells whether the value has moved.
    """

    method: Method
    begun: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, method: Method) -> HiddenState:
        """What there is now."""
        tables = _tables(method)
        return cls(method, {(owner, key): _mark(table[key]) for owner, table, keys in tables for key in keys})

    def state_dict(self) -> dict[str, dict[str, tuple[str, Any]]]:
        """Owner -> attribute -> kind and value, for all that has moved since the beginning.

        Warns:
            UserWarning: something moved that cannot be kept, so that a resumed training may be another one.
        """
        moved: dict[str, dict[str, tuple[str, Any]]] = {}
        for owner, table, keys in _tables(self.method):
            for key in keys:
                value, place = table[key], (owner, key)
                if place in self.begun and self.begun[place] == _mark(value):
                    continue
                kept = _kept(value)
                if kept is not None:
                    moved.setdefault(owner, {})[key] = kept
                elif place in self.begun and isinstance(value, CONTAINERS):
                    warnings.warn(
                        f"checkpoint: {owner}.{key}, a {type(value).__name__}, changes in training and is in no "
                        "state_dict, so that a resumed training may differ; keep numbers in a buffer "
                        "(register_buffer), or give the module get_extra_state and set_extra_state",
                        stacklevel=5,
                    )
        return moved

    def load_state_dict(self, state: dict[str, dict[str, tuple[str, Any]]]) -> None:
        """Puts the values in their places, also where an attribute is made by the first pass alone."""
        for owner, table, keys in _tables(self.method):
            for key, (kind, value) in state.get(owner, {}).items():
                # a file binds no other name than the code does
                if key in keys or not owner.endswith(OF_NAMES):
                    _put(table, key, kind, value)


def _tables(method: Method) -> Iterator[tuple[str, MutableMapping[str, Any], list[str]]]:
    """The name of each owner of attributes, the table that holds them, and those that may be state."""
    loss_fn = method.loss_fn
    networks = [
        ("model" if place == 0 else f"model {place}", each) for place, each in enumerate(method.networks())
    ]
    for owner, network in [*networks, *([("loss_fn", loss_fn)] if isinstance(loss_fn, nn.Module) else [])]:
        # a wrapper counts what belongs to its own process
        for path, module in without_wrapper(network).named_modules():
            name = f"{owner}.{path}" if path else owner
            yield name, vars(module), [key for key in vars(module) if key not in OF_ALL_MODULES]
            yield f"{name} (buffers)", module._buffers, list(module._non_persistent_buffers_set)
            yield from _names(name, rebound_by_methods(type(module)))
    if isinstance(loss_fn, FunctionType):
        yield from _names("loss_fn", rebound_by(loss_fn))
    if not isinstance(loss_fn, nn.Module | FunctionType | MethodType | type) and hasattr(loss_fn, "__dict__"):
        yield "loss_fn", vars(loss_fn), list(vars(loss_fn))


def _names(owner: str, rebound: Rebound) -> Iterator[tuple[str, MutableMapping[str, Any], list[str]]]:
    for table, names in rebound:
        yield f"{owner}{OF_NAMES}", table, [name for name in names if name in table]


def _mark(value: Any, *, within: bool = False) -> Any:
    """What differs once a value has moved. No tensor is copied for it, and of those within a list nothing is told."""
    if isinstance(value, NUMBERS):
        # as a word, in which NaN is equal to itself
        return type(value).__name__, repr(value)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.tobytes()
    if isinstance(value, Tensor):
        return ... if within else (id(value), None if value.is_inference() else value._version)
    if isinstance(value, CONTAINERS) and not within:
        parts = [*value, *(value.values() if isinstance(value, dict) else ())]
        return len(parts), [_mark(part, within=True) for part in parts[:MOST_ENTRIES]]
    return ...


def _kept(value: Any) -> tuple[str, Any] | None:
    """The kind of a value and what a file can hold of it; None if a file can hold nothing."""
    if isinstance(value, torch.Generator):
        return "generator", value.get_state()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return "array", value
    if isinstance(value, Tensor):
        return "tensor", value.detach().clone()
    return ("number", value) if isinstance(value, NUMBERS) else None


def _put(table: MutableMapping[str, Any], key: str, kind: str, value: Any) -> None:
    held = table.get(key)
    if kind == "generator":
        table[key] = held if isinstance(held, torch.Generator) else torch.Generator()
        table[key].set_state(value.cpu())
    elif kind == "array":
        table[key] = value.cpu().numpy()
    elif isinstance(held, Tensor) and isinstance(value, Tensor) and held.shape == value.shape:
        with torch.no_grad():
            held.copy_(value)
    else:
        table[key] = value
