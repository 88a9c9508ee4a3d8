"""The plane that holds most of the movement of a training trajectory, and the trajectory in this plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.model.weights import Weights
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.slices.directions import Directions

BLOCK = 1 << 20
"""Weights of all checkpoints that are held in float64 at a time."""


@result
class Trajectory(DrawnResult):
    """Checkpoints of a training as points of a plane through the model."""

    coordinates: FloatArray = described(
        "multiples of the directions, 0 at the model itself", dims=("checkpoint", "direction")
    )
    distances: FloatArray = described("l2 distance of each checkpoint from the plane", dims=("checkpoint",))
    explained: FloatArray = described(
        "share of the checkpoints' variance along each direction; NaN for directions that are not orthonormal",
        dims=("direction",),
    )
    from_model: FloatArray | None = described(
        "l2 distance of each checkpoint from the model itself", dims=("checkpoint",), default=None
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
    points = _Points.of(objective, checkpoints)
    if not isinstance(count, Integral) or not 1 <= count < len(checkpoints):
        raise ValueError(
            f"count: {len(checkpoints)} checkpoints have at most {len(checkpoints) - 1} directions, got {count}"
        )
    if count > objective.n_parameters:
        raise ValueError(f"count: {objective.n_parameters} weights have no more directions, got {count}")
    vectors, squares = _principal_components(points, count)
    # the sign that lets the trajectory begin on the positive side
    begins = _sum(block[0] @ vectors[place] for place, block in points.blocks())
    vectors = vectors * torch.where(begins < 0, -1.0, 1.0)
    cosines = (vectors.T @ vectors).cpu().numpy()
    directions = Directions(
        vectors=vectors.to(objective.dtype).contiguous(),
        cosines=cosines,
        kind=f"principal components of {len(checkpoints)} checkpoints",
        one_dimensional="kept",
        seed=0,
        angles=np.degrees(np.arccos(np.clip(cosines, -1, 1))),
    )
    explained = (squares / squares.sum())[:count].cpu().numpy()
    return directions, _projected(points, vectors, explained)


@of_objective
def shared_plane(
    objective: Objective, trajectories: Mapping[str, Sequence[Weights]], count: int = 2
) -> tuple[Directions, dict[str, Trajectory]]:
    """One plane for several trainings: the principal directions of all their checkpoints together, and each path.

    `explained` of each trajectory is the share of the variance of all checkpoints, so that a training with more
    checkpoints has more influence on the plane. `distances` say how far each checkpoint lies from the plane.

    Args:
        objective: its weights are the origin, such as where all trainings begin.
        trajectories: name -> the weights of a training, in order.
        count: number of directions.

    Raises:
        ValueError: no trajectory, or what `trajectory_directions` raises of all checkpoints together.
    """
    if not trajectories:
        raise ValueError("trajectories: holds none")
    directions, whole = trajectory_directions(
        objective, [weights for training in trajectories.values() for weights in training], count
    )
    assert whole.from_model is not None
    ends = np.cumsum([len(training) for training in trajectories.values()])
    parts = zip(
        *(np.split(each, ends[:-1]) for each in (whole.coordinates, whole.distances, whole.from_model)),
        strict=True,
    )
    return directions, {
        name: Trajectory(coordinates, distances, whole.explained, from_model)
        for name, (coordinates, distances, from_model) in zip(trajectories, parts, strict=True)
    }


@of_objective
def projected_trajectory(
    objective: Objective, directions: Directions, checkpoints: Sequence[Weights]
) -> Trajectory:
    """Checkpoints as multiples of any directions: the nearest points of the plane, by least squares.

    Raises:
        ValueError: checkpoints have other sizes or are not finite, or the directions are not independent.
    """
    points = _Points.of(objective, checkpoints)
    vectors = directions.vectors.to(objective.device, torch.float64)
    if torch.linalg.matrix_rank(vectors) < vectors.shape[1]:
        raise ValueError("directions: are not independent")
    return _projected(points, vectors, np.full(vectors.shape[1], np.nan))


@dataclass(frozen=True)
class _Points:
    """Checkpoints as differences from the objective's weights, in blocks of weights.

    No float64 copy of all of them is made: those of a large model would not fit into memory.
    """

    checkpoints: list[Tensor]
    theta: Tensor

    @classmethod
    def of(cls, objective: Objective, checkpoints: Sequence[Weights]) -> _Points:
        """Checkpoints in any form.

        Raises:
            ValueError: fewer than 2, of other sizes or not finite.
        """
        if len(checkpoints) < 2:
            raise ValueError(f"checkpoints: must be at least 2, got {len(checkpoints)}")
        flat = [objective.flatten(weights) for weights in checkpoints]
        for place, weights in enumerate(flat):
            if not bool(torch.isfinite(weights).all()):
                raise ValueError(
                    f"checkpoints: the one at position {place} holds weights that are not finite; leave it out"
                )
        return cls(flat, objective.theta)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of weights, and the differences (checkpoints, weights of the range) in float64."""
        for start in range(0, len(self.theta), BLOCK):
            place = slice(start, start + BLOCK)
            rows = torch.stack([weights[place].double() for weights in self.checkpoints])
            yield place, rows - self.theta[place].double()


def _principal_components(points: _Points, count: int) -> tuple[Tensor, Tensor]:
    """The first principal components (n, count) of the points about their mean, and all squared singular values.

    From the Gram matrix of the points (checkpoints, checkpoints), which is small whatever the model is. Its rounding
    hides directions along which the points spread less than 1e-8 times as far as along the first; those are refused.

    Raises:
        ValueError: the points span fewer directions.
    """
    gram = _sum(centered @ centered.T for _, block in points.blocks() for centered in [block - block.mean(0)])
    squares, left = torch.linalg.eigh(gram)
    squares, left = squares.flip(0).clamp(min=0), left.flip(1)[:, :count]
    if not squares[count - 1] > 1e-14 * squares[0]:
        raise ValueError(f"count: the checkpoints do not span {count} directions")
    vectors = torch.cat([(block - block.mean(0)).T @ left for _, block in points.blocks()])
    # orthonormal to rounding also where the second direction is much shorter than the first
    basis, triangle = torch.linalg.qr(vectors)
    return basis * triangle.diagonal().sign(), squares


def _projected(points: _Points, vectors: Tensor, explained: FloatArray) -> Trajectory:
    basis, triangle = torch.linalg.qr(vectors)
    along = _sum(block @ basis[place] for place, block in points.blocks())
    coordinates = torch.linalg.solve_triangular(triangle, along.T, upper=True).T
    squares = _sum((block - along @ basis[place].T).square().sum(1) for place, block in points.blocks())
    far = _sum(block.square().sum(1) for _, block in points.blocks())
    distances, from_model = (each.sqrt().cpu().numpy() for each in (squares, far))
    return Trajectory(coordinates.cpu().numpy(), distances, explained, from_model)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)
