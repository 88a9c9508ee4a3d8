"""The cost of a tracker's looks, and the time of the next look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Clock = Callable[[], float]
"""Seconds since a fixed moment."""

SHARED = "shared"
"""Name of the cost that all measures share: copies of the weights before a step."""


def seconds() -> float:
    """Seconds on a clock, read after all pending work on a GPU."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Cost:
    """The seconds of the measures, and of the training.

    Each measure has an equal part of the allowed time, so that a cheap one is taken often and an expensive one seldom.
    A measure is taken if its part so far covers the time that it has spent and the time that it is expected to spend.
    The expected time is that of the last look, and at the first look a forecast. A measure that took longer waits
    longer for its next look.

    Attributes:
        at_most: allowed seconds of measuring for each second of training; None allows all.
        measures: number of measures that share the allowed seconds.
        clock: tells the time.
        spent: seconds spent so far, by measure.
        put_off: number of looks at which a measure was due but not taken, by measure.
    """

    at_most: float | None
    measures: int
    clock: Clock
    spent: dict[str, float] = field(default_factory=dict)
    put_off: dict[str, int] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._measuring = 0.0

    @property
    def measuring(self) -> float:
        """Seconds that were spent on the measures, with the cost that they share."""
        return self._measuring

    @property
    def training(self) -> float:
        """Seconds since the beginning that were not spent by the tracker."""
        return self.clock() - self._began - self._measuring

    @property
    def share(self) -> float:
        """Seconds of measuring for each second of training."""
        training = self.training
        return self._measuring / training if training > 0 else 0.0

    def allows(self, measure: str, forecast: float) -> bool:
        """Whether a measure may be taken now. If not, the look is counted as put off.

        Args:
            measure: its name.
            forecast: expected seconds of its first look.
        """
        if self.at_most is None:
            return True
        part = (self.at_most * self.training - self.spent.get(SHARED, 0.0)) / self.measures
        allowed = self.spent.get(measure, 0.0) + self._last.get(measure, forecast) <= part
        if not allowed:
            self.put_off[measure] = self.put_off.get(measure, 0) + 1
        return allowed

    @contextmanager
    def of(self, measure: str) -> Iterator[None]:
        """A context whose time is spent on the measure."""
        began = self.clock()
        try:
            yield
        finally:
            taken = self.clock() - began
            self._measuring += taken
            self.spent[measure] = self.spent.get(measure, 0.0) + taken
            self._last[measure] = taken
