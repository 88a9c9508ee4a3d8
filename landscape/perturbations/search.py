"""The largest rise of a loss within a neighborhood of the weights, by ascents from several starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from landscape.guards.no_numbers import are_numbers
from landscape.loss.objective import Objective
from landscape.perturbations.ascent import SHORT, Ascent, Neighborhood, Slope, ascend
from landscape.perturbations.rounding import rounding_of
from landscape.perturbations.starts import (
    CONTINUED,
    LEAST_VECTORS,
    Starts,
    held_by_short_ascents,
    remembered_points,
)
from landscape.seeds import generator_for, normal_like

RUGGED = 1.1
"""The loss is rugged if the highest ascent rises by this factor or more after its short part. The order of short
ascents then says little of the order of their ends, and there are often many maxima."""
IN_A_ROW = 8
"""Further starts in a row that must lead no higher on a rugged loss."""
MOST_UNSEEN = 0.4
"""The largest `Search.unseen` of a search on a rugged loss that has converged. Where random starts all end elsewhere,
as with BatchNorm in balls larger than the weights, a longer search often finds a higher maximum."""
SAME = 0.3
"""Ends of ascents whose heights differ by at most this share of the tolerance count as one maximum."""
MORE = 4
"""On a rugged loss this many times as many further starts are made."""
ON_SMOOTH = ("near", "waiting")
ON_RUGGED = ("near", "random", "waiting", "random")
"""The further starts, in turn: near the highest point, the next highest short ascent, a random point."""


@dataclass(frozen=True)
class Search:
    """Ascents from several starts.

    Attributes:
        ascents: the ascents; that from the gradient's direction is the first. Only the highest keeps its offset.
        center: the loss at the weights.
        tol: relative accuracy that was asked for.
        rounding: the largest difference of two losses that rounding alone can give.
        lines: the line on which each of the first starts lies. Other starts have a line of their own.
        eigenvectors: number of eigenvectors among the starts, without those that are no numbers.
        growth: factor by which the highest of the first ascents rose after its short part.
        is_complete: whether each output was a start, and not only some that were drawn.
        idle: further starts in a row that together led no higher by more than `tol`.
        confirmed: the highest rise before these starts; None before the first further start.
        away: indices of the ascents from further starts that did not lie near the highest point.
    """

    ascents: list[Ascent]
    center: Tensor
    tol: float
    rounding: float
    lines: list[int]
    eigenvectors: int = 0
    growth: float = 1.0
    is_complete: bool = True
    idle: int = 0
    confirmed: float | None = None
    away: tuple[int, ...] = ()

    def of(self, ascents: list[Ascent]) -> Search:
        """The same with these ascents."""
        highest = replace(self, ascents=ascents).highest
        return replace(self, ascents=[each if each is highest else each.without_offset() for each in ascents])

    def joined(self, ascent: Ascent, *, is_first: bool = False) -> Search:
        """The same with one more ascent."""
        return self.of([ascent, *self.ascents] if is_first else [*self.ascents, ascent])

    def with_growth(self) -> Search:
        """The same, with the growth of the highest of the ascents so far."""
        end, early = self.highest.rise, self.highest.early_rise
        if not end > self.rounding:
            return self
        return replace(self, growth=end / early if early > 0 else math.inf)

    def after(self, further: Search, away: int | None = None) -> Search:
        """Another search, which is this one after a further start, with the count of starts that led no higher.

        The index `away` is that of its ascent if the start did not lie near the highest point.
        """
        # not with the highest rise so far: many small rises would then count as none
        before = self.highest.rise if self.confirmed is None else self.confirmed
        indices = self.away if away is None else (*self.away, away)
        if further.highest.rise > (1 + self.tol) * before + self.rounding:
            return replace(further, idle=0, confirmed=further.highest.rise, away=indices)
        return replace(further, idle=self.idle + 1, confirmed=before, away=indices)

    @property
    def unseen(self) -> float:
        """Chance that a further start leads to a maximum that no ascent has found; NaN without further starts.

        It is the share of the further starts whose end no other ascent reached (Good 1953).
        """
        if not self.away:
            return math.nan
        return sum(map(self._is_alone, self.away)) / len(self.away)

    def _is_alone(self, index: int) -> bool:
        """Whether no other ascent ended as high as this one."""
        rise = self.ascents[index].rise
        others = [each.rise for other, each in enumerate(self.ascents) if other != index and each.is_finished]
        return not any(abs(other - rise) <= SAME * self.tol * rise + self.rounding for other in others)

    @property
    def is_rugged(self) -> bool:
        """Whether the highest short ascents may say little of the highest maximum."""
        return self.growth >= RUGGED or not self.is_complete

    def replaced(self, index: int, ascent: Ascent) -> Search:
        """The same with another ascent in the place of one."""
        return self.of([*self.ascents[:index], ascent, *self.ascents[index + 1 :]])

    @property
    def highest(self) -> Ascent:
        """The ascent with the largest rise. An ascent that met a NaN comes first."""
        return max(self.ascents, key=lambda each: each.height)

    @property
    def spread(self) -> float:
        """Difference of the two highest rises, as a share of the highest; NaN for one ascent."""
        if len(self.ascents) < 2:
            return math.nan
        second, first = sorted(each.rise for each in self.ascents)[-2:]
        return 0.0 if first - second <= self.rounding else (first - second) / first

    @property
    def converged(self) -> bool:
        """Whether the highest point is stationary, and another ascent came within `tol` of its height.

        The ascent from the opposite start is no other ascent: at a minimum the two mirror each other, and agree at a
        saddle too. Ascents that agree within the rounding of the losses confirm nothing, as where the loss is flat. On
        a rugged loss `IN_A_ROW` further starts must have led no higher, and most of their ends must be known.
        """
        return (
            self.highest.is_stationary
            and self.spread <= self.tol
            and (not self.is_rugged or (self.idle >= IN_A_ROW and self.unseen <= MOST_UNSEEN))
            and self._is_reached_from_two_lines()
            and (self.highest.rise > self.rounding or self._falls_everywhere())
        )

    def _is_reached_from_two_lines(self) -> bool:
        """Whether starts that are not opposite to each other reach the highest rise."""
        least = self.highest.rise * (1 - self.tol) - self.rounding
        high = [index for index, each in enumerate(self.ascents) if each.rise >= least]
        return len({self.lines[index] if index < len(self.lines) else -index for index in high}) > 1

    def _falls_everywhere(self) -> bool:
        """Whether the loss falls at each start but the center, so that the center itself is the highest point."""
        rises = [each.first_rise for each in self.ascents if each.first_rise != 0]
        return bool(rises) and max(rises) < -self.rounding


def search(
    objective: Objective,
    neighborhood: Neighborhood,
    *,
    steps: int,
    restarts: int,
    tol: float,
    seed: int,
    starts: Starts,
    eigenvectors: Callable[[], Tensor],
    known: tuple[Tensor, Tensor] | None = None,
    spend: Callable[[int], None] = lambda _: None,
) -> Search:
    """Ascents from the gradient's direction, given directions and random points, until the highest point is confirmed.

    Loss landscapes have several maxima on the border. The maxima to which the gradient and random starts lead are often
    not the highest. So the directions of `starts` are always tried. All ascents take `SHORT` gradients first, and the
    highest `CONTINUED` of them are continued to their ends. Afterward, further starts alternate with starts that lie 45
    degrees away from the highest point. If such a start leads back, the highest point is confirmed. If it leads higher,
    the search continues from there (basin hopping, Wales and Doye 1997). The further starts are the next highest
    ascents, and random points after them. On a rugged loss half of them are random points, and `IN_A_ROW` starts in a
    row must lead no higher; see `Search.converged`.

    Args:
        objective: its loss is maximized.
        neighborhood: a neighborhood of its weights.
        steps: largest number of gradients in an ascent.
        restarts: largest number of further starts; `MORE` times this on a rugged loss.
        tol: see `ascend`. Two heights agree if they differ by at most this share.
        seed: seed of the random starts.
        starts: the directions in which ascents start.
        eigenvectors: gives those of the starts, (n, k); called if the gradient is finite.
        known: the loss and the gradient (n,) at the weights, where the caller has them.
        spend: called with the number of gradients after each.

    Raises:
        ValueError: the vectors of an ascent do not fit into the memory budget.
    """
    objective.memory.check_room(LEAST_VECTORS, what := "a search for the sharpness")
    points = remembered_points(objective)
    center, slope, is_finite = _at_center(objective, neighborhood, known, holds_slope=points > 0)
    rounding = rounding_of(float(center), objective.dtype)
    columns = list(eigenvectors().to(objective.theta).T) if is_finite and starts.eigenvectors else []
    # second derivatives may be no numbers where the gradient is one
    columns = [column for column in columns if are_numbers((column,))]
    starts = replace(starts, eigenvectors=len(columns))

    def visit(offset: Tensor) -> tuple[float, Tensor]:
        # the weights may take the place of the offset, so that no vector more is held
        in_place = points == 0 and isinstance(neighborhood.scale, float)
        weights = offset.add_(objective.theta) if in_place else neighborhood.weights(objective.theta, offset)
        loss, gradient = objective.value_and_gradient(weights)
        if in_place:
            offset.sub_(objective.theta)
        spend(1)
        return float(loss - center), neighborhood.slope(gradient)

    climb = partial(
        ascend,
        visit,
        slope,
        neighborhood=neighborhood,
        tol=tol,
        rounding=rounding,
        points=points,
    )
    lines = starts.lines if is_finite else []
    result = Search([], center, tol, rounding, lines, len(columns), is_complete=starts.is_complete)
    held = held_by_short_ascents(len(columns)) if starts.has_room else 0
    with objective.memory.room_for_vectors(LEAST_VECTORS + 2 * points + held, LEAST_VECTORS, what):
        if starts.has_room or starts.outputs:
            outputs = [each.direction for each in starts.outputs] if is_finite else []
            kept = CONTINUED if starts.has_room else 0
            result, waiting = _short_ascents(
                result, climb, neighborhood, slope, columns, outputs, steps=steps, kept=kept
            )
        else:
            result, waiting = _whole_ascents(result, climb, neighborhood, slope, columns, steps), []
        result = result.with_growth()
        if result.is_rugged:
            # ascents that ended early would end there again, and confirm nothing
            waiting = [each for each in waiting if not each.ascent.is_finished]
        generator = generator_for("starts of ascents", seed)
        for index in range(restarts * (MORE if result.is_rugged else 1)):
            if not math.isfinite(result.highest.rise) or result.converged:
                break
            turns = ON_RUGGED if result.is_rugged else ON_SMOOTH
            turn = turns[index % len(turns)]
            if turn == "waiting" and waiting:
                next_one = waiting[0].index
                result = result.after(_with_next(result, climb, waiting, steps), away=next_one)
                continue
            near = result.highest.offset if turn == "near" else None
            away = len(result.ascents) if near is None else None
            start = partial(_random_start, objective.theta, neighborhood, near, generator)
            result = result.after(result.joined(climb(start, steps=steps)), away=away)
            del start, near
    return result


class _Climb(Protocol):
    """An ascent from a start."""

    def __call__(self, start: Callable[[], Tensor], *, steps: int) -> Ascent: ...


@dataclass(frozen=True)
class _Waiting:
    """A short ascent that may go on.

    Attributes:
        index: of the ascent.
        ascent: its offset is (0,) if it was dropped.
        start: gives the ascent's start.
    """

    index: int
    ascent: Ascent
    start: Callable[[], Tensor]


def _whole_ascents(
    result: Search,
    climb: _Climb,
    neighborhood: Neighborhood,
    slope: Slope,
    columns: list[Tensor],
    steps: int,
) -> Search:
    """Whole ascents from all starts, one after the other. No start is held longer than needed."""
    while columns:
        result = result.joined(climb(lambda: neighborhood.border(columns[0]), steps=steps))
        result = result.joined(climb(lambda: neighborhood.border(columns.pop(0)).neg_(), steps=steps))
    return result.joined(climb(lambda: neighborhood.border(slope.at_center()), steps=steps), is_first=True)


def _short_ascents(
    result: Search,
    climb: _Climb,
    neighborhood: Neighborhood,
    slope: Slope,
    columns: list[Tensor],
    outputs: Sequence[Callable[[], Tensor]],
    *,
    steps: int,
    kept: int,
) -> tuple[Search, list[_Waiting]]:
    """Short ascents from all starts, of which the highest go on. The others wait.

    The offsets of the highest `kept` short ascents are held. The others would begin anew.
    """

    directions: list[Callable[[], Tensor]] = [
        slope.at_center,
        *(partial(torch.mul, column, sign) for column in columns for sign in (1.0, -1.0)),
        *outputs,
    ]
    waiting: list[_Waiting] = []
    for index, direction in enumerate(directions):
        start = partial(_on_border, neighborhood, direction)
        ascent = climb(start, steps=min(SHORT, steps))
        may_go_on = steps > SHORT and not ascent.is_stationary and math.isfinite(ascent.rise)
        waiting.append(_Waiting(index, replace(ascent, is_finished=not may_go_on), start))
        waiting.sort(key=lambda each: each.ascent.height, reverse=True)
        waiting[kept:] = [replace(each, ascent=each.ascent.without_offset()) for each in waiting[kept:]]
        # its point would be held beside those of the next ascent
        del ascent
    result = result.of([each.ascent for each in sorted(waiting, key=lambda each: each.index)])
    for _ in range(min(CONTINUED, len(waiting))):
        result = _with_next(result, climb, waiting, steps)
    return result, waiting


def _with_next(result: Search, climb: _Climb, waiting: list[_Waiting], steps: int) -> Search:
    """The search after the highest short ascent that waits went on to its end."""
    highest = waiting.pop(0)
    ascent = highest.ascent
    is_held = len(ascent.offset) > 0
    if is_held and ascent.is_finished:
        return result
    if is_held:
        further = climb(lambda: ascent.offset, steps=steps - SHORT)
        return result.replaced(
            highest.index, replace(further, first_rise=ascent.first_rise, early_rise=ascent.rise)
        )
    return result.replaced(highest.index, climb(highest.start, steps=steps))


def _on_border(neighborhood: Neighborhood, direction: Callable[[], Tensor]) -> Tensor:
    return neighborhood.border(direction())


def _at_center(
    objective: Objective,
    neighborhood: Neighborhood,
    known: tuple[Tensor, Tensor] | None,
    *,
    holds_slope: bool,
) -> tuple[Tensor, Slope, bool]:
    """The loss at the center, its slope, and whether that is finite. A slope that is not held is computed anew."""
    center, gradient = known or objective.value_and_gradient()
    slope = neighborhood.slope(gradient if known is None else gradient.clone())
    is_finite, gain = bool(slope.isfinite().all()), neighborhood.gain(slope)
    if holds_slope:
        return center, Slope(lambda: slope, gain), is_finite
    return center, Slope(lambda: neighborhood.slope(objective.gradient()), gain), is_finite


def _random_start(
    theta: Tensor, neighborhood: Neighborhood, near: Tensor | None, generator: torch.Generator
) -> Tensor:
    start = normal_like(theta.shape, theta, generator)
    start = neighborhood.border(start, out=start)
    if near is not None and bool(near.any()):
        # random directions of many weights are orthogonal, so that the sum lies halfway
        start = neighborhood.border(start.add_(neighborhood.border(near)), out=start)
    return start
