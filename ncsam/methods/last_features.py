"""The inputs of the last linear layer that a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ncsam.methods.batches import Batch, piece_sizes, rows_of
from ncsam.methods.passes import Passes
from ncsam.random_state import borrowed_generators


class LastFeatures:
    """Notes the inputs of linear layers while `wanted` is set. Copies of the model have a copy of it.

    The layer that runs last need not be registered last, and a layer that is registered need not run.

    Args:
        model: a hook is registered at each of its linear layers, now, for a compiled model sees no later ones.

    Raises:
        ValueError: there is no linear layer.
    """

    def __init__(self, model: nn.Module) -> None:
        self.wanted = False
        self._of_passes: list[tuple[int, Tensor]] = []
        self._has_begun = False
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ValueError(
                "model: ClusterNCSAM clusters the inputs of the last linear layer, and there is none"
            )
        model.register_forward_pre_hook(_Begun(self))
        for place, layer in enumerate(layers):
            layer.register_forward_pre_hook(_Noted(self, place), with_kwargs=True)

    def begin(self) -> None:
        """A pass through the model begins."""
        self._has_begun = False

    def note(self, place: int, rows: Tensor) -> None:
        """Keeps the inputs of a layer in place of those of earlier layers of the same pass, so that one is held."""
        if self._has_begun:
            self._of_passes.pop()
        self._has_begun = True
        self._of_passes.append((place, rows))

    def forget(self) -> None:
        """Forgets the inputs of all passes."""
        self._of_passes.clear()
        self._has_begun = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the block inputs are noted; after it they are forgotten."""
        self.forget()
        self.wanted = True
        try:
            yield
        finally:
            self.wanted = False
            self.forget()

    def of_batch(self, passes: Passes, inputs: Batch, samples: int) -> Tensor:
        """The features (samples, ...) of the pass that was noted; of a further one, if that noted none.

        Code that `torch.compile` made before the hooks were there does not run them.

        Raises:
            ValueError: no linear layer runs once a pass, with a row for each sample.
        """
        found = self._rows()
        if found is None or len(found) != samples:
            model = getattr(passes.module, "_orig_mod", passes.module)
            sizes = piece_sizes(samples, passes.micro_batch_size or samples)
            self.forget()
            parts, start = [], 0
            with torch.no_grad(), passes.unmoved(), borrowed_generators(next(model.parameters()).device):
                for size in sizes:
                    passes.forward(model, rows_of(inputs, slice(start, start + size)))
                    start += size
                    parts += [self._of_passes[-1][1]] if self._of_passes else []
            found = torch.cat(parts) if parts else None
        if found is None or len(found) != samples:
            rows = "none runs" if found is None else f"that has {len(found)} rows for {samples} samples"
            raise ValueError(
                f"model: ClusterNCSAM clusters the inputs of the linear layer that runs last, and {rows}; end the "
                "model with a torch.nn.Linear that runs once, on a row of features for each sample"
            )
        return found

    def _rows(self) -> Tensor | None:
        """The inputs of the layer that ran last, of all pieces of the batch."""
        if not self._of_passes:
            return None
        last = self._of_passes[-1][0]
        return torch.cat([rows for place, rows in self._of_passes if place == last])


class _Begun:
    """The hook of the model."""

    def __init__(self, features: LastFeatures) -> None:
        self.features = features

    def __call__(self, *_: object) -> None:
        self.features.begin()


class _Noted:
    """The hook of one layer."""

    def __init__(self, features: LastFeatures, place: int) -> None:
        self.features = features
        self.place = place

    def __call__(self, _: nn.Module, arguments: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        if not self.features.wanted:
            return
        # activation checkpointing runs layers again in the backward pass, the last ones first
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        rows = arguments[0] if arguments else options["input"]
        self.features.note(self.place, rows.detach())
