"""A few samples in float64. In float64 short differences of losses and of gradients are good derivatives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from landscape.fx.flops import with_flops
from landscape.loss.batches import copied_to, in_precision
from landscape.loss.complex_numbers import cast, is_whole
from landscape.loss.counts import Pair
from landscape.loss.long_vectors import norm
from landscape.loss.task import Forward, LossFunction
from landscape.loss.weights import ParameterLayout, tensors_of, with_weights
from landscape.ranks import ALONE, Ranks

MOVED = 0.01
"""Derivatives are compared at points this far from the weights, relative to them: weights of 0 may lie on a kink."""

SAMPLES = 4
"""Samples of which derivatives are compared. A derivative is missing for all samples or for none."""

FEWER = 2
"""Samples where a pass is expensive."""

EXPENSIVE = 2e9
"""Operations of a forward pass of `SAMPLES` samples. The comparisons cost some 20 such passes in float64:
for large images more than the products of a search."""

T = TypeVar("T")


class Shortened(TorchDispatchMode):
    """A context that notes whether an operation turns a tensor in float64 (real or complex) into a shorter dtype.

    Attributes:
        found: whether an operation did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the operation."""
        result = function(*arguments, **(options or {}))
        if any(leaf.dtype in LONG for leaf in _inexact((arguments, options))):
            self.found |= any(leaf.dtype not in LONG for leaf in _inexact(result))
        return result


LONG = (torch.float64, torch.complex128)

EPS = torch.finfo(torch.float64).eps
ROUNDING = 10
"""Rounding of a loss, in units in the last place."""


def _inexact(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and not is_whole(leaf)]


@dataclass(frozen=True)
class _FirstPass:
    """What the first pass shows: shortened dtypes, floating-point operations, |loss|, and the largest output."""

    shortens: bool
    operations: float
    loss: float
    largest_output: float


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
        return cast(copy.deepcopy(self.loss_fn), torch.float64)

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
        def loss_and_largest(_: Tensor, outputs: Any) -> tuple[float, float]:
            largest = max(
                (part.abs().max().item() for part in _inexact(outputs) if part.numel()), default=0.0
            )
            return abs(self.loss(outputs).item()), largest

        with Shortened() as shortened, torch.no_grad():
            theta = self.theta.double()
            (loss, largest), operations = with_flops(lambda: self.run(theta, loss_and_largest))
        return _FirstPass(shortened.found, operations, loss, largest)

    @property
    def loses_precision(self) -> bool:
        """Whether the model or the loss rounds to a shorter dtype, so that short differences are noise."""
        return self._first_pass.shortens

    @property
    def rounded(self) -> float:
        """The size of the numbers that are rounded in the loss: of the loss or of the largest output.

        Cross-entropy is a difference of outputs. Where all samples are fitted, it can be smaller than their rounding.
        """
        return max(self.total(self._first_pass.loss), self.total(self._first_pass.largest_output))

    def is_below_rounding(self, step: float) -> bool:
        """Whether a change of the loss by this share would be lost in its rounding."""
        return self.total(self._first_pass.loss) * step < ROUNDING * EPS * self.rounded

    @property
    def is_expensive(self) -> bool:
        """Whether a forward pass takes more than `EXPENSIVE` operations; False for a model that has none in float64."""
        try:
            return self._first_pass.operations > EXPENSIVE
        except Exception:
            return False

    def draws(self, seed: int) -> tuple[Tensor, Tensor]:
        """Weights nearby, and a direction of the weights' size."""
        generator = torch.Generator().manual_seed(seed)
        shift, vector = (
            self.size * torch.randn(self.theta.shape, generator=generator, dtype=torch.float64, device="cpu")
            for _ in range(2)
        )
        return self.theta.double() + MOVED * shift.to(self.theta.device), vector.to(self.theta.device)

    def run(self, theta: Tensor, use: Callable[[Tensor, Any], T]) -> T:
        """`use(variable, outputs)`: the weights (n,) as a variable, and outputs that depend on it."""
        variable = theta.detach().requires_grad_()
        return self.at(self.layout.unflatten(variable), lambda outputs: use(variable, outputs))

    def at(self, weights: Mapping[str, Tensor], use: Callable[[Any], T]) -> T:
        """`use(outputs)`: outputs that depend on the weights, which are tensors by name in float64."""
        return with_weights(
            self.model,
            {**self._constants, **weights},
            lambda model: use(self.forward(model, copied_to(self._pair[0], self.theta.device))),
        )

    def loss(self, outputs: Any) -> Tensor:
        """The mean loss."""
        return self._loss_fn(outputs, self._pair[1]) * self.weight


def affordable(of: Callable[[Pair], InFloat64], first: Callable[[int], Pair]) -> InFloat64:
    """The loss of the first `SAMPLES` samples, or of `FEWER` where a pass is expensive.

    Args:
        of: some samples -> their loss.
        first: a number -> so many of the first samples.
    """
    few = of(first(SAMPLES))
    # all ranks take as many, because under FSDP2 they communicate within a pass
    return of(first(FEWER)) if any(few.ranks.gathered(few.is_expensive)) else few
