"""Points on all samples or on a random part of them, evaluated as one, so that one checkpoint keeps both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from landscape.evaluation.evaluator import Evaluator, Values
from landscape.results.fields import FloatArray

Evaluate = Callable[[FloatArray, Callable[[int], None] | None], Values]
"""(multiples (points, directions), called with the number of points done) -> values at the points."""


class Levels:
    """An evaluator whose points have a level: 0 for all samples, 1 for a part of them.

    Args:
        whole: evaluates points on all samples.
        part: evaluates points on the part.

    Attributes:
        center: the values of the model itself on all samples.
        block: number of points that are evaluated at a time.
        share: cost of a point on the part, relative to a point on all samples.
    """

    def __init__(self, whole: Evaluator, part: Evaluator) -> None:
        self._evaluators = (whole, part)
        self.center = whole.center
        self.block = whole.block
        self.share = part.inputs / whole.inputs

    def __call__(self, multiples: FloatArray, progress: Callable[[int], None] | None = None) -> Values:
        """The values at points of one level.

        Args:
            multiples: (points, vectors + 1); the last column is the level.
            progress: called with the number of points done.
        """
        (level,) = np.unique(multiples[:, -1])
        return self._evaluators[int(level)](multiples[:, :-1], progress)


def on_level(evaluate: Evaluate, level: int) -> Evaluate:
    """The function that evaluates points on one level."""
    return partial(_on_level, evaluate, level)


def _on_level(
    evaluate: Evaluate, level: int, multiples: FloatArray, progress: Callable[[int], None] | None
) -> Values:
    return evaluate(np.column_stack([multiples, np.full(len(multiples), float(level))]), progress)
