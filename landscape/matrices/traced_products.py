"""Products of single chunks by traced graphs. What depends on the weights alone is kept where memory allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from landscape.data.samples import Chunk
from landscape.data.task import LossFunction
from landscape.fx.linearize import Linearized, Outputs, linearized
from landscape.matrices.outputs import as_one_tensor, holds_constants
from landscape.matrices.rule import Rule
from landscape.model.memory import Memory


class TracedProducts:
    """Products with the matrix of one chunk, by graphs that are cut into two parts (`landscape.fx.linearize`).

    The first part depends on the weights alone. Its results are kept for as many chunks as fit into memory, and
    computed again for the others. The second part is computed for every vector.

    Args:
        rule: how the matrix of one chunk is multiplied.
        outputs: (theta, inputs) -> the model's outputs.
        loss_fn: (outputs, targets) -> mean loss.
        memory: keeps the results of the first part.
        compile_mode: mode of `torch.compile` for the second part; None does not compile.

    Attributes:
        maps_vectors: whether a block of vectors is multiplied at once, by vmap.
    """

    def __init__(
        self,
        rule: Rule,
        outputs: Outputs,
        loss_fn: LossFunction,
        memory: Memory,
        compile_mode: str | None,
    ) -> None:
        self._rule = rule
        self._outputs = outputs
        self._loss_fn = loss_fn
        self._memory = memory
        self._compile_mode = compile_mode
        self._graphs: dict[Any, Linearized] = {}
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._kept_bytes = 0
        self.maps_vectors = False

    @torch.no_grad()
    def of_chunk(self, theta: Tensor, chunk: Chunk, index: int | None, rows: Tensor) -> Tensor:
        """The matrix of the mean loss of one chunk at `theta` (n,) times the vectors (k, n); (k, n).

        Args:
            theta: the weights.
            chunk: the data.
            index: the chunk's place, under which results are kept; None computes all anew and keeps nothing.
            rows: the vectors.
        """
        rows = _at_even_places(rows)
        tangent = self._graph(theta, chunk).tangent
        residuals = self._residuals(theta, chunk, index)
        if self.maps_vectors and len(rows) > 1:
            try:
                return vmap(lambda row: tangent(row, *residuals))(rows)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                # vmap lacks an operation
                self.maps_vectors = False
        products = torch.empty_like(rows)
        for row, product in zip(rows, products, strict=True):
            # copied at once, because the next replay of a CUDA graph overwrites the result of this one
            product.copy_(tangent(row, *residuals))
        return products

    def share_kept(self, chunks: int) -> float:
        """The share of all chunks whose results fit into memory, if each needs as much as those that are kept now."""
        if not self._kept:
            return 0.0
        each = max(1, self._kept_bytes // len(self._kept))
        more = (self._memory.budget - self._memory.used) // each
        return min(1.0, (len(self._kept) + more) / chunks)

    def release(self) -> None:
        """Frees the memory of the results. The graphs stay."""
        self._kept.clear()
        self._memory.used -= self._kept_bytes
        self._kept_bytes = 0

    def forget(self) -> None:
        """Frees the memory of results and graphs."""
        self.release()
        self._graphs.clear()

    def _graph(self, theta: Tensor, chunk: Chunk) -> Linearized:
        shapes = chunk.shapes
        if shapes not in self._graphs:
            inputs, targets = chunk.read()
            rule = self._rule
            outputs, loss_fn = self._of_one_tensor(theta, inputs)
            traced = linearized(
                lambda outputs: rule.traced(outputs, loss_fn), outputs, theta, inputs, targets
            )
            if self._compile_mode is not None:
                traced = replace(traced, tangent=torch.compile(traced.tangent, mode=self._compile_mode))
            self._graphs[shapes] = traced
        return self._graphs[shapes]

    def _residuals(self, theta: Tensor, chunk: Chunk, index: int | None) -> tuple[Tensor, ...]:
        if index is not None and index in self._kept:
            return self._kept[index]
        residuals = self._graph(theta, chunk).primal(theta, *chunk.read())
        size = _bytes(residuals, besides=theta)
        if index is not None and self._memory.used + size <= self._memory.budget:
            self._kept[index] = residuals
            self._kept_bytes += size
            self._memory.used += size
        return residuals

    def _of_one_tensor(self, theta: Tensor, inputs: Any) -> tuple[Outputs, LossFunction]:
        """The model's outputs as one tensor, and the loss of such a tensor. A trace needs this form."""
        example = self._outputs(theta, inputs)
        if isinstance(example, Tensor) and example.is_floating_point():
            return self._outputs, self._loss_fn
        if holds_constants(example):
            raise RuntimeError(
                "the outputs hold whole numbers or truth values, which a trace would freeze (return the scores alone, "
                "if need be by forward=)"
            )
        _, whole = as_one_tensor(example)
        return (
            lambda theta, inputs: as_one_tensor(self._outputs(theta, inputs))[0],
            lambda scores, targets: self._loss_fn(whole(scores), targets),
        )


def _at_even_places(rows: Tensor) -> Tensor:
    """The vectors (k, n); copied so that each starts at an even place, where `torch.view_as_complex` takes pairs."""
    width = rows.shape[1]
    if rows.storage_offset() % 2 == 0 and (len(rows) < 2 or width % 2 == 0):
        return rows
    return rows.new_empty(len(rows), width + width % 2)[:, :width].copy_(rows)


def with_noise(vectors: Tensor) -> Tensor:
    """Vectors (k, n), to each of which a random one of its length is added.

    A product that is wrong in some rows and columns may be right for a vector that is 0 there.
    """
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(vectors)
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    lengths = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return vectors + noise * (lengths / torch.linalg.vector_norm(noise, dim=1, keepdim=True))


def _bytes(tensors: tuple[Tensor, ...], *, besides: Tensor) -> int:
    """The bytes of the tensors. Each storage counts once, and the storage of `besides` does not count."""
    # torch's own zeros have no storage
    stored = [tensor for tensor in tensors if not tensor._is_zerotensor()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in stored}
    storages.pop(besides.untyped_storage().data_ptr(), None)
    return sum(storages.values())
