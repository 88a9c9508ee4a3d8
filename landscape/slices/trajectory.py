"""The plane that holds most of the movement of a training trajectory, and the trajectory in this plane."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.loss.weights import Weights
from landscape.loss.wrapped import of_objective
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.slices.directions import Directions


@result
class Trajectory:
    """Checkpoints of a training as points of a plane through the model."""

    coordinates: FloatArray = described(
        "multiples of the directions, 0 at the model itself", dims=("checkpoint", "direction")
    )
    distances: FloatArray = described("l2 distance of each checkpoint from the plane", dims=("checkpoint",))
    explained: FloatArray = described(
        "share of the checkpoints' variance along each direction; NaN for directions that are not orthonormal",
        dims=("direction",),
    )


@of_objective
def trajectory_directions(
    objective: Objective, checkpoints: Sequence[Weights], count: int = 2
) -> tuple[Directions, Trajectory]:
    """The principal directions of a training trajectory, and the trajectory along them (Li et al. 2018, section 7).

    The directions are the principal components of the checkpoints about their mean, of norm 1. The plane that they span
    goes through the objective's weights, such as the last checkpoint.

    Args:
        objective: its weights are the origin.
        checkpoints: the weights of the trajectory, in order.
        count: number of directions.

    Raises:
        ValueError: there are fewer than two checkpoints, they have other sizes or are not finite, or they span fewer
            directions.
    """
    points = _differences(objective, checkpoints)
    if not isinstance(count, Integral) or not 1 <= count < len(checkpoints):
        raise ValueError(
            f"count: {len(checkpoints)} checkpoints have at most {len(checkpoints) - 1} directions, got {count}"
        )
    if count > objective.n_parameters:
        raise ValueError(f"count: {objective.n_parameters} weights have no more directions, got {count}")
    centered = points - points.mean(0)
    _, sizes, rows = torch.linalg.svd(centered, full_matrices=False)
    if not sizes[count - 1] > 1e-7 * sizes[0]:
        raise ValueError(f"count: the checkpoints do not span {count} directions")
    # with this sign the trajectory begins on the positive side
    vectors = (rows[:count] * torch.where(points[0] @ rows[:count].T < 0, -1.0, 1.0).unsqueeze(1)).T
    cosines = (vectors.T @ vectors).cpu().numpy()
    directions = Directions(
        vectors=vectors.to(objective.dtype).contiguous(),
        cosines=cosines,
        kind=f"principal components of {len(checkpoints)} checkpoints",
        one_dimensional="kept",
        seed=0,
        angles=np.degrees(np.arccos(np.clip(cosines, -1, 1))),
    )
    explained = (sizes.square() / sizes.square().sum())[:count].cpu().numpy()
    coordinates, distances = _projected(points, vectors)
    return directions, Trajectory(coordinates, distances, explained)


@of_objective
def projected_trajectory(
    objective: Objective, directions: Directions, checkpoints: Sequence[Weights]
) -> Trajectory:
    """Checkpoints as multiples of any directions: the nearest points of the plane, by least squares.

    Raises:
        ValueError: checkpoints have other sizes or are not finite, or the directions are not independent.
    """
    points = _differences(objective, checkpoints)
    vectors = directions.vectors.to(points)
    if torch.linalg.matrix_rank(vectors) < vectors.shape[1]:
        raise ValueError("directions: are not independent")
    coordinates, distances = _projected(points, vectors)
    return Trajectory(coordinates, distances, np.full(vectors.shape[1], np.nan))


def _differences(objective: Objective, checkpoints: Sequence[Weights]) -> Tensor:
    """The checkpoints minus the objective's weights, (checkpoints, n), in float64."""
    if len(checkpoints) < 2:
        raise ValueError(f"checkpoints: must be at least 2, got {len(checkpoints)}")
    theta = objective.theta.double()
    points = torch.stack([objective.flatten(weights).double() - theta for weights in checkpoints])
    finite = torch.isfinite(points).all(1)
    if not finite.all():
        first = int(finite.int().argmin())
        raise ValueError(
            f"checkpoints: the one at position {first} holds weights that are not finite; leave it out"
        )
    return points


def _projected(points: Tensor, vectors: Tensor) -> tuple[FloatArray, FloatArray]:
    basis, triangle = torch.linalg.qr(vectors)
    coordinates = torch.linalg.solve_triangular(triangle, basis.T @ points.T, upper=True).T
    rest = points - coordinates @ vectors.T
    return coordinates.cpu().numpy(), torch.linalg.vector_norm(rest, dim=1).cpu().numpy()
