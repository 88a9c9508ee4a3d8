"""The loss of some samples, and its gradient in one parameter, beside the counted mean over their parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from landscape.data.batches import rows_of, samples_in
from landscape.data.counts import Pair
from landscape.guards.repeated_runs import is_dense, is_inexact

ROUNDINGS = 50
"""Roundings of the largest output by which losses may differ: cross-entropy is a difference of outputs."""


NEAR = 1e-3
"""Relative change of a loss beyond which numbers that are rounded otherwise are other numbers."""

MOVED = 4
"""Roundings by which numbers are moved that tell how much of a gradient is rounding."""


@dataclass(frozen=True)
class Found:
    """What a pass over some samples gives.

    Attributes:
        loss: the mean loss.
        gradient: of the loss in one parameter; None if it is not asked for.
        rounding: of the largest output, by which the loss may be off.
        dtype: of the loss.
        rows, entries: first sizes and numbers of entries of the outputs, and of the targets where they are apart.
    """

    loss: float
    gradient: Tensor | None
    rounding: float
    dtype: torch.dtype
    rows: tuple[int, ...]
    entries: tuple[int, ...]

    @classmethod
    def of(
        cls,
        loss: Tensor,
        outputs: Any,
        targets: Any = None,
        variable: Tensor | None = None,
        unused: frozenset[int] = frozenset(),
        scale: float = 1.0,
    ) -> Found:
        """What a pass gives.

        Args:
            loss: the mean loss.
            outputs: of the model.
            targets: where they are apart from the inputs; otherwise None.
            variable: the parameter whose gradient is taken, if one is.
            unused: places of outputs on which the loss does not depend.
            scale: a factor of the loss whose gradient is taken, and by which it is divided again.
        """
        leaves = [leaf for leaf in tree_leaves(outputs) if is_inexact(leaf)]
        largest = max((float(leaf.detach().abs().amax()) for leaf in leaves if leaf.numel()), default=0.0)
        gradient = None
        if variable is not None and loss.requires_grad:
            (gradient,) = torch.autograd.grad(
                loss * scale, variable, allow_unused=True, materialize_grads=True
            )
            gradient = gradient / scale
        of_targets = [leaf for leaf in tree_leaves(targets) if is_dense(leaf)]
        used = [leaf for place, leaf in enumerate(leaves) if place not in unused]
        sized = [leaf for leaf in [*used, *of_targets] if leaf.ndim]
        return cls(
            loss.detach().item(),
            gradient,
            ROUNDINGS * torch.finfo(loss.dtype).eps * largest if math.isfinite(largest) else 0.0,
            loss.dtype,
            tuple(map(len, sized)),
            tuple(leaf.numel() for leaf in sized),
        )

    def change(self, other: Found) -> float:
        """The distance from another gradient, as a share of this one; infinite where this one is 0 or missing."""
        if self.gradient is None or other.gradient is None:
            return math.inf
        length = float(torch.linalg.vector_norm(self.gradient.double()))
        apart = float(torch.linalg.vector_norm((self.gradient - other.gradient).double()))
        return apart / length if length else math.inf

    def noise(self, in_other_order: Found, rounded: Found) -> float:
        """The share of this gradient by which it changes with the order of the samples, or with rounding.

        Args:
            in_other_order: of the samples in reverse order.
            rounded: with weights and inputs that are rounded otherwise. It is left out where the loss moves by more
                than that, as where a mask among the inputs is compared with 1.
        """
        near = NEAR * abs(self.loss) + self.rounding
        others = [in_other_order, rounded] if abs(rounded.loss - self.loss) <= near else [in_other_order]
        return max(map(self.change, others))


@dataclass(frozen=True)
class Difference:
    """By how much some samples differ from the mean over their parts.

    Attributes:
        whole, mean: the losses.
        of_loss: their difference beyond the rounding of outputs, as a share of the largest loss of a part.
        of_gradient: the difference of the gradients, as a share of the sum of the lengths of their parts.
    """

    whole: float
    mean: float
    of_loss: float
    of_gradient: float

    def beyond(self, noise: float) -> Difference:
        """The same without a difference of gradients that is no more than noise."""
        return self if self.of_gradient > noise else replace(self, of_gradient=0.0)

    def exceeds(self, loss: float, gradient: float) -> bool:
        """Whether one of the differences is larger than allowed; False if both are no numbers."""
        return self.of_loss > loss or self.of_gradient > gradient

    @classmethod
    def between(
        cls, whole: Found, parts: Sequence[Found], weights: Sequence[float], total: Callable[[float], float]
    ) -> Difference:
        """The difference from the mean over the parts that count.

        Args:
            whole: of all samples.
            parts: of the parts.
            weights: of these parts.
            total: sum of the weights -> the weight of the whole.
        """
        counted = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight > 0]
        divisor = total(sum(weight for weight, _ in counted))
        mean, scale = counted_mean([part for _, part in counted], [weight for weight, _ in counted], total)
        apart = max(0.0, abs(whole.loss - mean) - whole.rounding)
        terms = [
            part.gradient.double() * (weight / divisor)
            for weight, part in counted
            if part.gradient is not None
        ]
        of_gradient = 0.0
        if whole.gradient is not None and len(terms) == len(counted):
            length = sum(float(torch.linalg.vector_norm(term)) for term in terms)
            between = float(torch.linalg.vector_norm(whole.gradient.double() - sum(terms)))
            of_gradient = between / length if length else 0.0
        return cls(whole.loss, mean, apart / scale if scale else 0.0, of_gradient)


def counted_mean(
    parts: Sequence[Found], weights: Sequence[float], total: Callable[[float], float]
) -> tuple[float, float]:
    """The mean loss of parts by their weights, and the largest loss of a part.

    Args:
        parts: of some samples.
        weights: of these parts.
        total: sum of the weights -> the weight of the whole.
    """
    loss = sum(weight * part.loss for weight, part in zip(weights, parts, strict=True))
    return loss / total(sum(weights)), max(abs(part.loss) for part in parts)


def reversed_rows(pair: Pair) -> Pair:
    """The same samples in reverse order."""
    return rows_of(pair, torch.arange((samples_in(pair) or 0) - 1, -1, -1, device="cpu"))


def rounded_otherwise(tensor: Tensor) -> Tensor:
    """A tensor of which each number is moved by a few roundings; as it is where it holds whole or short numbers."""
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.layout != torch.strided:
        return tensor
    moved = tensor.detach().clone(memory_format=torch.contiguous_format)
    share = MOVED * torch.finfo(tensor.dtype).eps
    # by threes, so that neighbors are moved otherwise, also across rows of an even length
    for first, sign in ((0, 1), (1, -1), (2, -1)):
        moved.view(-1)[first::3] *= 1 + sign * share
    return moved


def unused_outputs(outputs: Any, loss_of: Callable[[Any], Tensor]) -> frozenset[int]:
    """The places, among the tensors of the outputs, of those on which the loss does not depend, such as hidden states.

    Args:
        outputs: of the model, in any tree.
        loss_of: outputs -> loss.
    """
    leaves, form = tree_flatten(outputs)
    apart = [leaf.detach().requires_grad_() if is_inexact(leaf) else leaf for leaf in leaves]
    with torch.enable_grad():
        loss = loss_of(tree_unflatten(apart, form))
    if not loss.requires_grad:
        return frozenset()
    variables = [leaf for leaf in apart if is_inexact(leaf)]
    slopes = torch.autograd.grad(loss, variables, allow_unused=True)
    return frozenset(place for place, slope in enumerate(slopes) if slope is None)
