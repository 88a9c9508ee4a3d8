"""What the looks of a tracker cost, and when the next one may be taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Clock = Callable[[], float]
"""Seconds since any fixed moment."""

SHARED = "shared"
"""What the tracker does for all measures: copies of the weights before a step."""


def seconds() -> float:
    """Seconds on a clock, once all work in hand on a GPU is done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Cost:
    """The time that measures took beside that of the training.

    Each measure has an equal part of the allowed time, so that a cheap one is taken often and an expensive one seldom.
    A measure is taken when its part, so far, covers what it has spent and what it is expected to spend: as much as the
    last time; the first time, its forecast. What a measure spends beyond that is waited for before the next time.

    Attributes:
        at_most: allowed seconds of measuring for each second of training; None allows all.
        measures: how many share them.
        clock: tells the time.
        spent: seconds spent so far, by measure.
        put_off: how often a measure was due and not taken, by measure.
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
        """Seconds spent on measures, and on what the tracker does for all of them."""
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
        """Whether a measure may be taken now; takes note if it may not.

        Args:
            measure: its name.
            forecast: the seconds that it is expected to take the first time.
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
        """What is done within is spent on the measure."""
        began = self.clock()
        try:
            yield
        finally:
            taken = self.clock() - began
            self._measuring += taken
            self.spent[measure] = self.spent.get(measure, 0.0) + taken
            self._last[measure] = taken
