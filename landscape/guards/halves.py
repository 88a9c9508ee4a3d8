"""The check that the loss of each chunk, and its gradient, is the counted mean over the halves of the chunk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.data.batches import copied_to, form_of, joined, mapped, rows_of, samples_in
from landscape.data.counts import Counting, Pair
from landscape.data.random_state import borrowed_generators
from landscape.data.samples import Chunk
from landscape.data.task import Forward, LossFunction, Task
from landscape.fx.threads import ThreadLock
from landscape.guards.agreement import agree_but_for_rounding
from landscape.guards.float64_throughout import Float64Throughout
from landscape.guards.in_float64 import InFloat64
from landscape.guards.mean_over_parts import ALLOWED, check_that_counts_add_up
from landscape.guards.one_form import OneForm
from landscape.guards.parts import Difference, Found, reversed_rows, unused_outputs
from landscape.guards.repeated_runs import UNORDERED
from landscape.model.precision import full_float32
from landscape.model.weights import ParameterLayout, with_weights
from landscape.model.without_gradients import without_gradients
from landscape.ranks import Ranks, is_settled

ALLOWED_OF_GRADIENT = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Allowed difference between two ways to compute one gradient, as a share of it; `UNSURE` in the shorter dtypes."""

UNSURE = 0.1
"""Above this share a gradient is refused where it cannot be had in float64."""

IN_FLOAT64 = 1e-6
"""Allowed share in float64, of losses and gradients."""

DOUBTS = 4
"""Chunks whose differences float64 may explain as rounding. Gradients of further chunks are not compared."""

FEW = 8
"""Samples that tell in which parameter the loss has a gradient; and those that are compared beside the chunk before."""

TRIED = 16
"""Parameters, from the last one on, of which one must have a gradient that is more than rounding."""

NOISE = {torch.float64: 1e-8}
"""By this share, 0.05 in shorter dtypes, a gradient may change with the order of the samples. It changes by all of
itself where only rounding is left of it, as before a softmax that cancels a bias, and at weights that fit all data."""

FLOOR = 10
"""A difference is none where the order of the samples alone makes a tenth of it."""


@dataclass(eq=False)
class Halves:
    """Compares each chunk with its halves, and some samples of it with some of the chunk before.

    All is compared at the model's own weights. The gradient in a single parameter, the last one that has a gradient of
    more than rounding, costs little more than a forward pass. It tells a loss that is no mean where all samples have
    about the same loss.

    Attributes:
        model: in evaluation mode.
        run: (model, inputs) -> outputs.
        layout: of the variables.
        theta: the variables (n,).
        loss_fn: (outputs, targets) -> mean loss.
        counting: the weights of batches.
        ranks: the processes that measure together. Under FSDP2 all take the same passes, and compare losses alone.
        exclusive: held while the model runs.
        differentiates: whether a forward pass takes derivatives by itself.
        writes_weights: whether a forward pass writes to its weights; it has no gradient.
        task: how batches are given to the model and the loss.
    """

    model: nn.Module
    run: Forward
    layout: ParameterLayout
    theta: Tensor
    loss_fn: LossFunction
    counting: Counting
    ranks: Ranks
    exclusive: ThreadLock
    differentiates: bool
    writes_weights: bool
    task: Task

    @classmethod
    def of(cls, objective: Any) -> Halves:
        """The check of an Objective. It does not hold the Objective, which holds it."""
        return cls(**{name: getattr(objective, name) for name in cls.__dataclass_fields__})

    def __post_init__(self) -> None:
        self._parameter: str | None = None
        self._was_chosen = self.writes_weights or self.ranks.share_vectors
        self._doubts = self._samples = 0
        self._form = OneForm(self.counting, self.task.takes_whole_batches)
        self._before: Pair | None = None
        self._unused: frozenset[int] | None = None

    @full_float32()
    def __call__(self, index: int, chunk: Chunk) -> None:
        """Compares a chunk.

        Raises:
            ValueError: the loss of the chunk or its gradient is not the counted mean over its halves, or a sample has
                other numbers of outputs or targets than those before and nothing says what the loss divides by.
        """
        start, samples = self._samples, samples_in(chunk.pair) or 0
        self._samples += chunk.samples
        place = f"chunk {index} of the data (samples {start} to {start + samples - 1})"
        together = self.ranks.share_vectors
        is_compared = samples > together and bool(chunk.weight)
        if not (all(self.ranks.gathered(is_compared)) if together else is_compared):
            return
        # the caller may be in inference mode, whose tensors cannot be differentiated
        with (
            self.ranks.together() if together else nullcontext(),
            self.exclusive,
            borrowed_generators(self.theta.device),
            torch.inference_mode(False),
        ):
            self._choose_parameter(rows_of(chunk.pair, slice(0, FEW)))
            self._compare_halves(place, chunk.pair, samples)
            if not together:
                self._compare_with_before(place, chunk.pair, samples)

    def _compare_halves(self, place: str, pair: Pair, samples: int) -> None:
        if samples == 1:
            self._form.check(place, pair, samples, self._found(pair), None)
            return
        halves = [rows_of(pair, rows) for rows in (slice(0, samples // 2), slice(samples // 2, samples))]
        found = self._compare(place, pair, halves)
        if found is not None:
            self._form.check(place, pair, samples, *found)

    def _compare_with_before(self, place: str, pair: Pair, samples: int) -> None:
        """Sorted data have one class in a chunk, and another class in the next; so it is with padding."""
        few = mapped(rows_of(pair, slice(0, min(FEW, (samples + 1) // 2))), lambda tensor: tensor.clone())
        before, self._before = self._before, few
        if before is not None and form_of(before) == form_of(few):
            self._compare(f"{place}, beside some of the chunk before,", joined([before, few]), [before, few])

    def _compare(self, place: str, pair: Pair, parts: Sequence[Pair]) -> tuple[Found, Found] | None:
        """What passes over all and over the first part gave; None for a model that cannot be run on the parts."""
        weights = [self.counting.weight_of(part) for part in parts]
        check_that_counts_add_up(self.counting, pair, sum(weights))
        if not any(weights):
            return None
        try:
            whole, *apart = [self._found(each) for each in (pair, *parts)]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if is_settled(error):
                raise
            # some models take batches of one size only; a batch that fails does so again in the measure
            return None
        found = Difference.between(whole, apart, weights, self.counting.whole)
        dtype = self.theta.dtype
        of_loss = max(ALLOWED.get(each, 0.05) for each in (dtype, whole.dtype))
        if found.exceeds(of_loss, ALLOWED_OF_GRADIENT.get(dtype, UNSURE)):
            self._check_that_it_repeats(place, pair, whole)
            precise = None if self.ranks.share_vectors else self._in_float64(pair, parts, weights)
            if precise is None and found.of_gradient > UNSURE:
                found = found.beyond(FLOOR * whole.change(self._found(reversed_rows(pair))))
            if found.exceeds(of_loss, UNSURE) if precise is None else precise.exceeds(IN_FLOAT64, IN_FLOAT64):
                raise self._refusal(place, pair, parts, precise or found)
            self._doubts += 1
            self._parameter = self._parameter if self._doubts < DOUBTS else None
        return whole, apart[0]

    def _choose_parameter(self, few: Pair) -> None:
        """Chooses the last parameter in which the loss of a few samples has a gradient of more than rounding."""
        if self._was_chosen:
            return
        self._was_chosen = True
        for name in list(reversed(self.layout.names))[:TRIED]:
            self._parameter = name
            try:
                found, other = (self._found(each) for each in (few, reversed_rows(few)))
            except Exception:
                # models without derivatives, whose losses can be had
                break
            if found.change(other) <= NOISE.get(self.theta.dtype, 0.05):
                return
        self._parameter = None

    def _found(self, pair: Pair) -> Found:
        weights = self.layout.unflatten(self.theta.clone() if self.writes_weights else self.theta)
        variable = self._variable_among(weights)

        def found(model: nn.Module) -> Found:
            inputs, targets = self._copied(pair)
            outputs = self.run(model, inputs)
            if self._unused is None:
                self._unused = self._unused_among(outputs, targets)
            loss = self.loss_fn(outputs, targets)
            return Found.of(loss, outputs, self._targets_of(pair), variable, self._unused)

        with self._recording(variable):
            return with_weights(self.model, weights, found)

    def _in_float64(self, pair: Pair, parts: Sequence[Pair], weights: Sequence[float]) -> Difference | None:
        """The difference in float64; None if the model or the loss does not run in it."""

        def found(part: Pair) -> Found:
            few = InFloat64(self.model, self.run, self.layout, self.theta, self._copied(part), self.loss_fn)
            at = few.layout.unflatten(few.theta.double())
            variable = self._variable_among(at)
            with self._recording(variable):
                return few.at(
                    at, lambda outputs: Found.of(few.loss(outputs), outputs, self._targets_of(part), variable)
                )

        try:
            with Float64Throughout() as kept:
                whole, *apart = [found(each) for each in (pair, *parts)]
                difference = Difference.between(whole, apart, weights, self.counting.whole)
                if difference.of_gradient > IN_FLOAT64:
                    difference = difference.beyond(FLOOR * whole.change(found(reversed_rows(pair))))
        except torch.OutOfMemoryError:
            raise
        except Exception:
            # the model or the loss has a dtype of its own inside
            return None
        # in a shorter dtype samples are rounded alike in any batch, and their sums are not
        is_rounding = kept.shortens and not difference.exceeds(*[1e-3] * 2)
        return Difference(difference.whole, difference.mean, 0.0, 0.0) if is_rounding else difference

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
        if self._parameter is None:
            return None
        weights[self._parameter] = weights[self._parameter].detach().requires_grad_()
        return weights[self._parameter]

    def _recording(self, variable: Tensor | None) -> AbstractContextManager[Any]:
        return without_gradients(self.differentiates) if variable is None else torch.enable_grad()

    def _copied(self, pair: Pair) -> Pair:
        inputs = copied_to(pair[0], self.theta.device)
        # one object, as the model and the loss get it
        return inputs, inputs if self.task.takes_whole_batches else copied_to(pair[1], self.theta.device)

    def _targets_of(self, pair: Pair) -> Any:
        """The targets; None where they are a part of the whole batch."""
        return None if self.task.takes_whole_batches else pair[1]

    def _check_that_it_repeats(self, place: str, pair: Pair, whole: Found) -> None:
        again = self._found(pair)
        if abs(again.loss - whole.loss) > UNORDERED * max(abs(again.loss), abs(whole.loss)) + whole.rounding:
            raise ValueError(
                f"model: the loss of {place} is {whole.loss:.6g} in one run and {again.loss:.6g} in the next, and so "
                "would be every number; take the noise out of evaluation mode (if self.training:), also noise that "
                "only few samples get, or let it be a part of the inputs"
            )

    def _refusal(self, place: str, pair: Pair, parts: Sequence[Pair], found: Difference) -> ValueError:
        if self._mixes(pair, parts):
            return ValueError(
                f"model: its outputs for a sample of {place} depend on the other samples of the batch, so that the "
                "loss is no mean over samples; let forward not cut or scale by the whole batch (its longest sequence, "
                "its largest entry, a capacity); padding that is masked changes nothing"
            )
        cause = f"{place} has {found.whole:.6g}, its parts by their counts {found.mean:.6g}"
        if found.of_gradient:
            cause += f", and their gradients differ by {found.of_gradient:.2g}"
        return ValueError(
            f"loss_fn: is not the mean over the samples, as they are counted: {cause}; give count=, a function from a "
            "batch to what its mean loss divides by (samples, tokens, the sum of weights); a loss that chooses among "
            "or compares the samples of a batch has no such mean: a batch stays whole if it also holds a tensor "
            "without samples, such as torch.tensor(0)"
        )

    def _mixes(self, pair: Pair, parts: Sequence[Pair]) -> bool:
        """Whether the outputs of a part depend on the others."""

        def outputs_of(part: Pair) -> Any:
            return with_weights(
                self.model,
                self.layout.unflatten(self.theta.clone()),
                lambda model: self.run(model, self._copied(part)[0]),
            )

        with without_gradients(self.differentiates):
            outputs, apart = outputs_of(pair), [outputs_of(part) for part in parts]
        are_rows = isinstance(outputs, Tensor) and samples_in(outputs) == samples_in(pair)
        return are_rows and not agree_but_for_rounding(torch.cat(apart), outputs)
