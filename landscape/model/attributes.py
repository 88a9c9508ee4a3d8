"""What layers hold besides parameters and buffers: taken over from a model in training into a copy of it."""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"forward"}
"""Attributes that torch gives to every module, and the method that some tools replace."""

CONSTANT = (
    *(type(None), bool, int, float, complex, str, bytes, enum.Enum, np.generic, type, BuiltinFunctionType),
    torch.Size,
)
"""Types of values that no one changes in place, so that both models can hold them."""

OF_THE_COPY = (torch.device, torch.dtype)
"""Types of values in which the copy may differ from the model in training, because it may lie elsewhere."""

STAYS = object()
"""Stands for a value that is not followed, and that the copy lacks."""


@dataclass(frozen=True)
class TakenOver:
    """Gives the layers of a copy what those of a model in training hold now, such as an annealed temperature.

    Followed are numbers, words, tensors, NumPy arrays and functions that hold nothing; lists, tuples, sets and dicts of
    them; and the attributes of other objects that are of one class in both. What else the copy holds, it keeps, such as
    parameters, modules and references to a trainer.

    Attributes:
        device: of the copy.
        done: what containers and objects became, by their identity. Layers may share them.
    """

    device: torch.device
    done: dict[int, Any] = field(default_factory=dict)

    def into(self, own: nn.Module, other: nn.Module) -> None:
        """Takes over what one layer holds."""
        self._attributes(own, other, OF_EVERY_MODULE)

    def _attributes(self, own: Any, other: Any, without: frozenset[str] = frozenset()) -> None:
        for key, value in vars(other).items():
            found = STAYS if key in without else self._followed(vars(own).get(key, STAYS), value)
            if found is not STAYS:
                vars(own)[key] = found

    def _followed(self, own: Any, other: Any) -> Any:
        """The other value, of which nothing that can change is shared; the copy's own where that stays."""
        if isinstance(other, OF_THE_COPY):
            return own if isinstance(own, type(other)) else other
        if isinstance(other, CONSTANT):
            return other
        if isinstance(other, Tensor):
            return own if isinstance(other, nn.Parameter) else self._tensor(own, other)
        if isinstance(other, np.ndarray):
            return other.copy()
        if isinstance(other, FunctionType):
            return own if other.__closure__ or other.__defaults__ or other.__kwdefaults__ else other
        if isinstance(other, nn.Module | MethodType):
            return own
        if id(other) not in self.done:
            self.done[id(other)] = own
            if isinstance(other, list | tuple | set | frozenset | dict):
                self.done[id(other)] = self._container(own, other)
            elif type(own) is type(other) and own is not other and hasattr(other, "__dict__"):
                self._attributes(own, other)
        return self.done[id(other)]

    def _tensor(self, own: Any, other: Tensor) -> Tensor:
        """The copy's own tensor if it is the same; else a copy, in the dtype of the copy's own as buffers are."""
        other, device = other.detach(), other.device if other.device.type == "cpu" else self.device
        if not isinstance(own, Tensor):
            return other.to(device, copy=True)
        both_float = own.is_floating_point() and other.is_floating_point()
        found = other.to(own.device, own.dtype if both_float else other.dtype)
        if (
            found.dtype == own.dtype
            and found.layout == own.layout == torch.strided
            and torch.equal(found, own)
        ):
            return own
        return found.clone()

    def _container(self, own: Any, other: Any) -> Any:
        """A container of the followed values; the copy's own container if a value of it cannot be followed."""
        if isinstance(other, dict):
            before = own if isinstance(own, dict) else {}
            values = {key: self._followed(before.get(key, STAYS), value) for key, value in other.items()}
            if any(value is STAYS for value in values.values()):
                return own
            found = copy.copy(other)
            found.update(values)
            return found
        held = list(other)
        mine = list(own) if type(own) is type(other) and len(own) == len(held) else [STAYS] * len(held)
        items = [self._followed(one, two) for one, two in zip(mine, held, strict=True)]
        if any(item is STAYS for item in items):
            return own
        return type(other)(*items) if hasattr(other, "_fields") else type(other)(items)
