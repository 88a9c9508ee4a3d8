"""Outputs and losses of samples in float64, which tell a model that mixes samples from one that rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from landscape.data.batches import rows_of, samples_in
from landscape.data.counts import Pair
from landscape.guards.agreement import agree_within
from landscape.guards.float64_throughout import Float64Throughout
from landscape.guards.in_float64 import InFloat64
from landscape.guards.parts import Found
from landscape.guards.repeated_runs import ALLOWED_IN_FLOAT64

ALLOWED = 1e-6
"""Largest share by which outputs may depend on the other samples. Adaptive solvers of differential equations choose
their steps by all samples of a batch; no number has a stated error as small as that."""

MOST = 16
"""Samples that are run in float64."""


@dataclass(frozen=True)
class Precisely:
    """Decides in float64 what shorter dtypes leave open.

    Attributes:
        in_float64: (inputs, targets) -> their loss as a function of the weights, in float64.
    """

    in_float64: Callable[[Pair], InFloat64]

    def mixes(self, pair: Pair, few: int) -> bool:
        """Whether the outputs of the last few samples depend on the samples before them, by more than `ALLOWED`.

        False for a model that does not run in float64, rounds to a shorter dtype inside, or changes from one pass to
        the next, which another check names.
        """
        samples = samples_in(pair) or 0
        last = rows_of(pair, slice(samples - few, samples))
        whole, alone, again = (self.outputs(part) for part in (pair, last, pair))
        if not all(isinstance(each, Tensor) for each in (whole, alone, again)):
            return False
        repeats = agree_within(whole, again, ALLOWED_IN_FLOAT64)
        return repeats and not agree_within(whole[-few:], alone, ALLOWED)

    def outputs(self, pair: Pair) -> Any:
        """The outputs of the last samples, or of a batch that cannot be cut; None as for `found`."""
        samples = samples_in(pair)
        some = pair if samples is None else rows_of(pair, slice(max(0, samples - MOST), samples))
        return self._run(some, lambda _, outputs: outputs)

    def found(self, pair: Pair) -> Found | None:
        """The mean loss; None where the model does not run in float64, or rounds to a shorter dtype inside."""
        found: Found | None = self._run(pair, lambda few, outputs: Found.of(few.loss(outputs), outputs))
        return found

    def _run(self, pair: Pair, use: Callable[[InFloat64, Any], Any]) -> Any:
        try:
            few = self.in_float64(pair)
            with Float64Throughout() as kept:
                found = few.at_its_weights(lambda outputs: use(few, outputs))
        except Exception:
            # the model or the loss has a dtype of its own inside
            return None
        return None if kept.shortens else found
