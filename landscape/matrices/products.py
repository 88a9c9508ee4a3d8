"""Products of the Hessian or the Gauss-Newton matrix of a mean loss with blocks of vectors, chunk by chunk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap
from torch.utils.flop_counter import FlopCounterMode

from landscape.fx.linearize import Linearized, Outputs, Product, linearized, twice_differentiable

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""

TRACING_FLOPS = {"cpu": 2e11, "cuda": 2e13}
"""Floating-point operations in the time that tracing a product takes, some seconds."""

VMAP_FLOPS = {"cpu": 1e8, "cuda": 1e10}
"""A product of a chunk with fewer is bound by the overhead of its operations, which a block shares."""

AGREEMENT = {torch.float64: 1e-6, torch.float32: 0.01}
"""How far, relatively, a traced product may be from the direct one; 0.1 in the shorter dtypes.

In float64 the two differ by 1e-13 or so. In float32 that is 1e-4 for a ResNet-20, whose ReLUs switch with the rounding.
"""

PRODUCT_COST = 7
"""Forward passes in the time of a product by double backward, about."""


def hessian_product(outputs: Outputs, loss_fn: LossFunction) -> Product:
    """The Hessian of the loss times a vector, forward over reverse (Pearlmutter 1994)."""

    def product(theta: Tensor, vector: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        gradient = grad(lambda point: loss_fn(outputs(point, inputs), targets))
        result: Tensor = jvp(gradient, (theta,), (vector,))[1]
        return result

    return product


def gauss_newton_product(outputs: Outputs, loss_fn: LossFunction) -> Product:
    """J^T (Hessian of the loss in the outputs) J times a vector, J the outputs' Jacobian (Schraudolph 2002)."""

    def product(theta: Tensor, vector: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        def forward(point: Tensor) -> Tensor:
            return outputs(point, inputs)

        reverse: Any = vjp(forward, theta)
        scores, pullback = reverse
        moved = jvp(forward, (theta,), (vector,))[1]

        def loss(z: Tensor) -> Tensor:
            return loss_fn(z, targets)

        curved = jvp(grad(loss), (scores,), (moved,))[1]
        result: Tensor = pullback(curved)[0]
        return result

    return product


def hessian_by_reverse(
    theta: Tensor, outputs: Tensor, loss: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The Hessian of `loss(outputs)` in `theta` times a vector, by double backward: one graph for all vectors.

    Needs no forward-mode derivatives, which some operations lack.
    """
    gradient = derivative(loss(outputs), theta, create_graph=True)
    return lambda vector: derivative(gradient @ vector, theta, retain_graph=True)


def gauss_newton_by_reverse(
    theta: Tensor, outputs: Tensor, loss: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The Gauss-Newton matrix of `loss(outputs)` in `theta` times a vector, without forward-mode derivatives.

    J^T u is linear in u, so that J times a vector is the gradient of (J^T u) . vector in u (Townsend 2017).
    """
    scores = outputs.detach().clone().requires_grad_()
    slope = derivative(loss(scores.clone()), scores, create_graph=True)
    direction = torch.zeros_like(outputs, requires_grad=True)
    pulled = derivative((outputs * direction).sum(), theta, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        moved = derivative(pulled @ vector, direction, retain_graph=True)
        curved = derivative((slope * moved).sum(), scores, retain_graph=True)
        return derivative((outputs * curved).sum(), theta, retain_graph=True)

    return product


@dataclass(frozen=True)
class Chunks:
    """A data set read in chunks; every chunk is a copy on the device, as a model may change its inputs."""

    inputs: Tensor
    targets: Tensor
    chunk_size: int
    device: torch.device

    @property
    def sizes(self) -> list[int]:
        """Samples of each chunk."""
        return [len(targets) for targets in self.targets.split(self.chunk_size)]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rows = slice(index * self.chunk_size, (index + 1) * self.chunk_size)
        inputs, targets = self.inputs[rows], self.targets[rows]
        return inputs.to(self.device, copy=True), targets.to(self.device, copy=True)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[index] for index in range(len(self.sizes)))


@dataclass
class Memory:
    """Bytes that may be kept, and are."""

    budget: int
    used: int = 0


PRODUCTS: dict[str, Callable[[Outputs, LossFunction], Product]] = {
    "gauss-newton": gauss_newton_product,
    "hessian": hessian_product,
}


class Products:
    """Products with one matrix, which share what they can at each point.

    The first products take the direct way. Once they have cost about what tracing one costs, or are expected to,
    the product is traced and cut in two (`landscape.fx.linearize`): what the weights decide is computed once and
    kept, for as many chunks as there is memory, and computed anew for the others. The traced product is compared
    with a direct one before it is used; a model that cannot be traced stays on the direct way, with a warning.

    Args:
        matrix: one of `PRODUCTS`.
        outputs: (theta, inputs) -> the model's outputs.
        loss_fn: (outputs, targets) -> mean loss.
        chunks: of the data, with their sizes.
        memory: that may be used to keep what the weights decide.
        linearize: whether to trace; None: when it pays.
        compile_mode: of `torch.compile` for the traced product; None does not compile.

    Attributes:
        linear: whether products are traced; None as long as that is undecided.
    """

    def __init__(
        self,
        matrix: str,
        outputs: Outputs,
        loss_fn: LossFunction,
        chunks: Chunks,
        memory: Memory,
        *,
        linearize: bool | None,
        compile_mode: str | None,
    ) -> None:
        self._matrix = matrix
        self._outputs = outputs
        self._loss_fn = loss_fn
        self._chunks = chunks
        self._memory = memory
        self._linearize = linearize
        self._compile_mode = compile_mode
        self._given: tuple[Tensor, int] | None = None
        self._theta = torch.empty(0)
        self._traced: dict[tuple[torch.Size, torch.Size], Linearized] = {}
        self._kept: dict[int, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {}
        self._columns = 0
        self._vmaps = False
        self._kept_bytes = 0
        self.linear = False if linearize is False else None

    def __call__(self, theta: Tensor, block: Tensor) -> Tensor:
        """The matrix of the sum of the losses at `theta` (n,) times a block (n, k), in float64."""
        self._move_to(theta)
        if self.linear is None:
            self._decide(block)
        of_chunk = self._linear if self.linear else self._direct
        rows = block.T.contiguous()
        total = torch.zeros_like(rows, dtype=torch.float64)
        for index, size in enumerate(self._chunks.sizes):
            total.add_(of_chunk(index, rows), alpha=size)
        return total.T.contiguous()

    def expect(self, columns: int) -> None:
        """Says that as many products are to come, so that whether to trace can be decided now."""
        self._columns += columns

    def release(self) -> None:
        """Gives back the memory that is kept for further products."""
        self._kept.clear()
        self._memory.used -= self._kept_bytes
        self._kept_bytes = 0
        self._given = None

    def _move_to(self, theta: Tensor) -> None:
        """Forgets what belongs to another point; the same tensor, unchanged, is known without reading it."""
        given = (theta, theta._version)
        if self._given is not None and (self._given[0] is theta and self._given[1] == given[1]):
            return
        if self._given is None or not torch.equal(theta, self._theta):
            self.release()
            self._theta = theta.clone()
        self._given = given

    # the caller may have said no_grad, in which every derivative would be zero
    @torch.enable_grad()
    def _direct(self, index: int, rows: Tensor) -> Tensor:
        inputs, targets = self._chunks[index]
        variable = self._theta.detach().requires_grad_()
        with twice_differentiable():
            outputs = self._outputs(variable, inputs)
            by_reverse = hessian_by_reverse if self._matrix == "hessian" else gauss_newton_by_reverse
            product = by_reverse(variable, outputs, lambda scores: self._loss_fn(scores, targets))
            return torch.stack([product(row) for row in rows])

    @torch.no_grad()
    def _linear(self, index: int, rows: Tensor) -> Tensor:
        tangent, residuals = self._kept.get(index) or self._linearized(index)
        if self._vmaps and len(rows) > 1:
            return vmap(lambda row: tangent(row, *residuals))(rows)
        products = torch.empty_like(rows)
        for row, product in zip(rows, products, strict=True):
            # at once: the next replay of a CUDA graph overwrites what this one gave
            product.copy_(tangent(row, *residuals))
        return products

    def _linearized(self, index: int) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        inputs, targets = self._chunks[index]
        shapes = (inputs.shape, targets.shape)
        if shapes not in self._traced:
            product = PRODUCTS[self._matrix]
            traced = linearized(
                lambda outputs: product(outputs, self._loss_fn), self._outputs, self._theta, inputs, targets
            )
            if self._compile_mode is not None:
                traced = replace(traced, tangent=torch.compile(traced.tangent, mode=self._compile_mode))
            self._traced[shapes] = traced
        traced = self._traced[shapes]
        residuals = traced.primal(self._theta, inputs, targets)
        size = _bytes(residuals, besides=self._theta)
        if self._memory.used + size <= self._memory.budget:
            self._kept[index] = (traced.tangent, residuals)
            self._kept_bytes += size
            self._memory.used += size
        return traced.tangent, residuals

    def _decide(self, block: Tensor) -> None:
        """Takes the traced way from now on if that pays, and gives what the direct way gives."""
        inputs, _ = self._chunks[0]
        device = block.device.type if block.device.type in TRACING_FLOPS else "cpu"
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._outputs(self._theta, inputs)
        flops = PRODUCT_COST * counter.get_total_flops()
        self._columns += block.shape[1]
        whole = self._columns * flops * len(self._chunks.sizes)
        if self._linearize is None and whole < TRACING_FLOPS[device]:
            return
        some = block[:, : 2 if flops < VMAP_FLOPS[device] else 1].T.contiguous()
        direct = self._direct(0, some)
        if not torch.isfinite(direct).all():
            return
        try:
            traced = self._linear(0, some)
            if flops < VMAP_FLOPS[device] and self._compile_mode is None:
                self._vmaps = True
                traced = self._linear(0, some)
            error = torch.linalg.vector_norm(traced - direct) / torch.linalg.vector_norm(direct)
            if error > AGREEMENT.get(direct.dtype, 0.1):
                raise RuntimeError(f"the traced product differs from the direct one by {error:.2g} of it")
        except Exception as reason:
            # tracing fails in as many ways as there are models; the direct way is right for all
            if self._linearize:
                raise
            self.release()
            self.linear = False
            warnings.warn(
                f"linearize: products take the slower direct way, as they cannot be traced: {reason}",
                stacklevel=4,
            )
        else:
            self.linear = True


def derivative(
    of: Tensor, by: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """d of / d by, zero where `of` does not depend on `by`."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (result,) = torch.autograd.grad(
        of,
        by,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return result


def check_that_gradients_are_recorded(*tensors: Tensor) -> None:
    """Raises where a derivative would be zero, or none, without a word.

    Raises:
        RuntimeError: in `torch.inference_mode()`, or tensors made there.
    """
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in tensors):
        raise RuntimeError(
            "torch.inference_mode: gradients and products with the Hessian cannot be had there, nor for a model or "
            "data made there; make the Objective and measure outside of it, or use torch.no_grad() instead"
        )


def _bytes(tensors: tuple[Tensor, ...], *, besides: Tensor) -> int:
    """Memory of the tensors, each storage counted once, that of `besides` not at all."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    storages.pop(besides.untyped_storage().data_ptr(), None)
    return sum(storages.values())
