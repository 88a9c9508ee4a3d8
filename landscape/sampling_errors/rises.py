"""The sampling error of a mean loss, and of the rise of a loss between two points."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.loss.loss_and_accuracy import Evaluation
from landscape.perturbations.ascent import INSIDE
from landscape.perturbations.relative_scale import scale_of
from landscape.perturbations.worst_case import Sharpness
from landscape.sampling_errors.result import SamplingError, error_of
from landscape.sampling_errors.units import OfUnits, Units

SAME_LOSS = 1e-4
"""Two evaluations of one loss differ by less than this, relative to the loss; rounding cannot explain more."""


def loss_error(units: Units, evaluation: Evaluation) -> SamplingError:
    """The sampling error of the mean loss at the objective's weights.

    Raises:
        ValueError: the loss is that of other weights or samples.
    """
    losses = units.losses(units.objective.theta)
    _check_the_center(units, losses, evaluation.loss)
    value = torch.tensor([evaluation.loss], dtype=torch.float64, device="cpu")
    return error_of(units, ["loss"], value, units.variance(losses))


def sharpness_error(units: Units, found: Sharpness) -> SamplingError:
    """The sampling error of worst-case sharpness in a ball.

    On other samples the loss is L + D. To second order in D, the highest rise over the ball ||u|| <= rho is

        rise + D's rise at the highest point + t^T K^-1 t / 2

    Here t is the part of D's gradient (in u, at the highest point) that is tangential to the sphere, and -K is the
    curvature of the loss along the sphere. The second term has mean 0, and its variance is that of the units' rises
    (the envelope theorem). The third term is a bias, because the highest point fits the samples at hand. K is
    ||gradient|| / rho minus the curvature of the loss itself. This curvature is left out, so that the bias is a lower
    bound if the loss is convex.

    Raises:
        ValueError: the search did not converge, the result lacks its highest point, this point lies inside the ball or
            belongs to other weights or samples, or the neighborhood is a box.
    """
    objective = units.objective
    if found.offset is None or found.offset.shape != objective.theta.shape:
        raise ValueError("measured: holds no offset of these weights; it was dropped before it was stored")
    if found.norm != "l2":
        raise ValueError(f"measured: must be a sharpness in a ball (norm='l2'), got norm={found.norm!r}")
    if not found.converged:
        raise ValueError("measured: the search did not converge; repeat it with more steps, restarts or tol")
    offset = found.offset.to(objective.theta)
    scale = scale_of(objective, found.adaptive)
    in_ball = offset / scale if isinstance(scale, float) else torch.where(scale > 0, offset / scale, 0)
    if torch.linalg.vector_norm(in_ball.double()) < (1 - INSIDE) * found.rho:
        raise ValueError(
            "measured: the highest point lies inside the ball, where no sampling error is known; take a smaller rho"
        )
    highest = objective.theta + offset
    losses = units.losses(highest, objective.theta)
    _check_the_center(units, OfUnits(losses.weights, losses.values[:, 1:]), found.center_loss)
    rises = OfUnits(losses.weights, losses.values[:, :1] - losses.values[:, 1:])
    gradient = scale * objective.gradient(highest).double()
    regularizer = scale * objective.penalty.gradient(highest).double() if objective.penalty else 0.0
    length = torch.linalg.vector_norm(gradient)

    def tangential(of_unit: Tensor) -> Tensor:
        change = scale * of_unit - (gradient - regularizer)
        # at a maximum the radius has the gradient's direction
        return (change.square().sum() - (change @ gradient / length) ** 2).reshape(1)

    square = units.mean_square(units.gradients(highest, tangential))
    bias = (found.rho * square / (2 * length.cpu())).minimum(found.rho * square.sqrt())
    value = torch.tensor([found.value], dtype=torch.float64, device="cpu")
    return error_of(units, ["sharpness"], value, units.variance(rises), biases=bias)


def _check_the_center(units: Units, losses: OfUnits, expected: float) -> None:
    """Checks that losses (units, 1) at the objective's weights have the mean that was measured."""
    objective = units.objective
    loss = float(units.mean(losses)) + (
        float(objective.penalty(objective.theta)) if objective.penalty else 0.0
    )
    if not abs(loss - expected) <= SAME_LOSS * max(abs(loss), abs(expected)):
        raise ValueError(
            f"measured: belongs to other weights or samples: its loss is {expected:.6g}, that of this objective "
            f"{loss:.6g}"
        )
