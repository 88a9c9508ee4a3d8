"""The state that a forward pass leaves in a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.data.batches import dense_parts
from landscape.data.complex_numbers import as_real, is_whole

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
        attributes: for each module, values by name; dicts, lists and sets as `_Container`.
        buffers: for each module, tensors by name, with a copy of each.
    """

    attributes: tuple[tuple[nn.Module, dict[str, Any]], ...]
    buffers: tuple[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]], ...]

    @classmethod
    def of(cls, model: nn.Module) -> KeptState:
        """The current state of a model."""
        modules = list(model.modules())
        attributes = tuple(
            (module, {name: _kept(value, set()) for name, value in _attributes(module).items()})
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
                if name not in before or not _is_same(value, before[name])
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
            for name, kept_value in before.items():
                vars(module)[name] = _put_back(kept_value)
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                module._buffers[name] = buffer
                buffer.copy_(value)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in STRUCTURE}


@dataclass(frozen=True)
class _Container:
    """A dict, list or set (hooks, caches), and what it held: containers in the same form, other objects as they are."""

    original: Any
    held: Any


def _kept(value: Any, seen: set[int]) -> Any:
    """A container with all that it holds. One that was seen already, such as one that holds itself, stands as it is."""
    if not isinstance(value, dict | list | set) or id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, dict):
        return _Container(value, {key: _kept(each, seen) for key, each in value.items()})
    if isinstance(value, list):
        return _Container(value, [_kept(each, seen) for each in value])
    return _Container(value, set(value))


def _is_same(value: Any, kept: Any) -> bool:
    """Whether a value is the object that was kept, and still holds the same objects."""
    if not isinstance(kept, _Container):
        return value is kept
    if value is not kept.original:
        return False
    held = kept.held
    if isinstance(held, dict):
        return value.keys() == held.keys() and all(_is_same(value[key], held[key]) for key in held)
    if isinstance(held, list):
        return len(value) == len(held) and all(map(_is_same, value, held))
    return bool(value == held)


def _put_back(kept: Any) -> Any:
    """The object that was kept, which holds the same objects again."""
    if not isinstance(kept, _Container):
        return kept
    original, held = kept.original, kept.held
    if isinstance(held, dict):
        held = {key: _put_back(each) for key, each in held.items()}
    elif isinstance(held, list):
        held = [_put_back(each) for each in held]
    if not _is_same(original, kept):
        if isinstance(original, list):
            original[:] = held
        else:
            original.clear()
            original.update(held)
    return original


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
        if isinstance(a, Tensor) and not is_whole(a)
    ]
    for a, b in ((as_real(a), as_real(b)) for a, b in pairs):
        allowed = ROUNDING * torch.finfo(a.dtype).eps if a.device.type == "cpu" else 1e-4
        largest = float(b.detach().double().abs().nan_to_num(0, 0, 0).amax()) if b.numel() else 0.0
        if not torch.allclose(a.double(), b.double(), rtol=0, atol=allowed * largest, equal_nan=True):
            return False
    return True
