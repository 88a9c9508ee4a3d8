"""A few samples in float64. In float64 short differences of losses and of gradients are good derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape.data.batches import copied, copied_to, in_precision, rows_of, samples_in
from landscape.data.complex_numbers import cast
from landscape.data.counts import Pair
from landscape.data.task import Forward, LossFunction
from landscape.fx.flops import with_flops
from landscape.guards.float64_throughout import Float64Throughout, inexact
from landscape.guards.telling_samples import telling_samples
from landscape.model.deep_copies import deep_copy
from landscape.model.long_vectors import PIECE, norm
from landscape.model.weights import ParameterLayout, tensors_of, with_weights
from landscape.ranks import ALONE, Ranks

MOVED = 0.01
"""Derivatives are compared at points this far from the weights, relative to them: weights of 0 may lie on a kink."""

SAMPLES = 4
"""Samples of which derivatives are compared at least."""

FEWER = 2
"""Samples where a pass is expensive."""

EXPENSIVE = 2e9
"""Operations of a forward pass of `SAMPLES` samples. The comparisons cost some 20 such passes in float64:
for large images more than the products of a search."""

MOST = 128
"""Samples of which derivatives are compared at most. A branch that few samples take may lack a derivative."""

WORK = 2e8
"""Operations of a forward pass of more than `SAMPLES` samples."""

T = TypeVar("T")


EPS = torch.finfo(torch.float64).eps
ROUNDING = 10
"""Rounding of a loss, in units in the last place."""


@dataclass(frozen=True)
class _FirstPass:
    """What the first pass shows: casts, shortened dtypes, operations, |loss|, and the largest output."""

    casts: bool
    shortens: bool
    operations: float
    loss: float
    largest_output: float


LARGEST = 127
"""Largest whole number of a draw."""

ROOT_MEAN_SQUARE = LARGEST / math.sqrt(3)
"""Root mean square of the whole numbers of a draw, nearly: all from -127 to 127 are equally likely, without 0."""


@dataclass(frozen=True)
class Drawn:
    """A way from the weights to a point near them, and a direction at that point. Each takes a byte a weight.

    The amounts differ from weight to weight: a shift by equal amounts leaves weights equal that were equal, such as
    biases of 0. Units that tie lie on a kink of `sort` and `max`, where no derivative is that of the loss.

    Attributes:
        shifts: int8 (n,), whole numbers to which fractions are added.
        steps: int8 (n,), the direction. A weight of step 0 is not moved.
        fractions: float64 (at most PIECE,), for the shifts of each piece of the weights.
        unit: the whole numbers are multiplied by it, so that a draw is as large as the weights.
        moved: how far the point is from the weights, relative to them; 0 is the weights themselves.
    """

    shifts: Tensor
    steps: Tensor
    fractions: Tensor
    unit: float
    moved: float = MOVED

    def add_to(self, theta: Tensor, step: float = 0.0) -> Tensor:
        """Moves weights (n,), in float64, to the point, and by a step from there; in place, and some at a time."""
        for part, shift, direction in zip(
            *(each.split(PIECE) for each in (theta, self.shifts, self.steps)), strict=True
        ):
            part.add_(self.fractions[: len(part)] + shift, alpha=self.moved * self.unit)
            if step:
                part.add_(direction, alpha=step * self.unit)
        return theta


@dataclass(frozen=True)
class InFloat64:
    """The loss of some samples as a function of the weights, in float64.

    Attributes:
        model: in evaluation mode.
        forward: (model, inputs) -> outputs.
        layout: names and shapes of the variables.
        theta: the variables (n,).
        data: inputs and targets.
        loss_fn: (outputs, targets) -> mean loss.
        ranks: the processes that measure together.
        weight: a factor of the loss.
    """

    model: nn.Module
    forward: Forward
    layout: ParameterLayout
    theta: Tensor
    data: Pair
    loss_fn: LossFunction
    ranks: Ranks = ALONE
    weight: float = 1.0

    @cached_property
    def _constants(self) -> dict[str, Tensor]:
        return {
            name: in_precision(each, torch.float64)
            for name, each in tensors_of(self.model).items()
            if name not in self.layout.names
        }

    @cached_property
    def _pair(self) -> Pair:
        inputs, targets = (in_precision(part, torch.float64) for part in self.data)
        return inputs, targets

    @cached_property
    def _loss_fn(self) -> LossFunction:
        if not isinstance(self.loss_fn, nn.Module):
            return self.loss_fn
        return cast(deep_copy("loss_fn", self.loss_fn), torch.float64)

    @property
    def size(self) -> float:
        """The root mean square of the weights; 1 if all are 0."""
        return self.root_mean_square(self.theta) or 1.0

    def root_mean_square(self, vector: Tensor) -> float:
        """The root mean square of a vector's entries, on all ranks."""
        length, entries = self.length(vector), self.total(float(len(vector)))
        return length / math.sqrt(entries)

    def length(self, vector: Tensor) -> float:
        """The length of a vector, on all ranks."""
        return math.sqrt(self.total(norm(vector) ** 2))

    def total(self, own: float) -> float:
        """The sum over ranks that hold a part of each vector."""
        if not self.ranks.share_vectors:
            return own
        number = torch.tensor(own, dtype=torch.float64, device=self.theta.device)
        return self.ranks.over_entries(number).item()

    @cached_property
    def _first_pass(self) -> _FirstPass:
        def loss_and_largest(outputs: Any) -> tuple[float, float]:
            largest = max((part.abs().max().item() for part in inexact(outputs) if part.numel()), default=0.0)
            return abs(self.loss(outputs).item()), largest

        with Float64Throughout() as kept:
            (loss, largest), operations = with_flops(lambda: self.at_its_weights(loss_and_largest))
        return _FirstPass(kept.casts, kept.shortens, operations, loss, largest)

    def throughout(self) -> AbstractContextManager[object]:
        """A context for derivatives, in which a model or loss that casts to float32 computes in float64."""
        return Float64Throughout() if self._first_pass.casts else nullcontext()

    @property
    def loses_precision(self) -> bool:
        """Whether the model or the loss rounds to a shorter dtype even so, so that short differences are noise."""
        return self._first_pass.shortens

    @property
    def rounded(self) -> float:
        """The size of the numbers that are rounded in the loss: of the loss or of the largest output.

        Cross-entropy is a difference of outputs. Where all samples are fitted, it can be smaller than their rounding.
        """
        return max(self.total(self._first_pass.loss), self.total(self._first_pass.largest_output))

    def is_near_rounding(self, share: float, dtype: torch.dtype) -> bool:
        """Whether the rounding of the loss in a dtype is more than this share of the loss."""
        rounding = torch.finfo(dtype).eps * self.rounded
        return rounding > share * self.total(self._first_pass.loss)

    def is_below_rounding(self, step: float) -> bool:
        """Whether a change of the loss by this share would be lost in its rounding."""
        return self.is_near_rounding(step / ROUNDING, torch.float64)

    @property
    def operations(self) -> float | None:
        """Floating-point operations of a forward pass; None for a model that does not run in float64."""
        try:
            return self._first_pass.operations
        except Exception:
            return None

    def drawn(self, seed: int, moved: float = MOVED) -> Drawn:
        """A draw of a way from the weights, as long as `moved` says, and of a direction there."""
        generator = torch.Generator().manual_seed(seed)
        shifts, steps = (
            torch.randint(
                -LARGEST, LARGEST, self.theta.shape, generator=generator, dtype=torch.int8, device="cpu"
            )
            for _ in range(2)
        )
        fractions = torch.rand(
            min(len(self.theta), PIECE), generator=generator, dtype=torch.float64, device="cpu"
        )
        # no weight stays where it is
        steps += steps >= 0
        device = self.theta.device
        unit = self.size / ROOT_MEAN_SQUARE
        return Drawn(shifts.to(device), steps.to(device), fractions.to(device), unit, moved)

    def run(self, theta: Tensor, use: Callable[[Tensor, Any], T]) -> T:
        """`use(variable, outputs)`: the weights (n,) as a variable, and outputs that depend on it."""
        variable = theta.detach().requires_grad_()
        return self.at(self.layout.unflatten(variable), lambda outputs: use(variable, outputs))

    @torch.enable_grad()
    def at_its_weights(self, use: Callable[[Any], T]) -> T:
        """`use(outputs)` at the weights, which are no variables: torch records what the pass itself differentiates."""
        return self.at(self.layout.unflatten(self.theta.detach().double()), use)

    def at(self, weights: Mapping[str, Tensor], use: Callable[[Any], T]) -> T:
        """`use(outputs)`: outputs that depend on the weights, which are tensors by name in float64."""
        return with_weights(
            self.model,
            {**self._constants, **weights},
            lambda model: use(self.forward(model, copied_to(self._pair[0], self.theta.device))),
        )

    def loss(self, outputs: Any) -> Tensor:
        """The mean loss."""
        return self._loss_fn(outputs, copied(self._pair[1])) * self.weight


def few_and_more(of: Callable[[Pair], InFloat64], data: Pair, chunk_size: int) -> tuple[InFloat64, InFloat64]:
    """The loss of `SAMPLES` samples, or of `FEWER` where a pass is expensive; and of more where that is cheap.

    Args:
        of: some samples -> their loss.
        data: the samples, of which some are chosen, evenly spaced and with rare labels; or a batch that cannot be cut.
        chunk_size: most samples that are run at a time, beyond `SAMPLES`.
    """
    most = min(MOST, max(chunk_size, SAMPLES))
    data = telling_samples(data, most)
    few = of(_spread(data, SAMPLES))
    known = [each for each in few.ranks.gathered(few.operations) if each is not None]
    # all ranks take as many, because under FSDP2 they communicate within a pass
    operations = max(known, default=WORK)
    if operations > EXPENSIVE:
        few = of(_spread(data, FEWER))
        return few, few
    count = min(most, int(SAMPLES * WORK / max(operations, 1)))
    return few, of(_spread(data, count)) if count > SAMPLES else few


def _spread(pair: Pair, count: int) -> Pair:
    samples = samples_in(pair)
    if samples is None or samples <= count:
        return pair
    return rows_of(pair, torch.linspace(0, samples - 1, count, device="cpu").long())
