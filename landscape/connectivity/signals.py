"""Groups of units, and the activations that consist of them."""

from __future__ import annotations

from dataclasses import dataclass


class Group:
    """Units that may be permuted among themselves. A group is split if its parts turn out to be permuted separately."""

    def __init__(self, size: int, *, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed
        self.parts: list[Group] = []

    def leaves(self) -> list[Group]:
        """The groups of which this group now consists: itself, unless it was split or joined to another."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


@dataclass(frozen=True)
class Segment:
    """Consecutive entries of an axis that belong to one group. Each unit has `repeat` entries."""

    group: Group
    repeat: int = 1


@dataclass(frozen=True)
class Signal:
    """Activations of shape (samples, units, ...space), or (samples, ..., units) as linear layers return them.

    Attributes:
        segments: the units.
        space: number of axes behind the axis of the units.
        flat: whether axes of space were flattened into the axis of units. A unit then may have several entries in a
            row.
        single: whether all axes of space are known to have length 1.
        exact: whether the shape is the first one for sure. Linear layers of unknown inputs may have more axes.
    """

    segments: list[Segment]
    space: int = 0
    flat: bool = False
    single: bool = False
    exact: bool = True


def fix(signal: Signal | None) -> None:
    """Keeps the units of a signal in place."""
    for segment in signal.segments if signal else []:
        for leaf in segment.group.leaves():
            leaf.fixed = True


def join(first: list[Segment], second: list[Segment]) -> None:
    """Ties the permutations of two signals that are added. Groups are split where their borders differ.

    Raises:
        ValueError: the signals have other numbers of units.
    """
    left = [leaf for segment in first for leaf in segment.group.leaves()]
    right = [leaf for segment in second for leaf in segment.group.leaves()]
    if sum(leaf.size for leaf in left) != sum(leaf.size for leaf in right):
        raise ValueError("model: a sum of different numbers of units cannot be followed")
    while left:
        a, b = left[0], right[0]
        if a.size == b.size:
            if a is not b:
                _merge(a, b)
            left, right = left[1:], right[1:]
        elif a.size > b.size:
            left[:1] = _split(a, b.size)
        else:
            right[:1] = _split(b, a.size)


def _merge(group: Group, other: Group) -> None:
    """Makes `other` the same group as `group`."""
    group.fixed = group.fixed or other.fixed
    other.parts = [group]


def _split(group: Group, size: int) -> list[Group]:
    group.parts = [Group(size, fixed=group.fixed), Group(group.size - size, fixed=group.fixed)]
    return group.parts
