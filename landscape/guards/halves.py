"""The check that the loss of each chunk, and its gradient, is the counted mean over the halves of the chunk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from landscape.data.batches import form_of, joined, mapped, rows_of, samples_in
from landscape.data.counts import Counting, Pair
from landscape.data.random_state import borrowed_generators
from landscape.data.samples import Chunk
from landscape.fx.threads import ThreadLock
from landscape.guards.agreement import agree_within
from landscape.guards.mean_over_parts import ALLOWED, check_that_counts_add_up
from landscape.guards.one_form import OneForm
from landscape.guards.parts import Difference, Found
from landscape.guards.passes import FLOOR, LEAST, Passes
from landscape.guards.repeated_runs import ALLOWED_IN_FLOAT64, UNORDERED
from landscape.model.precision import full_float32
from landscape.ranks import Ranks, is_settled

ALLOWED_OF_GRADIENT = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Allowed difference between two ways to compute one gradient, as a share of it; `UNSURE` in the shorter dtypes."""

UNSURE = 0.1
"""Above this share a gradient is refused where it cannot be had in float64."""

DOUBTS = 4
"""Chunks whose differences float64 may explain as rounding. Gradients of further chunks are not compared."""

FEW = 8
"""Samples that tell in which parameter the loss has a gradient; and those that are compared beside the chunk before."""


@dataclass(eq=False)
class Halves:
    """Compares each chunk with its halves, and some samples of it with some of the chunk before.

    All is compared at the model's own weights. The gradient in a single parameter, the last one that has a gradient of
    more than rounding, costs little more than a forward pass. It tells a loss that is no mean where all samples have
    about the same loss.

    Attributes:
        passes: over samples at the model's own weights.
        counting: the weights of batches.
        ranks: the processes that measure together. Under FSDP2 all take the same passes, and compare losses alone.
        exclusive: held while the model runs.
    """

    passes: Passes
    counting: Counting
    ranks: Ranks
    exclusive: ThreadLock

    @classmethod
    def of(cls, objective: Any) -> Halves:
        """The check of an Objective. It does not hold the Objective, which holds it."""
        taken = {
            each.name: getattr(objective, each.name) for each in fields(Passes) if each.name != "parameter"
        }
        return cls(Passes(**taken), objective.counting, objective.ranks, objective.exclusive)

    def __post_init__(self) -> None:
        self._was_chosen = self.passes.writes_weights or self.ranks.share_vectors
        self._doubts = self._samples = 0
        self._form = OneForm(self.counting, self.passes.task.takes_whole_batches)
        self._before: Pair | None = None

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
            borrowed_generators(self.passes.theta.device),
            torch.inference_mode(False),
        ):
            if not self._was_chosen:
                self._was_chosen = True
                self.passes.choose_parameter(rows_of(chunk.pair, slice(0, FEW)))
            self._compare_halves(place, chunk.pair, samples)
            if not together:
                self._compare_with_before(place, chunk.pair, samples)

    def _compare_halves(self, place: str, pair: Pair, samples: int) -> None:
        if samples == 1:
            self._form.check(place, pair, samples, self.passes.found(pair), None)
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
            whole, *apart = [self.passes.found(each) for each in (pair, *parts)]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if is_settled(error):
                raise
            # some models take batches of one size only; a batch that fails does so again in the measure
            return None
        found = Difference.between(whole, apart, weights, self.counting.whole)
        dtype = self.passes.theta.dtype
        of_loss = max(ALLOWED.get(each, 0.05) for each in (dtype, whole.dtype))
        if found.exceeds(of_loss, ALLOWED_OF_GRADIENT.get(dtype, UNSURE)):
            self._check_that_it_repeats(place, pair, whole)
            asked = pair, parts, weights, self.counting.whole
            precise = None if self.ranks.share_vectors else self.passes.difference_in_float64(*asked)
            if precise is None and found.of_gradient > UNSURE:
                found = found.beyond(FLOOR * self.passes.noise_of(whole, pair))
            if found.exceeds(of_loss, UNSURE) if precise is None else precise.exceeds(LEAST, LEAST):
                raise self._refusal(place, pair, parts, precise or found)
            self._doubts += 1
            if self._doubts == DOUBTS:
                self.passes.parameter = None
        return whole, apart[0]

    def _check_that_it_repeats(self, place: str, pair: Pair, whole: Found) -> None:
        again = self.passes.found(pair)
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
                "its largest entry, a capacity, the steps of an adaptive solver); padding that is masked changes "
                "nothing"
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
        outputs, apart = self.passes.outputs(pair), [self.passes.outputs(part) for part in parts]
        are_rows = isinstance(outputs, Tensor) and samples_in(outputs) == samples_in(pair)
        # the loss is refused already: any difference beyond rounding is a cause
        allowed = ALLOWED_IN_FLOAT64 if are_rows and outputs.dtype == torch.float64 else 0.05
        return are_rows and not agree_within(torch.cat(apart), outputs, allowed)
