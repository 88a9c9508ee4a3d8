"""Passes over some samples at a model's own weights: their loss, and its gradient in one parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.batches import copied_to, in_precision, mapped
from landscape.data.counts import Pair
from landscape.data.task import Forward, LossFunction, Task
from landscape.guards.float64_throughout import Float64Throughout
from landscape.guards.in_float64 import InFloat64
from landscape.guards.parts import Difference, Found, reversed_rows, rounded_otherwise, unused_outputs
from landscape.model.weights import ParameterLayout, with_weights
from landscape.model.without_gradients import without_gradients

TRIED = 16
"""Parameters, from the last one on, of which one must have a gradient that is more than rounding."""

NOISE = {torch.float64: 1e-8}
"""By this share, 0.05 in shorter dtypes, a gradient may change with the order of the samples, and with the rounding of
weights and inputs. It changes by all of itself where only rounding is left of it, as before a softmax that cancels a
bias, and at weights that fit all data. One order may by chance give the rounding of the other."""

SCALE = 3.0
"""A factor of the loss. What rounding leaves of few samples can be the same in both orders, but not so scaled."""

FLOOR = 10
"""A difference is none where the order of the samples, or rounding, alone makes a tenth of it."""

LEAST = 1e-6
"""Share by which losses and gradients may differ in float64."""


@dataclass(eq=False)
class Passes:
    """Passes at the model's own weights.

    Attributes:
        model: in evaluation mode.
        run: (model, inputs) -> outputs.
        layout: of the variables.
        theta: the variables (n,).
        loss_fn: (outputs, targets) -> mean loss.
        differentiates: whether a forward pass takes derivatives by itself.
        writes_weights: whether a forward pass writes to its weights; it has no gradient.
        task: how batches are given to the model and the loss.
        parameter: the parameter in which the gradient is taken; None if none is.
    """

    model: nn.Module
    run: Forward
    layout: ParameterLayout
    theta: Tensor
    loss_fn: LossFunction
    differentiates: bool
    writes_weights: bool
    task: Task
    parameter: str | None = None

    def __post_init__(self) -> None:
        self._unused: frozenset[int] | None = None

    def choose_parameter(self, few: Pair) -> None:
        """Chooses the last parameter in which the loss of a few samples has a gradient of more than rounding."""
        for name in list(reversed(self.layout.names))[:TRIED]:
            self.parameter = name
            try:
                found, scaled = self.found(few), self.found(few, SCALE)
                change = max(found.change(scaled), self.noise_of(found, few))
            except Exception:
                # models without derivatives, whose losses can be had
                break
            if change <= NOISE.get(self.theta.dtype, 0.05):
                return
        self.parameter = None

    def noise_of(self, found: Found, pair: Pair) -> float:
        """The share of a gradient of some samples by which it changes with their order, or with rounding."""
        return found.noise(
            self.found(reversed_rows(pair)),
            _unless_refused(
                lambda: self.found(
                    (mapped(pair[0], rounded_otherwise), pair[1]), theta=rounded_otherwise(self.theta)
                ),
                found,
            ),
        )

    def found(self, pair: Pair, scale: float = 1.0, theta: Tensor | None = None) -> Found:
        """What a pass over some samples gives, in the dtype of the weights.

        Args:
            pair: the samples.
            scale: a factor of the loss by way of which the gradient is taken.
            theta: weights in place of the model's own.
        """
        theta = self.theta if theta is None else theta
        weights = self.layout.unflatten(theta.clone() if self.writes_weights else theta)
        variable = self._variable_among(weights)

        def found(model: nn.Module) -> Found:
            inputs, targets = self._copied(pair)
            outputs = self.run(model, inputs)
            if self._unused is None:
                self._unused = self._unused_among(outputs, targets)
            loss = self.loss_fn(outputs, targets)
            return Found.of(loss, outputs, self._targets_of(pair), variable, self._unused, scale)

        with self._recording(variable):
            return with_weights(self.model, weights, found)

    def difference_in_float64(
        self, pair: Pair, parts: Sequence[Pair], weights: Sequence[float], total: Callable[[float], float]
    ) -> Difference | None:
        """`Difference.between` some samples and their parts, in float64; None if the model or loss does not run in it.

        Beyond `LEAST`, a difference of gradients that the order of the samples or rounding explains is left out.
        """

        def found(part: Pair, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Found:
            inputs, targets = in_precision(part, torch.float64)
            part = self._copied((mapped(inputs, change), targets))
            few = InFloat64(self.model, self.run, self.layout, self.theta, part, self.loss_fn)
            at = few.layout.unflatten(change(few.theta.double()))
            variable = self._variable_among(at)
            with self._recording(variable):
                return few.at(
                    at, lambda outputs: Found.of(few.loss(outputs), outputs, self._targets_of(part), variable)
                )

        try:
            with Float64Throughout() as kept:
                whole, *apart = [found(each) for each in (pair, *parts)]
                difference = Difference.between(whole, apart, weights, total)
                if difference.of_gradient > LEAST:
                    rounded = _unless_refused(lambda: found(pair, rounded_otherwise), whole)
                    noise = whole.noise(found(reversed_rows(pair)), rounded)
                    difference = difference.beyond(FLOOR * noise)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            # the model or the loss has a dtype of its own inside
            return None
        # in a shorter dtype samples are rounded alike in any batch, and their sums are not
        is_rounding = kept.shortens and not difference.exceeds(*[1e-3] * 2)
        return Difference(difference.whole, difference.mean, 0.0, 0.0) if is_rounding else difference

    def outputs(self, pair: Pair) -> Any:
        """The model's outputs for some samples."""
        weights = self.layout.unflatten(self.theta.clone())
        with without_gradients(self.differentiates):
            return with_weights(self.model, weights, lambda model: self.run(model, self._copied(pair)[0]))

    def _unused_among(self, outputs: Any, targets: Any) -> frozenset[int]:
        if isinstance(outputs, Tensor):
            return frozenset()
        try:
            return unused_outputs(outputs, lambda some: self.loss_fn(some, targets))
        except Exception:
            # outputs of a form that cannot be made anew, or a loss without a derivative
            return frozenset()

    def _variable_among(self, weights: dict[str, Tensor]) -> Tensor | None:
        """Puts the parameter whose gradient is taken among the weights as a variable, and returns it."""
        if self.parameter is None:
            return None
        weights[self.parameter] = weights[self.parameter].detach().requires_grad_()
        return weights[self.parameter]

    def _recording(self, variable: Tensor | None) -> AbstractContextManager[Any]:
        return without_gradients(self.differentiates) if variable is None else torch.enable_grad()

    def _copied(self, pair: Pair) -> Pair:
        inputs = copied_to(pair[0], self.theta.device)
        # one object, as the model and the loss get it
        return inputs, inputs if self.task.takes_whole_batches else copied_to(pair[1], self.theta.device)

    def _targets_of(self, pair: Pair) -> Any:
        """The targets; None where they are a part of the whole batch."""
        return None if self.task.takes_whole_batches else pair[1]


def _unless_refused(moved: Callable[[], Found], found: Found) -> Found:
    """What a pass over moved inputs gives; where the model does not take these, what the first pass gave."""
    try:
        return moved()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # such as inputs that must be at most 1
        return found
