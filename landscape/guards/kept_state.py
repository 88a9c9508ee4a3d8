"""The state that a forward pass leaves in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.data.complex_numbers import as_real, is_whole
from landscape.guards.kept_values import has_same_numbers, is_as_kept, kept_of, put_back
from landscape.guards.state_around import Table, attributes_of, tables_around

ROUNDING = 20
"""On a CPU the outputs of two equal passes may differ by this many units in the last place."""

MOVED = 1.25
"""Distance of the other weights from the model's own, relative to these."""


@dataclass(frozen=True)
class KeptState:
    """What modules and the functions around them held before the first pass.

    Attributes:
        modules: of the model.
        own: the tables of the attributes of modules, each with its values by name.
        around: the same of other tables, as `tables_around` finds them.
        buffers: for each module, tensors by name, with a copy of each.
    """

    modules: tuple[nn.Module, ...]
    own: tuple[tuple[Table, dict[str, Any]], ...]
    around: tuple[tuple[Table, dict[str, Any]], ...]
    buffers: tuple[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]], ...]

    @classmethod
    def of(cls, model: nn.Module, others: Iterable[Any] = ()) -> KeptState:
        """The current state of a model, and of losses and functions beside it."""
        modules = tuple(model.modules())
        buffers = tuple(
            (
                module,
                {name: (each, each.clone()) for name, each in module._buffers.items() if each is not None},
            )
            for module in modules
        )
        own, around = _held_in(map(attributes_of, modules)), _held_in(tables_around(model, others))
        return cls(modules, own, around, buffers)

    def changed(self) -> list[str]:
        """Names of all that has changed."""
        around = [name for each in self.around for name in _changed_in(*each)]
        return list(dict.fromkeys([*self.changed_in_model(), *around]))

    def changed_in_model(self) -> list[str]:
        """Names of the attributes and buffers of the model that have changed."""
        found = [name for each in self.own for name in _changed_in(*each)]
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                now_there = module._buffers.get(name)
                if now_there is not buffer or not has_same_numbers(buffer, value):
                    found.append(name)
        return list(dict.fromkeys(found))

    @torch.no_grad()
    def restore(self) -> None:
        """Restores all that has changed, and removes what is new."""
        for table, before in (*self.own, *self.around):
            for name in [name for name in table if name not in before]:
                del table[name]
            for name, kept in before.items():
                if name not in table or not is_as_kept(table[name], kept):
                    table[name] = put_back(kept)
        for module, kept_buffers in self.buffers:
            for name, (buffer, value) in kept_buffers.items():
                module._buffers[name] = buffer
                buffer.copy_(value)


def _held_in(tables: Iterable[Table]) -> tuple[tuple[Table, dict[str, Any]], ...]:
    return tuple((table, {name: kept_of(value, set()) for name, value in table.items()}) for table in tables)


def _changed_in(table: Table, before: dict[str, Any]) -> list[str]:
    new = [name for name, value in table.items() if name not in before or not is_as_kept(value, before[name])]
    return [*new, *(name for name in before if name not in table)]


def check_that_passes_keep_nothing(
    results_of: Callable[[Tensor], tuple[object, Tensor]], theta: Tensor, state: KeptState
) -> None:
    """Checks that outputs and losses do not depend on earlier passes.

    A model may keep values that depend on its weights, such as a product of two weights, or running statistics that
    also move in evaluation mode; a loss may keep the value of its first call. Kept masks and positions do no harm.

    Args:
        results_of: runs the model with weights (n,): outputs and loss. The model has run before.
        theta: the model's own weights (n,).
        state: what was held before the model's first pass.

    Raises:
        ValueError: outputs or losses depend on kept state. The message names the state.
    """
    kept = state.changed()
    if not kept:
        return
    after_others = results_of(MOVED * theta)
    # the state that this pass leaves is made outside of inference mode, so that it can be differentiated
    state.restore()
    alone = results_of(MOVED * theta)
    named = ", ".join(map(repr, kept[:5]))
    if not _agree(after_others[0], alone[0]):
        state.restore()
        raise ValueError(
            f"model: its outputs depend on the passes before, of which it keeps {named}, and so would every number; "
            "compute this anew in each pass, and move statistics in training only (if self.training:)"
        )
    if not _agree(after_others[1], alone[1]):
        state.restore()
        raise ValueError(
            f"loss_fn: its value depends on the calls before, of which it keeps {named}, and so would every number; "
            "compute this anew in each call, or compute it once before the Objective is made"
        )


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
