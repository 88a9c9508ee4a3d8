"""Schedulers that count batches: `fit` steps a scheduler once an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

HORIZONS = {
    CosineAnnealingLR: "T_max",
    CosineAnnealingWarmRestarts: "T_0",
    LinearLR: "total_iters",
    PolynomialLR: "total_iters",
}
"""Kinds of schedulers, and the attribute that says after how many steps they are at their end."""


def check_that_it_counts_epochs(scheduler: LRScheduler | None, epochs: int) -> None:
    """Compares the horizon of a scheduler with the epochs, also of those within SequentialLR and ChainedScheduler.

    One that was stepped before may go on for `epochs` more, and a training may be prolonged later, so that a cosine
    that is longer than the epochs is told and not refused.

    Raises:
        ValueError: a OneCycleLR or a cycle of CyclicLR does not fit the epochs.
    """
    if scheduler is None:
        return
    done = max(getattr(scheduler, "last_epoch", 0), 0)
    for part, span in _parts(scheduler, epochs):
        kind = type(part).__name__
        if isinstance(part, OneCycleLR):
            # one more, for who counts the rate after the last epoch too
            fitting = {count + more for count in (epochs, epochs + done, span) for more in (0, 1)}
            if part.total_steps not in fitting:
                raise ValueError(
                    f"scheduler: {kind} has total_steps={part.total_steps}, and fit steps it once in each of {epochs} "
                    f"epochs; give total_steps={span}, or step it by batches in a loop of your own"
                )
        elif isinstance(part, CyclicLR) and part.total_size > epochs + done:
            raise ValueError(
                f"scheduler: a cycle of {kind} has {part.total_size:g} steps, and fit steps it once in each of "
                f"{epochs} epochs; give step_size_up and step_size_down in epochs, or step it by batches in a loop of "
                "your own"
            )
    for told in _told(scheduler, epochs + done):
        warnings.warn(
            f"scheduler: {told}, and fit steps it once in each of {epochs} epochs, so that it does not come to its "
            "end; give steps in epochs if it counts batches",
            stacklevel=4,
        )


def _parts(scheduler: LRScheduler, epochs: int) -> Iterator[tuple[LRScheduler, int]]:
    """The schedulers that a scheduler is made of, each with the number of epochs in which it has its turn."""
    parts = getattr(scheduler, "_schedulers", None)
    if parts is None:
        yield scheduler, epochs
        return
    in_turn = isinstance(scheduler, SequentialLR)
    ends = [0, *_milestones(scheduler), epochs]
    for number, part in enumerate(parts):
        begin, end = ends[number : number + 2] if in_turn else (0, epochs)
        yield from _parts(part, max(end - begin, 0))


def _told(scheduler: LRScheduler, epochs: int) -> Iterator[str]:
    """What of a scheduler is beyond the epochs."""
    if any(milestone >= epochs for milestone in _milestones(scheduler)):
        yield f"{type(scheduler).__name__} begins its last part after {_milestones(scheduler)[-1]} steps"
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _told(part, epochs)
    for kind, name in HORIZONS.items():
        if isinstance(scheduler, kind) and getattr(scheduler, name) > epochs:
            yield f"{type(scheduler).__name__} has {name}={getattr(scheduler, name)}"


def _milestones(scheduler: LRScheduler) -> list[int]:
    """The steps after which the parts of SequentialLR follow each other; none for other kinds."""
    found: list[int] = getattr(scheduler, "_milestones", [])
    return found
