"""Checks that a model's gradient is the gradient of its loss, by a derivative and a difference of losses."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.counts import Pair
from landscape.guards.draws_that_differ import error_of_draws
from landscape.guards.in_float64 import EPS, MOVED, Drawn, InFloat64, few_and_more
from landscape.guards.rounding import warn_of_rounded_gradient
from landscape.model.derivatives import padding_rows
from landscape.model.long_vectors import PIECE
from landscape.model.settled import DRAWS_AT_KINKS, error_beyond_differences

STEP = 1e-7
"""Length of a step, relative to the weights. So short a step needs float64, and seldom crosses the kink of a ReLU."""

ROUNDING = 100
"""Two equal losses may differ by this many units in the last place of the loss, or of the largest output."""

REENTRANT = (
    "model: it uses reentrant checkpoints (torch.utils.checkpoint), of which torch gives no gradient in chosen "
    "weights; give checkpoint use_reentrant=False, or gradient_checkpointing_kwargs={'use_reentrant': False} for a "
    "model of transformers; losses and surfaces can be computed as it is"
)


def check_first_derivatives(of: Callable[[Pair], InFloat64], data: Pair, chunk_size: int) -> None:
    """Compares the gradient of some samples' loss along a direction with differences of the loss.

    They are compared near the weights, and at the weights themselves, because torch gets some functions wrong at single
    points (the determinant of a singular matrix). There is no comparison if the model does not run in float64. Casts to
    shorter dtypes are left out. A point at which the differences do not settle is not compared either.

    Args:
        of, data, chunk_size: as for `few_and_more`.

    Raises:
        ValueError: the derivatives and the differences disagree at two points and in two directions, or at the weights
            in four; or the model uses reentrant checkpoints.

    Warns:
        UserWarning: as `warn_of_rounded_gradient` says.
    """
    few, more = few_and_more(of, data, chunk_size)
    _check_along_lines(few, more)
    _warn_of_padding_rows(more)
    warn_of_rounded_gradient(more)


def _check_along_lines(few: InFloat64, more: InFloat64) -> None:
    if (error := error_of_draws(more, partial(_error, more), _tell_of_reentrant_checkpoints)) is not None:
        raise ValueError(
            f"{_WRONG.format(error)}; a straight-through estimator, a reversed or scaled gradient, a hook that changes "
            "gradients, a detach() or no_grad() of what depends on the weights, a reentrant checkpoint, or a write to "
            "weights within forward gives such gradients; freeze weights that are cut off (requires_grad_(False)), "
            "give checkpoints use_reentrant=False; losses and surfaces can still be computed"
        )
    at_weights = partial(_error, few, moved=0.0)
    if (error := error_of_draws(few, at_weights, draws=DRAWS_AT_KINKS)) is not None:
        raise ValueError(
            f"{_WRONG.format(error)}, exactly at these weights and not beside them; torch gives some functions a wrong "
            "gradient at a singular point, such as a determinant at a matrix with a row of 0; write the function in "
            "plain operations, or move the weights a little; losses and surfaces can still be computed"
        )


def _warn_of_padding_rows(more: InFloat64) -> None:
    """Warns of a padding row that is a variable elsewhere, as in a tied head, and as an input moves the loss, too."""
    padded = [each for each in more.model.modules() if getattr(each, "padding_idx", None) is not None]
    if not padded:
        return
    if more.ranks.share_vectors:
        _warn_of_tied_padding_rows(more.model, padded)
        return
    found: list[str] = []
    if error_of_draws(more, partial(_error_of_padding_rows, more, found), draws=1) is not None:
        warnings.warn(
            f"model: {' and '.join(found)} is a constant to torch as an input (padding_idx) and a variable elsewhere, "
            "such as in a tied head; the loss depends on it as an input too: gradients and matrices of curvature hold "
            "it there, as training does, while surfaces and sharpness move it; where it is an ordinary input, give "
            "embedding.padding_idx = None",
            stacklevel=5,
        )


def _warn_of_tied_padding_rows(model: nn.Module, padded: list[nn.Module]) -> None:
    """The same under FSDP2, where no rank may take passes of its own: whether the loss depends on them is not known."""
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    if any(uses[id(weight)] > 1 for each in padded for weight in each.parameters(recurse=False)):
        warnings.warn(
            "model: the padding row of an embedding (padding_idx) that is tied to another layer is a constant to torch "
            "as an input and a variable elsewhere, and under FSDP2 it is not checked whether the loss depends on it as "
            "an input too; where it may, give embedding.padding_idx = None",
            stacklevel=5,
        )


@torch.enable_grad()
def _error_of_padding_rows(few: InFloat64, found: list[str], seed: int) -> float | None:
    """How far derivative and difference are apart along padding rows that are no inputs alone; `found` gets names."""
    drawn = few.drawn(seed, moved=0.0)
    line = _Line(few, drawn)
    line.slope()
    if not line.used_otherwise:
        return None
    drawn.steps.zero_()
    for (name, row), (step, _) in line.used_otherwise.items():
        few.layout.unflatten(drawn.steps)[name][row] = step
        found.append(f"row {row} of {name!r}")
    slope, short = sum(slope for _, slope in line.used_otherwise.values()), line.rise(STEP / 2)
    return error_beyond_differences(
        slope,
        short,
        length=abs,
        rounding=lambda: ROUNDING * EPS * few.rounded / STEP,
        spread=lambda: abs(line.rise(STEP) - short),
    )


_WRONG = (
    "model: its gradient is not that of its loss: along a direction the two differ by {:.2g} of the gradient"
)


def _tell_of_reentrant_checkpoints(failure: Exception) -> None:
    if "use_reentrant" in str(failure):
        raise ValueError(REENTRANT) from failure


@torch.enable_grad()
def _error(few: InFloat64, seed: int, moved: float = MOVED) -> float | None:
    """The relative difference near theta, or at it; None if it is within the error of the differences."""
    line = _Line(few, few.drawn(seed, moved))
    # before the losses, because it finds the rows that are not moved
    found, short = line.slope(), line.rise(STEP / 2)
    return error_beyond_differences(
        found,
        short,
        length=abs,
        rounding=lambda: ROUNDING * EPS * few.rounded / STEP,
        spread=lambda: abs(line.rise(STEP) - short) + (0.0 if moved else line.bend(STEP)),
    )


@dataclass(frozen=True)
class _Line:
    """A line near the weights. Beside one copy of the weights in float64, it holds two bytes a weight.

    Attributes:
        few: the loss along the line.
        drawn: the line.
        used_otherwise: padding rows that have a gradient, because they are more than inputs: their name and place, the
            step, and the derivative along it.
    """

    few: InFloat64
    drawn: Drawn
    used_otherwise: dict[tuple[str, int], tuple[Tensor, float]] = field(default_factory=dict)

    def weights(self, step: float) -> dict[str, Tensor]:
        """The weights, by name, at a point of the line."""
        point = self.few.theta.to(torch.float64, copy=True)
        return self.few.layout.unflatten(self.drawn.add_to(point, step))

    def slope(self) -> float:
        """The derivative of the loss along the line. Padding rows of embeddings are not moved any more.

        A padding row is a constant to torch, and yet moves the loss. Other weights that are constants were cut off.
        """
        leaves = {name: part.detach().requires_grad_() for name, part in self.weights(0.0).items()}
        steps = self.few.layout.unflatten(self.drawn.steps)
        slopes, held = [], dict[tuple[str, int], Tensor]()

        def take(leaf: Tensor, name: str) -> None:
            assert leaf.grad is not None
            for (owner, row), step in held.items():
                if owner == name and (slope := leaf.grad[row]).any():
                    self.used_otherwise[owner, row] = step, (slope * step).sum().item() * self.drawn.unit
            pieces = zip(leaf.grad.flatten().split(PIECE), steps[name].flatten().split(PIECE), strict=True)
            slopes.append(sum((part * step).sum().item() for part, step in pieces) * self.drawn.unit)
            leaf.grad = None

        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(partial(take, name=name))

        def differentiate(outputs: Any) -> None:
            loss = self.few.loss(outputs)
            if loss.requires_grad:
                for name, row in padding_rows(loss, leaves):
                    # several embeddings may share the weight
                    held.setdefault((name, row), steps[name][row].clone())
                    steps[name][row] = 0
                loss.backward(inputs=list(leaves.values()))

        self.few.at(leaves, differentiate)
        return self.few.total(sum(slopes))

    def rise(self, step: float) -> float:
        """The difference of the losses ahead and behind, by the length between."""
        return (self.loss(step) - self.loss(-step)) / (2 * step)

    def bend(self, step: float) -> float:
        """How far the rises ahead and behind are apart: hardly, but for a kink at the very point."""
        return abs(self.loss(step) - 2 * self.loss(0.0) + self.loss(-step)) / step

    def loss(self, step: float) -> float:
        """The loss at a point of the line, on all ranks."""
        return self.few.total(self.few.at(self.weights(step), lambda outputs: self.few.loss(outputs).item()))
