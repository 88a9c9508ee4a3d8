"""Directions in weight space, along which lines and surfaces are evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.eigenvalues import TopEigenvalues
from landscape.evaluation.other_network import check_that_weights_lead_to
from landscape.loss.objective import Objective
from landscape.loss.wrapped import check_whole_vectors, of_objective, of_weights
from landscape.model.long_vectors import length, of_length, power_of_two
from landscape.model.weights import Weights, filter_norms
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import Result
from landscape.seeds import fill_normal, generator_for

ONE_DIMENSIONAL = ("zero", "normalize")
NORMALIZATIONS = ("filter", "layer", "model")
PIECE = 2**16
"""Entries of a direction that are copied to float64 at a time."""


@result
class Directions(Result):
    """Vectors in weight space, and how they were made."""

    vectors: Tensor = described("directions, one a column", dims=("parameter", "direction"))
    cosines: FloatArray = described("cosines between the directions", dims=("direction", "other_direction"))
    kind: str = described("how the directions were made")
    one_dimensional: str = described("what was done with biases and BatchNorm parameters")
    seed: int = described("seed of the draw")
    angles: FloatArray | None = described(
        "angles between the directions", unit="degree", dims=("direction", "other_direction"), default=None
    )
    orthogonalized: bool = described("the part of each along those before it was taken out", default=False)


@of_weights
def filter_normalized_directions(
    objective: Objective, count: int = 2, *, seed: int = 0, one_dimensional: str = "zero"
) -> Directions:
    """Random Gaussian directions, filter-normalized (Li et al. 2018, arXiv:1712.09913, section 4).

    Each output filter of a convolution, and each row of a linear layer's weights, is scaled to the norm of the model's
    filter: d <- d / ||d|| ||theta||. A filter of norm zero gives zero.

    Args:
        objective: its weights give the norms.
        count: number of directions.
        seed: seed of the draw.
        one_dimensional: `"zero"` leaves out biases and BatchNorm parameters, as Li et al. do; `"normalize"` normalizes
            each of these tensors as a whole.

    Raises:
        ValueError: an argument is out of range, or all directions would be 0.
    """
    return random_directions(objective, count, seed=seed, one_dimensional=one_dimensional)


@of_weights
def random_directions(
    objective: Objective,
    count: int = 2,
    *,
    normalize: str = "filter",
    seed: int = 0,
    one_dimensional: str = "zero",
) -> Directions:
    """Random Gaussian directions, normalized as `normalized` does.

    Raises:
        ValueError: an argument is out of range.
    """
    if count < 1:
        raise ValueError(f"count: must be at least 1, got {count}")
    objective.memory.check_room(count, f"{count} random directions")
    generator = generator_for("directions", seed)
    check_normalization("normalize", normalize, one_dimensional)
    _check_that_weights_have_norms(objective, one_dimensional)
    rows = objective.theta.new_empty(count, objective.n_parameters)
    for row in rows:
        # one tensor at a time, so that a direction does not depend on how many there are
        for part in objective.unflatten(row).values():
            fill_normal(part, generator)
        _normalize(row, objective, normalize, one_dimensional)
    return _directions(rows.T, f"{normalize}-normalized", one_dimensional=one_dimensional, seed=seed)


def normalized(
    directions: Directions, objective: Objective, per: str = "filter", *, one_dimensional: str = "zero"
) -> Directions:
    """The directions with the norms of the objective's weights.

    Args:
        directions: any directions.
        objective: its weights give the norms.
        per: `"filter"` normalizes each output filter and row (Li et al. 2018), `"layer"` each weight tensor as a whole,
            and `"model"` all weights as a whole.
        one_dimensional: `"zero"` leaves out biases and BatchNorm parameters; `"normalize"` normalizes each of these
            tensors as a whole.

    Raises:
        ValueError: an argument is out of range.
    """
    check_whole_vectors(objective, "normalized")
    check_normalization("per", per, one_dimensional)
    _check_that_weights_have_norms(objective, one_dimensional)
    rows = directions.vectors.T.clone(memory_format=torch.contiguous_format)
    for row in rows:
        _normalize(row, objective, per, one_dimensional)
    kind = f"{directions.kind}, {per}-normalized"
    return _directions(rows.T, kind, one_dimensional=one_dimensional, seed=directions.seed)


def check_normalization(name: str, normalization: str, one_dimensional: str) -> None:
    """Raises ValueError for what is none of `NORMALIZATIONS` or `ONE_DIMENSIONAL`.

    Args:
        name: what the caller's function calls the normalization.
        normalization: one of `NORMALIZATIONS`.
        one_dimensional: one of `ONE_DIMENSIONAL`.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"{name}: must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}")
    if one_dimensional not in ONE_DIMENSIONAL:
        raise ValueError(
            f"one_dimensional: must be one of {', '.join(ONE_DIMENSIONAL)}, got {one_dimensional!r}"
        )


def eigenvector_directions(eigen: TopEigenvalues, count: int = 2) -> Directions:
    """The eigenvectors of the first eigenvalues, of norm 1.

    Raises:
        ValueError: there are fewer than `count` eigenvectors, or the result holds none.
    """
    vectors = eigen.kept_vectors("eigen")
    if not 1 <= count <= vectors.shape[1]:
        raise ValueError(f"count: must lie between 1 and {vectors.shape[1]}, got {count}")
    values = ", ".join(f"{value:.3g}" for value in eigen.values[:count])
    return _directions(vectors[:, :count], f"eigenvectors of the {eigen.matrix} matrix ({values})")


@of_objective
def gradient_direction(objective: Objective) -> Directions:
    """The gradient of the mean loss as a direction, with the length of the gradient."""
    return _directions(objective.gradient().unsqueeze(1), "gradient")


@of_weights
def given_direction(objective: Objective, vector: Weights, kind: str = "given") -> Directions:
    """A direction from elsewhere, such as the perturbation of SAM or NCSAM on a batch.

    Args:
        objective: the direction is one in the space of its weights.
        vector: one vector, tensors in `named_parameters` order, or a mapping by name.
        kind: how the direction was made; results store this text.

    Raises:
        ValueError: the sizes are not those of the weights.
    """
    return _directions(objective.flatten(vector).unsqueeze(1), kind)


@of_weights
def direction_to(objective: Objective, other: Weights, kind: str = "to another checkpoint") -> Directions:
    """The direction from the objective's weights to other weights, which lie at the multiple 1.

    BatchNorm's statistics are no weights: along the direction they stay, or are computed anew (`batch_norm=` of `line`
    and `surface`).

    Raises:
        ValueError: the sizes are not those of the weights, or the objective's model does not become the other network
            with its weights, as for `paths`.
    """
    check_that_weights_lead_to(objective, other)
    return _directions((objective.flatten(other) - objective.theta).unsqueeze(1), kind)


def combined(*directions: Directions) -> Directions:
    """All columns of several directions, such as the gradient and an eigenvector.

    Raises:
        ValueError: there are no directions, or their lengths differ.
    """
    if len({each.vectors.shape[0] for each in directions}) != 1:
        raise ValueError("directions: must be one or more, all of the same length")
    choices = dict.fromkeys(each.one_dimensional for each in directions)
    vectors = [each.vectors.to(directions[0].vectors) for each in directions]
    return _directions(
        torch.cat(vectors, 1),
        " and ".join(each.kind for each in directions),
        one_dimensional=", ".join(choices),
        seed=directions[0].seed,
    )


def orthogonalized(directions: Directions) -> Directions:
    """Removes from each direction its part along the earlier directions, and keeps its length.

    Raises:
        ValueError: a direction lies in the span of the earlier ones.
    """
    vectors = directions.vectors.double()
    norms = torch.linalg.vector_norm(vectors, dim=0)
    basis, triangle = torch.linalg.qr(vectors)
    left = triangle.diagonal()
    if not (left.abs() > 1e-6 * norms).all():
        raise ValueError("directions: one lies in the span of those before it; there is no plane to draw")
    vectors = (basis * (left.sign() * norms)).to(directions.vectors.dtype)
    made = _directions(
        vectors, directions.kind, one_dimensional=directions.one_dimensional, seed=directions.seed
    )
    return dataclasses.replace(made, orthogonalized=True)


def _directions(vectors: Tensor, kind: str, *, one_dimensional: str = "kept", seed: int = 0) -> Directions:
    cosines = _cosines(vectors)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return Directions(vectors.detach(), cosines, kind, one_dimensional, seed, angles)


def _normalize(vector: Tensor, objective: Objective, per: str, one_dimensional: str) -> None:
    """Gives a vector (n,), in place, the norms of the objective's weights."""
    weights = objective.unflatten(objective.theta)
    for name, part in objective.unflatten(vector).items():
        if part.ndim < 2 and one_dimensional == "zero":
            part.zero_()
        elif per != "model":
            part.copy_(_with_norms(part, weights[name], per, partial(filter_norms, objective.model, name)))
    if per == "model":
        of_length(vector, length(objective.theta), out=vector)


def _check_that_weights_have_norms(objective: Objective, one_dimensional: str) -> None:
    """Raises ValueError if each direction would be 0, and each line and surface flat."""
    weights = list(objective.unflatten(objective.theta).values())
    if one_dimensional == "zero" and all(weight.ndim < 2 for weight in weights):
        raise ValueError(
            "one_dimensional: all weights of the objective are one-dimensional, as biases and those of BatchNorm are, "
            "and 'zero' leaves these out, so that every direction would be 0; give one_dimensional='normalize'"
        )
    drawn = [weight for weight in weights if weight.ndim > 1 or one_dimensional != "zero"]
    if not any(weight.any() for weight in drawn):
        raise ValueError(
            "objective: all its weights are 0 where a direction moves them, and directions get the norms of the "
            "weights, so that every direction would be 0; give directions of your own by given_direction"
        )


def _with_norms(
    direction: Tensor, weight: Tensor, per: str, of_filters: Callable[[Tensor], Tensor]
) -> Tensor:
    """The direction of one tensor with the norms of its weights."""
    if weight.ndim < 2 or per == "layer":
        return of_length(direction, length(weight))
    direction = direction / power_of_two(direction)
    norms, wanted = of_filters(direction), of_filters(weight)
    return direction * torch.where(norms > 0, wanted / norms, torch.zeros_like(norms))


def _cosines(vectors: Tensor) -> FloatArray:
    products = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64, device=vectors.device)
    units = power_of_two(vectors, 0).double()
    for piece in vectors.split(PIECE):
        scaled = piece.double() / units
        products += scaled.T @ scaled
    lengths = products.diagonal().sqrt()
    # the cosine of a vector of zeros is 0
    lengths = torch.where(lengths == 0, 1.0, lengths)
    return np.asarray((products / lengths.outer(lengths)).cpu().numpy(), dtype=np.float64)
