"""The state that a forward pass leaves in a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.loss.batches import dense_parts

STRUCTURE = frozenset({"_parameters", "_modules", "_buffers", "training"})
"""Attributes that every module has. They are compared elsewhere, or no forward pass changes them."""

ROUNDING = 20
"""On a CPU the outputs of two equal passes may differ by this many units in the last place."""

MOVED = 1.25
"""Distance of the other weights from the model's own, relative to these."""


@dataclass(frozen=True)
class KeptState:
    """Attributes and buffers of all modules, as they were before the first pass.

    Attributes:
        attributes: for each module, values by name, each with a copy if it is a dict, list or set.
        buffers: for each module, tensors by name, with a copy of each.
    """

    attributes: tuple[tuple[nn.Module, dict[str, tuple[Any, Any]]], ...]
    buffers: tuple[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]], ...]

    @classmethod
    def of(cls, model: nn.Module) -> KeptState:
        """The current state of a model."""
        modules = list(model.modules())
        attributes = tuple(
            (module, {name: (value, _copied(value)) for name, value in _attributes(module).items()})
            for module in modules
        )
        buffers = tuple(
            (
                module,
                {name: (each, each.clone()) for name, each in module._buffers.items() if each is not None},
            )
            for module in modules
        )
        return cls(attributes, buffers)

    def changed(self) -> list[str]:
        """Names of the attributes and buffers that have changed."""
        found = []
        for module, before in self.attributes:
            found += [
                name
                for name, value in _attributes(module).items()
                if name not in before or before[name][0] is not value or not _is_same(value, before[name][1])
            ]
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                now_there = module._buffers.get(name)
                if now_there is not buffer or not _same(buffer, value):
                    found.append(name)
        return list(dict.fromkeys(found))

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the attributes and buffers, and removes new ones."""
        for module, before in self.attributes:
            for name in [name for name in vars(module) if name not in STRUCTURE and name not in before]:
                del vars(module)[name]
            for name, (value, copy) in before.items():
                vars(module)[name] = value
                _put_back(value, copy)
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                module._buffers[name] = buffer
                buffer.copy_(value)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in STRUCTURE}


def _copied(value: Any) -> Any:
    """A copy of dicts, lists and sets (hooks, caches) that holds the same objects; other values as they are."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return set(value) if isinstance(value, set) else value


def _is_same(value: Any, copy: Any) -> bool:
    """Whether a value still holds the objects of its copy."""
    if isinstance(value, dict) and isinstance(copy, dict):
        return value.keys() == copy.keys() and all(_is_same(value[key], copy[key]) for key in copy)
    if isinstance(value, list) and isinstance(copy, list):
        return len(value) == len(copy) and all(map(_is_same, value, copy))
    return value == copy if isinstance(value, set) and isinstance(copy, set) else value is copy


def _put_back(value: Any, copy: Any) -> None:
    """Makes a dict, list or set hold the objects of its copy again."""
    if _is_same(value, copy):
        return
    if isinstance(value, dict):
        value.clear()
        value.update(copy)
    elif isinstance(value, list):
        value[:] = copy
    elif isinstance(value, set):
        value.clear()
        value.update(copy)


def check_that_passes_keep_nothing(
    outputs_of: Callable[[Tensor], object], theta: Tensor, state: KeptState
) -> None:
    """Checks that outputs do not depend on earlier passes.

    A model may keep values that depend on its weights, such as a product of two weights, or running statistics that
    also move in evaluation mode. Kept masks and positions do no harm.

    Args:
        outputs_of: runs the model with weights (n,). The model has run before.
        theta: the model's own weights (n,).
        state: the model's state before its first pass.

    Raises:
        ValueError: outputs depend on kept state. The message names the state.
    """
    kept = state.changed()
    if not kept:
        return
    after_others = outputs_of(MOVED * theta)
    # the state that this pass leaves is made outside of inference mode, so that it can be differentiated
    state.restore()
    alone = outputs_of(MOVED * theta)
    if not _agree(after_others, alone):
        raise ValueError(
            f"model: its outputs depend on the passes before, of which it keeps {', '.join(map(repr, kept[:5]))}, "
            "and so would every number; compute this anew in each pass, and move statistics in training only "
            "(if self.training:)"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one form hold the same values; NaN equals NaN."""
    parts = [dense_parts(each) for each in (one, other)]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*parts, strict=True))


def _agree(one: object, other: object) -> bool:
    pairs = [
        (a, b)
        for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True)
        if isinstance(a, Tensor) and a.is_floating_point()
    ]
    for a, b in pairs:
        allowed = ROUNDING * torch.finfo(a.dtype).eps if a.device.type == "cpu" else 1e-4
        largest = float(b.detach().double().abs().nan_to_num(0, 0, 0).amax()) if b.numel() else 0.0
        if not torch.allclose(a.double(), b.double(), rtol=0, atol=allowed * largest, equal_nan=True):
            return False
    return True
