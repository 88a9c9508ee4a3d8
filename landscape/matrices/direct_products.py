"""Products of single chunks by second derivatives. The graphs of the first derivatives are kept where memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks

from landscape.fx.plain_formulas import twice_differentiable
from landscape.loss.batches import tensors_in
from landscape.loss.memory import Memory, stored_bytes
from landscape.loss.samples import Chunk
from landscape.loss.task import Forward, LossFunction
from landscape.loss.weights import ParameterLayout, with_weights
from landscape.matrices.rule import Rule, VectorProduct

T = TypeVar("T")

OWN_HOOKS = "this model says how torch saves its tensors"
"""The error with which a graph says that the model has hooks on saved tensors, as activation checkpointing has."""

LARGEST_SHARE = 0.25
"""Of the memory budget, for the graphs of all chunks. A caller's own vectors need the rest."""


class DirectProducts:
    """Products with the matrix of one chunk, by torch's derivatives of derivatives.

    The first derivative and its graph depend on the weights alone. They are kept for as many chunks as fit into memory:
    a product then takes 1 to 2 gradients, and 2 to 3.5 without them. Nothing is kept of a model that says how torch
    saves its tensors, because such a model computes them again in order to save memory.

    Args:
        rule: how the matrix of one chunk is multiplied.
        model: in evaluation mode.
        forward: (model, inputs) -> outputs.
        layout: names and shapes of the variables.
        loss_fn: (outputs, targets) -> mean loss.
        memory: keeps the graphs.
        keeps: whether graphs may be kept.
    """

    def __init__(
        self,
        rule: Rule,
        model: nn.Module,
        forward: Forward,
        layout: ParameterLayout,
        loss_fn: LossFunction,
        memory: Memory,
        *,
        keeps: bool,
    ) -> None:
        self._rule = rule
        self._model = model
        self._forward = forward
        self._layout = layout
        self._loss_fn = loss_fn
        self._memory = memory
        self._keeps = keeps
        self._sizes: dict[Any, int] = {}
        self._kept: dict[int, VectorProduct] = {}
        self._kept_bytes = 0

    # the caller may have turned gradients off, and every derivative would be zero
    @torch.enable_grad()
    def of_chunk(self, theta: Tensor, chunk: Chunk, index: int | None, rows: Tensor) -> Tensor:
        """The matrix of the mean loss of one chunk at `theta` (n,) times the vectors (k, n); (k, n).

        Args:
            theta: the weights. Until `release` they are the same in each call.
            chunk: the data.
            index: the chunk's place, under which its graph is kept; None keeps nothing.
            rows: the vectors.
        """
        if index in self._kept:
            return self._multiplied(theta, self._kept[index], rows)
        if index is not None and self._has_room_for(theta, chunk):
            product = self._graph_to_keep(theta, chunk)
            if product is not None:
                products = self._multiplied(theta, product, rows)
                self._keep(index, product, self._sizes[chunk.shapes])
                return products
        inputs, targets = chunk.read()
        variable = theta.detach().requires_grad_()
        # the model holds the weights until the last derivative is taken, as checkpointing runs parts of it again
        return self._with_weights(
            variable, lambda model: _stacked(self._product(model, variable, inputs, targets), rows)
        )

    def share_kept(self, chunks: int) -> float:
        """The share of so many chunks whose graphs fit into memory, if each needs as much as those that are kept."""
        if not self._kept:
            return 0.0
        each = max(1, self._kept_bytes // len(self._kept))
        return min(1.0, (len(self._kept) + self._room() // each) / chunks)

    def release(self) -> None:
        """Frees the memory of the graphs."""
        self._kept.clear()
        self._memory.used -= self._kept_bytes
        self._kept_bytes = 0

    def _keep(self, index: int, product: VectorProduct, size: int) -> None:
        self._kept[index] = product
        self._kept_bytes += size
        self._memory.used += size

    def _room(self) -> int:
        """Bytes that further graphs may take."""
        memory = self._memory
        return min(int(LARGEST_SHARE * memory.budget) - self._kept_bytes, memory.budget - memory.used)

    def _has_room_for(self, theta: Tensor, chunk: Chunk) -> bool:
        # a graph holds at least the gradient
        if not self._keeps or self._room() < theta.nbytes:
            return False
        if chunk.shapes not in self._sizes:
            self._sizes[chunk.shapes] = self._size_of_graph(theta, chunk)
        return self._sizes[chunk.shapes] <= self._room()

    def _size_of_graph(self, theta: Tensor, chunk: Chunk) -> int:
        """The bytes that a graph of the chunk keeps: what torch saves for derivatives, the gradient, and the data."""
        data = chunk.read()
        variable = theta.detach().requires_grad_()
        saved: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            # the tensor itself would close a cycle through its graph
            saved.append(tensor.detach())
            return saved[-1]

        # this graph is given up: torch does not see what is changed in place where tensors pass through hooks
        with saved_tensors_hooks(note, lambda tensor: tensor):
            product = self._with_weights(variable, lambda model: self._product(model, variable, *data))
        tensors = tensors_in(data)
        size = stored_bytes(saved, besides=[theta, *tensors])
        del product
        return size + 2 * theta.nbytes + sum(tensor.nbytes for tensor in tensors)

    def _graph_to_keep(self, theta: Tensor, chunk: Chunk) -> VectorProduct | None:
        """vector -> product; None, now and later, for a model with hooks of its own on the tensors that torch saves."""
        inputs, targets = chunk.read()
        variable = theta.detach().requires_grad_()
        try:
            with disable_saved_tensors_hooks(OWN_HOOKS):
                return self._with_weights(
                    variable, lambda model: self._product(model, variable, inputs, targets)
                )
        except RuntimeError as error:
            if OWN_HOOKS not in str(error):
                raise
            self._keeps = False
            return None

    def _product(self, model: nn.Module, variable: Tensor, inputs: Any, targets: Any) -> VectorProduct:
        outputs = self._forward(model, inputs)
        return self._rule.direct(variable, outputs, lambda scores: self._loss_fn(scores, targets))

    def _multiplied(self, theta: Tensor, product: VectorProduct, rows: Tensor) -> Tensor:
        # a custom backward may read the model's weights
        return self._with_weights(theta, lambda _: _stacked(product, rows))

    def _with_weights(self, theta: Tensor, use: Callable[[nn.Module], T]) -> T:
        with twice_differentiable():
            return with_weights(self._model, self._layout.unflatten(theta), use)


def _stacked(product: VectorProduct, rows: Tensor) -> Tensor:
    return torch.stack([product(row) for row in rows])
