"""What a forward pass keeps in the model for the passes after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

STRUCTURE = frozenset({"_parameters", "_modules", "_buffers", "training"})
"""Attributes of every module that are looked at elsewhere, or that no forward pass changes."""

ROUNDING = 20
"""Units in the last place, by which outputs of one pass and the next may differ on a CPU."""

MOVED = 1.25
"""Other weights than the model's own, relative to these."""


@dataclass(frozen=True)
class KeptState:
    """Attributes and buffers of all modules, as they were before the first pass.

    Attributes:
        attributes: of each module; values by name.
        buffers: of each module; tensors by name, and copies of them.
    """

    attributes: tuple[tuple[nn.Module, dict[str, Any]], ...]
    buffers: tuple[tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]], ...]

    @classmethod
    def of(cls, model: nn.Module) -> KeptState:
        """The state that a model has now."""
        modules = list(model.modules())
        attributes = tuple(
            (module, {name: value for name, value in vars(module).items() if name not in STRUCTURE})
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
        """Names of what has another value now."""
        found = []
        for module, before in self.attributes:
            now = {name: value for name, value in vars(module).items() if name not in STRUCTURE}
            found += [name for name, value in now.items() if name not in before or before[name] is not value]
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                now_there = module._buffers.get(name)
                if now_there is not buffer or not torch.equal(buffer.nan_to_num(), value.nan_to_num()):
                    found.append(name)
        return list(dict.fromkeys(found))

    @torch.no_grad()
    def restore(self) -> None:
        """Puts back what was there, and takes away what was not."""
        for module, before in self.attributes:
            for name in [name for name in vars(module) if name not in STRUCTURE and name not in before]:
                del vars(module)[name]
            vars(module).update(before)
        for module, kept in self.buffers:
            for name, (buffer, value) in kept.items():
                module._buffers[name] = buffer
                buffer.copy_(value)


def check_that_passes_keep_nothing(
    outputs_of: Callable[[Tensor], object], theta: Tensor, state: KeptState
) -> None:
    """Checks that outputs do not depend on the passes before.

    A model may keep what depends on its weights, such as a product of two of them, or running statistics that it also
    moves in evaluation mode. Kept masks and positions do no harm.

    Args:
        outputs_of: runs the model, which has run before, with weights (n,).
        theta: the model's own weights (n,).
        state: of the model before its first pass.

    Raises:
        ValueError: naming what is kept.
    """
    kept = state.changed()
    if not kept:
        return
    after_others = outputs_of(MOVED * theta)
    # what is kept from now on was made outside of inference mode, and so can be differentiated
    state.restore()
    alone = outputs_of(MOVED * theta)
    if not _agree(after_others, alone):
        raise ValueError(
            f"model: its outputs depend on the passes before, of which it keeps {', '.join(map(repr, kept[:5]))}, "
            "and so would every number; compute this anew in each pass, and move statistics in training only "
            "(if self.training:)"
        )


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
