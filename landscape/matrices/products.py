"""Products of one matrix with blocks of vectors: summed over the chunks of the data, and direct or traced."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.reading import Chunks
from landscape.data.samples import Chunk, Held
from landscape.data.task import Forward, LossFunction
from landscape.fx.linearize import Outputs
from landscape.fx.plain_formulas import twice_differentiable
from landscape.guards.in_float64 import InFloat64
from landscape.guards.settings import Linearize
from landscape.matrices.faster_way import Form, least_seconds, remember, traced_was_faster
from landscape.matrices.last_seen import Seen
from landscape.matrices.rule import ProductSums, Rule
from landscape.matrices.second_derivatives import difference_products
from landscape.matrices.traced_products import TracedProducts, with_noise
from landscape.matrices.worth_tracing import Work, pays
from landscape.model.long_vectors import norm
from landscape.model.memory import Memory
from landscape.model.weights import ParameterLayout, aligned, outputs_at, with_weights
from landscape.ranks import ALONE, Ranks, is_settled

VMAP_FLOPS = {"cpu": 1e8, "cuda": 1e10}
"""With fewer floating-point operations, overhead dominates a product of one chunk; a block of vectors shares it."""

AGREEMENT = {torch.float64: 1e-6, torch.float32: 0.01}
"""The largest relative difference between a traced and a direct product; 0.1 in the shorter dtypes.

In float64 the two differ by about 1e-13. In float32 they differ by 1e-4 for a ResNet-20, because rounding switches some
of its ReLUs.
"""

NO_SECOND_DERIVATIVE = (
    *("is not implemented", "differentiate twice", "not currently supported"),
    *("Can't call numpy() on Tensor that requires grad", "does not require grad and does not have a grad_fn"),
)
"""Parts of the messages with which torch says that an operation has no second derivative."""


class Products:
    """Products with one matrix, which share the computations that depend on the weights alone.

    The first products are direct. Tracing costs some seconds. Once the products to come should save as much
    (`landscape.matrices.worth_tracing`), the product is traced (`landscape.matrices.traced_products`). Both ways are
    then timed on the first chunk, and the faster one is kept and remembered for problems of the same form
    (`landscape.matrices.faster_way`). A traced product is compared with a direct one before it is used. A model that
    cannot be traced stays with direct products, and a warning says so.

    Args:
        rule: how the matrix of one chunk is multiplied.
        model: in evaluation mode.
        forward: (model, inputs) -> outputs.
        layout: names and shapes of the variables.
        loss_fn: (outputs, targets) -> mean loss.
        chunks: the chunks of the data.
        memory: keeps the results of the first part.
        linearize: whether products are traced; "measured" decides by time, "counted" by floating-point operations.
        compile_mode: mode of `torch.compile` for the traced product; None does not compile.
        ranks: the processes that measure together. If each holds a part of the vectors, nothing is traced.

    Attributes:
        is_traced: whether products are traced; None before that is decided.
    """

    def __init__(
        self,
        rule: Rule,
        model: nn.Module,
        forward: Forward,
        layout: ParameterLayout,
        loss_fn: LossFunction,
        chunks: Chunks,
        memory: Memory,
        *,
        linearize: Linearize,
        compile_mode: str | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._rule = rule
        self._model = model
        self._layout = layout
        self._forward = forward
        self._outputs: Outputs = partial(outputs_at, model, layout, forward)
        self._loss_fn = loss_fn
        self._chunks = chunks
        self._memory = memory
        self._linearize = linearize
        self._traced = TracedProducts(rule, self._outputs, loss_fn, memory, compile_mode)
        self._compile_mode = compile_mode
        self._seen: Seen | None = None
        self._theta = torch.empty(0, device="cpu")
        self._work: Work | None = None
        self._done = self._expected = 0
        self._by_difference = False
        # a traced product takes several vectors more than a direct one
        fits = memory.has_room_for_sums_of(sum(layout.sizes))
        is_direct = linearize is False or (linearize is not True and not fits) or ranks.share_vectors
        self.is_traced = False if is_direct else None
        self._ranks = ranks

    def __call__(self, theta: Tensor, block: Tensor, weight: float) -> Tensor:
        """The matrix of the sum of the losses, divided by `weight`, at `theta` (n,) times a block (n, k).

        The sum is in float64. It is in the dtype of the block where it has one term. Where float64 takes too much of
        the memory budget, it is in that dtype or in float32, whichever is longer.
        """
        rows = block.T.contiguous()
        if self.is_traced is not False:
            self.prepare(theta, rows)
        is_direct = not self.is_traced and not self._by_difference
        reason: Exception | None = None
        # derivatives in parts of the weights are sums over the ranks, so that each rank's weight must be in its loss
        if is_direct and (self._ranks.share_vectors or not self._memory.has_room_for_sums_of(rows.numel())):
            try:
                return self._summed_in_place(theta, rows, weight).T
            except RuntimeError as error:
                if _lacks_memory(error) or is_settled(error):
                    raise
                reason = error
        self._move_to(theta)
        if self._is_mean_of_one(weight):
            return self.of_chunk(0, next(iter(self._chunks)), rows).T.contiguous()
        total = torch.zeros_like(rows, dtype=torch.float64)
        for index, chunk in enumerate(self._chunks):
            if chunk.weight:
                if self._ranks.share_vectors:
                    total.add_(self._differences(chunk, rows, reason, chunk.weight / weight))
                    reason = None
                else:
                    total.add_(self.of_chunk(index, chunk, rows), alpha=chunk.weight / weight)
        return total.T.contiguous()

    def _is_mean_of_one(self, weight: float) -> bool:
        """Whether the sum over the chunks of all ranks, divided by `weight`, is the mean of one chunk in memory."""
        if not isinstance(self._chunks, Held) or len(self._chunks) != 1 or self._ranks.share_vectors:
            return False
        return self._ranks.group is None and self._chunks.weight == weight

    def prepare(self, theta: Tensor, rows: Tensor) -> None:
        """Moves to the weights `theta` (n,) and decides whether products with the vectors (k, n) are traced."""
        self._move_to(theta)
        if self.is_traced is None:
            self._decide(rows)
            self._done += len(rows)
            self._expected = max(0, self._expected - len(rows))

    def of_chunk(self, index: int, chunk: Chunk, rows: Tensor) -> Tensor:
        """The matrix of the mean loss of one chunk times the vectors (k, n) that were prepared; (k, n)."""
        if self.is_traced:
            try:
                return self._traced.of_chunk(self._theta, chunk, index, rows)
            except Exception as reason:
                # chunks of another form are traced anew
                if _lacks_memory(reason) or is_settled(reason):
                    raise
                self._stay_direct(reason)
        return self._direct(chunk, rows)

    def expect(self, columns: int) -> None:
        """Announces a number of products, in place of those announced before that are still to come."""
        self._expected = columns

    def release(self) -> None:
        """Frees the memory that is kept for further products."""
        self._traced.release()
        self._seen = None

    def _move_to(self, theta: Tensor) -> None:
        """Forgets the results for other weights. Unchanged ones are recognized without reading them."""
        seen = Seen.now(theta)
        before = self._seen
        if before is not None and before.is_same(seen):
            return
        if before is None or not torch.equal(theta, self._theta):
            self.release()
            self._theta = theta.clone()
        self._seen = seen

    @torch.enable_grad()
    def _summed_in_place(self, theta: Tensor, rows: Tensor, divisor: float) -> Tensor:
        """The products (k, n), added to one sum tensor by tensor: beside the sum, only one gradient is held."""
        # in half precision a sum stops to grow once its terms are shorter than its last digit
        total = torch.zeros_like(rows, dtype=torch.promote_types(rows.dtype, torch.float32))
        variables = self._layout.variables(theta)
        vectors, totals = (
            [list(self._layout.unflatten(row).values()) for row in part] for part in (rows, total)
        )
        vectors = [[aligned(part) for part in vector] for vector in vectors]
        sums = ProductSums(list(variables.values()), vectors, totals)
        for chunk in self._chunks:
            if chunk.weight:
                inputs, targets = chunk.read()

                def add(
                    model: nn.Module,
                    inputs: Any = inputs,
                    targets: Any = targets,
                    weight: float = chunk.weight / divisor,
                ) -> None:
                    self._rule.in_place(
                        sums,
                        self._forward(model, inputs),
                        lambda scores: self._loss_fn(scores, targets) * weight,
                    )

                with twice_differentiable():
                    with_weights(self._model, variables, add)
        return total

    # the caller may have turned gradients off, and every derivative would be zero
    @torch.enable_grad()
    def _direct(self, chunk: Chunk, rows: Tensor) -> Tensor:
        inputs, targets = chunk.read()
        variable = self._theta.detach().requires_grad_()

        def products(model: nn.Module) -> Tensor:
            product = self._rule.direct(
                variable, self._forward(model, inputs), lambda scores: self._loss_fn(scores, targets)
            )
            return torch.stack([product(row) for row in rows])

        if self._by_difference:
            return self._differences(chunk, rows)
        with twice_differentiable():
            try:
                return with_weights(self._model, self._layout.unflatten(variable), products)
            except RuntimeError as error:
                if _lacks_memory(error) or is_settled(error):
                    raise
                reason = error
        return self._differences(chunk, rows, reason)

    def _differences(
        self, chunk: Chunk, rows: Tensor, reason: Exception | None = None, weight: float = 1.0
    ) -> Tensor:
        """Products by differences of gradients in float64, where an operation has no second derivative.

        Args:
            chunk, rows: as for `of_chunk`.
            reason: the error of the direct product, for the first product of this kind. Torch has many messages for
                an operation without a second derivative; that a difference can be had tells this kind of error.
            weight: a factor of the chunk's mean loss.

        Raises:
            RuntimeError: a difference cannot be had either; the model may not run in float64.
        """
        data = chunk.read()
        few = InFloat64(
            self._model, self._forward, self._layout, self._theta, data, self._loss_fn, self._ranks, weight
        )
        try:
            found, relative = difference_products(self._rule, few, rows)
        except RuntimeError as error:
            if reason is not None and not _says_that_no_second_derivative_exists(reason):
                raise reason from None
            raise RuntimeError(
                f"model: an operation of it has no second derivative in torch: {reason}; put one in its place that "
                "has, such as a formula in plain operations"
            ) from error
        if reason is not None:
            self._by_difference, self.is_traced = True, False
            warnings.warn(
                f"model: products are differences of gradients, with a relative error of about {relative:.1g}, because "
                f"an operation has no second derivative in torch: {str(reason)[:200]}",
                stacklevel=5,
            )
        return found.to(rows)

    def _decide(self, rows: Tensor) -> None:
        """Traces from now on, if that saves time and the traced product agrees with the direct one."""
        if not isinstance(self._chunks, Held) or not self._chunks.can_be_traced:
            if self._linearize is True:
                raise ValueError(
                    "linearize: a stream, and batches that cannot be cut, have direct products only"
                )
            self.is_traced = False
            return
        chunk = self._chunks.chunks[0]
        if self._linearize is not True and not self._pays(self._chunks, rows):
            return
        # two at least, because later a block may be multiplied at once
        some = with_noise(rows[:2].expand(2, -1))
        is_timed = self._linearize == "measured" and not torch.are_deterministic_algorithms_enabled()
        form = self._form(chunk, rows[:2]) if is_timed else None
        if form and traced_was_faster(form) is False:
            self.is_traced = False
            return
        direct = self._direct(chunk, some)
        if self._by_difference or not torch.isfinite(direct).all():
            return
        try:
            self._trace(chunk, some, direct)
        except Exception as reason:
            self._stay_direct(reason)
        else:
            self.is_traced = form is None or self._is_faster_traced(form, chunk, some[: len(rows)])
        if not self.is_traced:
            self._traced.forget()

    def _stay_direct(self, reason: Exception) -> None:
        """Makes products direct from now on. Tracing may raise any error; direct products are right for all models."""
        if self._linearize is True:
            raise RuntimeError(
                f"linearize: these products cannot be traced: {reason}; leave linearize=True out, which makes them "
                "direct"
            ) from reason
        self.is_traced = False
        self._traced.forget()
        warnings.warn(
            f"linearize: products are direct, which is slower, because they cannot be traced: {reason}",
            stacklevel=5,
        )

    def _pays(self, chunks: Held, rows: Tensor) -> bool:
        """Whether products should be traced, by what is announced and by what is past."""
        return pays(
            self._work_of(chunks.chunks[0]),
            self._expected,
            self._done + len(rows),
            chunks=len(chunks),
            forms=len({chunk.shapes for chunk in chunks}),
            device=rows.device.type,
        )

    def _work_of(self, chunk: Chunk) -> Work:
        if self._work is None:
            # a forward pass may take derivatives by itself; of weights that are no variables nothing else is recorded
            with torch.enable_grad():
                self._work = Work.of(lambda: self._outputs(self._theta, chunk.read()[0]))
        return self._work

    def _trace(self, chunk: Chunk, some: Tensor, direct: Tensor) -> None:
        """Traces the product of a chunk, and compares it with the direct one of the vectors `some` (k, n).

        Raises:
            RuntimeError: they differ.
        """
        traced = self._traced.of_chunk(self._theta, chunk, 0, some)
        is_small = self._work_of(chunk).flops < VMAP_FLOPS.get(some.device.type, VMAP_FLOPS["cpu"])
        if is_small and self._compile_mode is None:
            self._traced.maps_vectors = True
            traced = self._traced.of_chunk(self._theta, chunk, 0, some)
        size, apart = norm(direct.flatten()), norm((traced - direct).flatten())
        error = apart / size if size else math.nan
        if error > AGREEMENT.get(direct.dtype, 0.1):
            raise RuntimeError(f"the traced product differs from the direct one by {error:.2g} of it")

    def _form(self, chunk: Chunk, rows: Tensor) -> Form:
        return Form(
            rule=self._rule,
            modules=tuple(type(module) for module in self._model.modules()),
            layout=self._layout,
            chunk=chunk.shapes,
            chunks=len(self._chunks),
            memory_budget=self._memory.budget,
            vectors=len(rows),
            dtype=rows.dtype,
            device=rows.device,
            threads=torch.get_num_threads(),
            compile_mode=self._compile_mode,
        )

    def _is_faster_traced(self, form: Form, chunk: Chunk, rows: Tensor) -> bool:
        """Whether traced products of the vectors (k, n) take less time than direct ones, as was or is now measured."""
        known = traced_was_faster(form)
        if known is not None:
            return known
        kept = self._traced.share_kept(form.chunks)
        direct, *traced = least_seconds(
            [
                lambda: self._direct(chunk, rows),
                *(
                    partial(self._traced.of_chunk, self._theta, chunk, index, rows)
                    for index, share in ((0, kept), (None, 1 - kept))
                    if share
                ),
            ],
            rows.device,
        )
        # a chunk whose results are not kept takes the first part again
        mean = kept * traced[0] + (1 - kept) * traced[-1]
        remember(form, mean < direct)
        return mean < direct


def _says_that_no_second_derivative_exists(error: Exception) -> bool:
    return any(sign in str(error) for sign in NO_SECOND_DERIVATIVE)


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error)
