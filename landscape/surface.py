"""Loss and accuracy along a line and over a plane in weight space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.directions import Directions
from landscape.objective import Objective
from landscape.results import FloatArray, described

Progress = Callable[[int, int], None]
"""(points done, points in all)."""


@dataclass(frozen=True)
class Line:
    """Loss and accuracy at theta + alpha d."""

    alpha: FloatArray = described("multiple of the direction", dims=("alpha",), coordinate=True)
    loss: FloatArray = described("mean loss", unit="nat", dims=("alpha",))
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=("alpha",))
    center_loss: float = described("mean loss of the model itself", unit="nat")
    center_accuracy: float = described("accuracy of the model itself")
    direction_norm: float = described("l2 norm of the direction")
    samples: int = described("samples in the mean loss")


@dataclass(frozen=True)
class Surface:
    """Loss and accuracy at theta + alpha d1 + beta d2."""

    alpha: FloatArray = described("multiple of the first direction", dims=("alpha",), coordinate=True)
    beta: FloatArray = described("multiple of the second direction", dims=("beta",), coordinate=True)
    loss: FloatArray = described("mean loss", unit="nat", dims=("alpha", "beta"))
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=("alpha", "beta"))
    center_loss: float = described("mean loss of the model itself", unit="nat")
    center_accuracy: float = described("accuracy of the model itself")
    direction_norms: FloatArray = described("l2 norms of the directions", dims=("direction",))
    cosine: float = described("cosine between the directions")
    samples: int = described("samples in the mean loss")


def coordinates(extent: float, steps: int) -> FloatArray:
    """`steps` evenly spaced values from -extent to extent; the middle one of an odd number is exactly 0.

    Raises:
        ValueError: extent not positive and finite, or fewer than 2 steps.
    """
    if not 0 < extent < float("inf"):
        raise ValueError(f"extent: must be positive and finite, got {extent}")
    if steps < 2:
        raise ValueError(f"steps: must be at least 2, got {steps}")
    return extent * ((2 * np.arange(steps, dtype=np.float64) - (steps - 1)) / (steps - 1))


def line(
    objective: Objective,
    direction: Directions | Tensor,
    *,
    extent: float = 1.0,
    steps: int = 51,
    progress: Progress | None = None,
) -> Line:
    """Loss and accuracy along one direction through the objective's weights.

    Args:
        objective: whose loss, in evaluation mode.
        direction: (n,), or `Directions`, of which the first is taken.
        extent: alpha runs from -extent to extent.
        steps: number of points; with an odd number the model itself is one of them.
        progress: called after each point.

    Raises:
        ValueError: an argument out of range.
    """
    vector = direction.vectors[:, 0] if isinstance(direction, Directions) else direction
    vector = _checked(objective, vector)
    alpha = coordinates(extent, steps)
    loss, accuracy = _evaluated(objective, [vector], [(a,) for a in alpha], progress)
    center = objective.evaluate()
    return Line(
        alpha,
        loss,
        accuracy,
        center.loss,
        center.accuracy,
        direction_norm=torch.linalg.vector_norm(vector).item(),
        samples=objective.n_samples,
    )


def surface(
    objective: Objective,
    directions: Directions | tuple[Tensor, Tensor],
    *,
    extent: float = 1.0,
    steps: int = 51,
    progress: Progress | None = None,
) -> Surface:
    """Loss and accuracy over the plane of two directions through the objective's weights.

    Args:
        objective: whose loss, in evaluation mode.
        directions: two vectors (n,), or `Directions`, of which the first two are taken.
        extent: alpha and beta run from -extent to extent.
        steps: number of points on each axis; with an odd number the model itself is one of them.
        progress: called after each point.

    Raises:
        ValueError: an argument out of range, or fewer than two directions.
    """
    if isinstance(directions, Directions):
        if directions.vectors.shape[1] < 2:
            raise ValueError("directions: a surface needs two, got one")
        directions = (directions.vectors[:, 0], directions.vectors[:, 1])
    vectors = [_checked(objective, vector) for vector in directions]
    axis = coordinates(extent, steps)
    points = [(a, b) for a in axis for b in axis]
    loss, accuracy = _evaluated(objective, vectors, points, progress)
    center = objective.evaluate()
    norms = [torch.linalg.vector_norm(vector.double()).item() for vector in vectors]
    product = (vectors[0].double() @ vectors[1].double()).item()
    return Surface(
        axis,
        axis.copy(),
        loss.reshape(steps, steps),
        accuracy.reshape(steps, steps),
        center.loss,
        center.accuracy,
        direction_norms=np.array(norms),
        cosine=product / (norms[0] * norms[1]) if norms[0] * norms[1] > 0 else float("nan"),
        samples=objective.n_samples,
    )


def _checked(objective: Objective, vector: Tensor) -> Tensor:
    if vector.shape != objective.theta.shape:
        raise ValueError(f"direction: must be ({objective.n_parameters},), got {tuple(vector.shape)}")
    return vector.detach().to(objective.theta)


def _evaluated(
    objective: Objective,
    vectors: Sequence[Tensor],
    points: Sequence[tuple[float, ...]],
    progress: Progress | None,
) -> tuple[FloatArray, FloatArray]:
    loss, accuracy = np.empty(len(points)), np.empty(len(points))
    for index, multiples in enumerate(points):
        theta = objective.theta.clone()
        for multiple, vector in zip(multiples, vectors, strict=True):
            theta.add_(vector, alpha=multiple)
        evaluation = objective.evaluate(theta)
        loss[index], accuracy[index] = evaluation.loss, evaluation.accuracy
        if progress:
            progress(index + 1, len(points))
    return loss, accuracy
