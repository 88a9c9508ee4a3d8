"""The check that every sample has as many outputs and targets, where only samples are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from landscape.data.counts import Counting, Pair
from landscape.guards.parts import Found

Form = tuple[float, ...]
"""Entries of a sample in outputs and targets, tensor by tensor."""


@dataclass
class OneForm:
    """The numbers of outputs and targets that a sample has.

    The mean over all tokens is not the mean over samples if one batch has 8 tokens a sample and the next has 3. Each
    batch by itself does not show it.

    Attributes:
        counting: the weights of batches. If the caller or torch's loss says what counts, nothing is checked.
        takes_whole_batches: whether model and loss get the whole batch.
    """

    counting: Counting
    takes_whole_batches: bool = False
    # a batch of one sample does not show which tensors have rows of samples
    _first: dict[bool, Form] = field(default_factory=dict)

    def check(self, place: str, pair: Pair, samples: int, whole: Found, half: Found | None) -> None:
        """Checks a batch.

        Args:
            place: of the batch, for the error.
            pair: the batch.
            samples: of the batch.
            whole: what a pass gave for it.
            half: what a pass gave for the first half of it; None for one sample.

        Raises:
            ValueError: a sample has other numbers of outputs or targets than those before.
        """
        if self.counting.of_batch is not None or self.counting.is_known:
            return
        if half is None:
            form: Form = tuple(
                size for rows, size in zip(whole.rows, whole.entries, strict=True) if rows == 1
            )
        else:
            sizes = zip(whole.entries, half.entries, strict=False)
            form = tuple(size / samples for size, part in sizes if part * samples == size * (samples // 2))
        first = self._first.setdefault(half is None, form)
        if form != first:
            raise ValueError(
                f"count: a sample has other numbers of outputs and targets in {place} than in those before "
                f"({_listed(form)} and {_listed(first)}), so that a mean over them all is not the mean over the "
                "samples; give count=, a function from a batch to what its mean loss divides by: tokens, pixels, or "
                f"the samples, as count=lambda batch: len(batch[{self._key_of(pair)}])"
            )

    def _key_of(self, pair: Pair) -> str:
        """By which the caller gets the samples of a batch."""
        batch: Any = pair[0]
        return repr(next(iter(batch))) if self.takes_whole_batches and isinstance(batch, dict) else "0"


def _listed(form: Form) -> str:
    return ", ".join(f"{number:g}" for number in form) or "none"
