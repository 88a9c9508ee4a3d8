"""The sampling error of a mean loss, and of the rise of a loss between two points."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.evaluation import Evaluation
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.worst_case import Sharpness
from landscape.sampling.errors import SamplingError, error_of
from landscape.sampling.units import Units


def loss_error(units: Units, evaluation: Evaluation) -> SamplingError:
    """The sampling error of the mean loss at the objective's weights."""
    losses = units.losses(units.objective.theta)
    value = torch.tensor([evaluation.loss], dtype=torch.float64)
    return error_of(units, ["loss"], value, units.variance(losses).reshape(1), 0 * value, products=0)


def sharpness_error(units: Units, found: Sharpness) -> SamplingError:
    """The sampling error of worst-case sharpness in a ball.

    On other samples the loss is L + D. To second order in D, the highest rise over the ball ||u|| <= rho is

        rise + D's rise at the highest point + t^T K^-1 t / 2

    with t the part of D's gradient at the highest point, in u, that is tangential to the sphere, and -K the curvature
    of the loss along the sphere. The second term has mean 0, and its variance is that of the units' rises (the envelope
    theorem). The third is a bias: the highest point fits the samples at hand. K is ||gradient|| / rho less the
    curvature of the loss itself. The latter is left out, so that the bias is a lower bound where the loss is convex.

    Raises:
        ValueError: the result holds no point, one of another number of weights, or one of a box.
    """
    objective = units.objective
    if found.offset is None or found.offset.shape != objective.theta.shape:
        raise ValueError("measured: holds no offset of these weights; it was dropped before it was stored")
    if found.norm != "l2":
        raise ValueError(f"measured: must be a sharpness in a ball (norm='l2'), got norm={found.norm!r}")
    center = objective.theta
    offset = found.offset.to(center)
    highest = center + offset
    rises = units.losses(highest) - units.losses(center)

    scale = scale_of(objective, found.adaptive)
    gradient = scale * objective.gradient(highest).double()
    length = torch.linalg.vector_norm(gradient)

    def tangential(of_unit: Tensor) -> Tensor:
        change = scale * of_unit - gradient
        # at a maximum the radius has the gradient's direction
        return (change.square().sum() - (change @ gradient / length) ** 2).reshape(1)

    square = units.mean_square(units.gradients(highest, tangential))
    bias = (found.rho * square / (2 * length.cpu())).minimum(found.rho * square.sqrt())
    value = torch.tensor([found.value], dtype=torch.float64)
    return error_of(units, ["sharpness"], value, units.variance(rises).reshape(1), bias, products=0)
