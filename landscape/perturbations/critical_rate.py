"""The search for the learning rate at which a loss passes its first value, through losses that are rounded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

MOST_DOUBLINGS = 20
"""All tried learning rates are within a factor of 2^20, a million, of the first one."""

MOST_UNCLEAR = 3
"""Unclear rates, each half of the last one, that end the search for a fall. A parabola whose fall is larger than the
rounding shows it at one of them."""

CLEAR = 4.0
"""Rises of more than this many roundings tell whether a loss rises at once. The slope of a line is known to 2.5."""


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried.

    Attributes:
        rate: the learning rate.
        rise: the rise of the loss there; infinite if the loss is no number.
        rounding: the largest rise that rounding alone can give.
    """

    rate: float
    rise: float
    rounding: float

    @property
    def rises(self) -> bool:
        """Whether the loss surely rises."""
        return self.rise > self.rounding

    @property
    def is_unclear(self) -> bool:
        """Whether the rise or fall is within rounding."""
        return abs(self.rise) <= self.rounding and self.rounding > 0

    @property
    def slope(self) -> float:
        """The rise divided by the learning rate: with the sign of the rise, and linear for a quadratic loss."""
        return self.rise / self.rate


@dataclass(frozen=True)
class Bounds:
    """What the tried learning rates tell of the critical one.

    Attributes:
        low: the largest rate at which the loss does not rise, if one was found.
        high: the smallest rate at which the loss rises, if one was found.
        unclear: the rates between them at which the rise is within rounding.
        first_slope: a lower limit of the slope at the rate 0, from the two smallest rates at which the loss rises by
            much more than rounding; -inf if they are not known.
        is_number: whether the loss and the update are numbers.
    """

    low: Trial | None = None
    high: Trial | None = None
    unclear: tuple[Trial, ...] = ()
    first_slope: float = -math.inf
    is_number: bool = True

    @classmethod
    def of_no_number(cls) -> Bounds:
        """The bounds where the loss or the update is no number."""
        return cls(is_number=False)

    @property
    def lower(self) -> float:
        """The lower bound; 0 if none was found, NaN if there are no numbers."""
        if not self.is_number:
            return math.nan
        return self.low.rate if self.low else 0.0

    @property
    def upper(self) -> float:
        """The upper bound; infinite if none was found, NaN if there are no numbers."""
        if not self.is_number:
            return math.nan
        return self.high.rate if self.high else math.inf

    @property
    def middle(self) -> float:
        """A learning rate between the bounds.

        If a bound is missing, 0 where the loss rises at once, infinite where it does not rise, and NaN where rounding
        hides which of the two.
        """
        if self.low and self.high:
            return (self.low.rate + self.high.rate) / 2
        is_hidden = bool(self.unclear) and not self.first_slope > 0
        return math.nan if is_hidden or not self.is_number else (math.inf if self.low else 0.0)

    def are_within(self, tol: float) -> bool:
        """Whether the bounds lie close together."""
        return self.low is not None and self.high is not None and self.upper - self.lower <= tol * self.upper

    def with_trial(self, trial: Trial) -> Bounds:
        """The bounds after one more trial between them."""
        if trial.is_unclear:
            return replace(self, unclear=(*self.unclear, trial))
        if not trial.rises:
            found = replace(self, low=trial)
        elif self.high and trial.rise > CLEAR * trial.rounding and math.isfinite(self.high.rise):
            found = replace(self, high=trial, first_slope=_slope_at_once(trial, self.high))
        else:
            found = replace(self, high=trial)
        between = tuple(each for each in self.unclear if found.lower < each.rate < found.upper)
        return replace(found, unclear=between)


def _slope_at_once(near: Trial, far: Trial) -> float:
    """A lower limit of a parabola's slope at the rate 0, from its rises at two rates."""
    share = near.rate / (far.rate - near.rate)
    doubt = near.rounding / near.rate
    slope = near.slope - share * (far.slope - near.slope)
    return slope - doubt - share * (doubt + far.rounding / far.rate)


def bracketed(tried: Callable[[float], Trial], first: float, most_passes: int) -> Bounds:
    """Doubles or halves the learning rate until the loss rises at one rate and does not rise at another."""
    bounds = Bounds()
    rate, smallest, largest = first, first, first
    for _ in range(min(MOST_DOUBLINGS, most_passes)):
        bounds = bounds.with_trial(tried(rate))
        if bounds.high and (bounds.low or len(bounds.unclear) >= MOST_UNCLEAR):
            break
        smallest, largest = min(smallest, rate), max(largest, rate)
        rate = smallest / 2 if bounds.high else 2 * largest
    return bounds


def narrowed(
    tried: Callable[[float], Trial], bounds: Bounds, tol: float, may_go_on: Callable[[], bool]
) -> Bounds:
    """Tries rates on both sides of the slope's estimated root, until the bounds are close together."""
    while bounds.low and bounds.high and not bounds.are_within(tol) and may_go_on():
        if bounds.unclear:
            rate = _in_larger_gap(bounds, tol)
            if min(rate - bounds.lower, bounds.upper - rate) < 0.05 * tol * bounds.upper:
                break
        else:
            rate = _beside_root(bounds.low, bounds.high, tol)
        bounds = bounds.with_trial(tried(rate))
    return bounds


def _beside_root(low: Trial, high: Trial, tol: float) -> float:
    width = high.rate - low.rate
    root = low.rate + width / 2
    if math.isfinite(high.slope):
        root = low.rate - low.slope * width / (high.slope - low.slope)
    # just beyond the root, on the side where the bound is still far
    margin = 0.4 * tol * root
    rate = root + margin if high.rate - root > root - low.rate else root - margin
    return min(max(rate, low.rate + 0.05 * width), high.rate - 0.05 * width)


def _in_larger_gap(bounds: Bounds, tol: float) -> float:
    """A rate between a bound and the unclear rates next to it, where they are further apart.

    A single unclear rate lies at the critical one, and the next rate close to it.
    """
    least = min(each.rate for each in bounds.unclear)
    most = max(each.rate for each in bounds.unclear)
    close = 0.4 * tol * most if len(bounds.unclear) == 1 else math.inf
    below, above = least - bounds.lower, bounds.upper - most
    return least - min(below / 2, close) if below > above else most + min(above / 2, close)
