"""The time that a study will still take, estimated from its finished runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

PROBABILITY = 0.9
"""Probability of the range, if the seconds of runs of a kind are normal and independent."""
UNCERTAINTY_OF_ONE = 2.0
"""Factor up and down while no kind has two finished runs, whose spread could be seen."""


@dataclass(frozen=True)
class TimeLeft:
    """A range of seconds.

    Attributes:
        low: lower end.
        high: upper end; None if some kind has no finished run yet.
        untimed: kinds without a finished run.
    """

    low: float
    high: float | None
    untimed: tuple[str, ...] = ()


def time_left(
    done: Mapping[str, Sequence[float]],
    left: Mapping[str, int],
    in_hand: Sequence[tuple[str, float]],
    workers: int,
) -> TimeLeft | None:
    """The time until the last run is finished; None before the first run is.

    The range is the prediction interval of a sum of runs, divided among the workers. Each kind of run has its own mean;
    the relative spread is the same for all kinds. At the end workers are idle while the last run continues, for at most
    the time of the longest run.

    Args:
        done: kind of run -> the seconds of each finished run.
        left: kind of run -> the number of runs that are not finished, including those that are executing.
        in_hand: kind, and seconds since the start, of each run that is executing.
        workers: number of workers.
    """
    left = {kind: count for kind, count in left.items() if count}
    means = {kind: sum(seconds) / len(seconds) for kind, seconds in done.items() if seconds}
    untimed = tuple(kind for kind in left if kind not in means)
    timed = [kind for kind in left if kind in means]
    if untimed and not timed:
        return None
    spent = sum(min(seconds, means[kind]) for kind, seconds in in_hand if kind in means)
    work = sum(left[kind] * means[kind] for kind in timed) - spent
    variance = sum(means[kind] ** 2 * (left[kind] + left[kind] ** 2 / len(done[kind])) for kind in timed)
    freedom, spread = _relative_spread(done)
    if freedom:
        margin = float(stdtrit(freedom, (1 + PROBABILITY) / 2)) * spread * math.sqrt(variance)
        low, high = max(0.0, work - margin), work + margin
    else:
        low, high = work / UNCERTAINTY_OF_ONE, work * UNCERTAINTY_OF_ONE
    busy = max(1, min(workers, sum(left.values())))
    waiting = max((means[kind] for kind in timed), default=0.0) * (1 - 1 / busy)
    return TimeLeft(low / busy, None if untimed else high / busy + waiting, untimed)


def _relative_spread(done: Mapping[str, Sequence[float]]) -> tuple[int, float]:
    """Degrees of freedom and standard deviation of the seconds relative to the mean of their kind."""
    freedom, squares = 0, 0.0
    for seconds in done.values():
        if len(seconds) > 1:
            mean = sum(seconds) / len(seconds)
            freedom += len(seconds) - 1
            squares += sum((value / mean - 1) ** 2 for value in seconds)
    return freedom, math.sqrt(squares / freedom) if freedom else 0.0


def in_words(estimate: TimeLeft | None) -> str:
    """The estimate in words, such as "12 min to 15 min"."""
    if estimate is None:
        return "unknown"
    if estimate.high is None:
        # labels hold commas and may be many, so only their number is shown
        kinds = "1 kind" if len(estimate.untimed) == 1 else f"{len(estimate.untimed)} kinds"
        # no run of a kind that was timed is left
        known = "unknown" if estimate.low < 1 else f"at least {_duration(estimate.low)}"
        return f"{known} ({kinds} of runs not yet timed)"
    low, high = _duration(estimate.low), _duration(estimate.high)
    return high if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
