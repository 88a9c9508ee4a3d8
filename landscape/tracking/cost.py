"""The cost of a tracker's looks, and the time of the next look."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
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

    Each measure has an equal part of the allowed time. What the measures leave unused goes to the one that has waited
    longest, of those whose look would fit into the whole allowed time so far. While such a measure waits for its first
    look, the others wait too. So a cheap measure is taken often and an expensive one seldom, and all measures together
    stay within the allowed time.

    The expected time of a look is that of the last look, and at the first look a forecast. Only what a look takes
    beyond its expected time can exceed the allowed time. All measures wait until the excess is made up for.

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
    _looked_at: dict[str, float] = field(default_factory=dict)

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

    def in_turn(self, forecasts: Mapping[str, float]) -> Iterator[str]:
        """The measures to be taken now, one by one. Each is taken before the next one is asked for.

        The one that has waited longest comes first. A measure that is not yielded is counted as put off.

        Args:
            forecasts: the expected seconds of the first look, by measure.
        """
        if self.at_most is None:
            yield from forecasts
            return
        one_waits = first_look_waits = False
        for measure in sorted(forecasts, key=lambda name: self._looked_at.get(name, -math.inf)):
            allowed = self.at_most * self.training - self.spent.get(SHARED, 0.0)
            unused = self.at_most * self.training - self._measuring
            expected = self._last.get(measure, forecasts[measure])
            in_its_part = self.spent.get(measure, 0.0) + expected <= allowed / self.measures
            if expected <= unused and not first_look_waits and (in_its_part or not one_waits):
                yield measure
                continue
            self.put_off[measure] = self.put_off.get(measure, 0) + 1
            # the unused time is saved for this measure, if that can be enough
            can_be_saved = expected <= allowed
            one_waits = one_waits or can_be_saved
            first_look_waits = first_look_waits or (can_be_saved and measure not in self._last)

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
            self._looked_at[measure] = self.training
