"""Paths between two solutions: the straight line with its barrier, and a bent path of low loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.data.batches import copied_to
from landscape.data.gathered import SharedSamples
from landscape.evaluation.batch_norm import BatchStatistics, keeps_statistics
from landscape.evaluation.evaluator import Evaluator
from landscape.evaluation.for_one import with_arguments_of
from landscape.evaluation.other_network import check_that_weights_lead_to
from landscape.loss.gradients import Gradients
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.model.weights import Weights
from landscape.progress import Progress, as_progress
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import DrawnResult, Result
from landscape.seeds import generator_for


@result
class Path(DrawnResult):
    """Loss and accuracy from one solution, at position 0, to another, at position 1."""

    position: FloatArray = described("place on the path, from 0 to 1", dims=("position",), coordinate=True)
    loss: FloatArray = described("mean loss", unit=LOSS_UNIT, dims=("position",))
    accuracy: FloatArray = described("accuracy; NaN where targets are not classes", dims=("position",))
    barrier: float = described(
        "largest loss above the straight line between the ends' losses, at the points evaluated",
        unit=LOSS_UNIT,
    )
    barrier_position: float = described("where that is")
    kind: str = described("straight or quadratic Bezier")
    distance: float = described("l2 distance between the ends")
    length: float = described("l2 length of the path")
    batch_norm: str = described("statistics of BatchNorm at each point")
    calibration_samples: int = described("inputs that BatchNorm is recalibrated with")
    samples: int = described("samples in the mean loss")
    loss_unit: str = loss_unit_field()


@result
class Bend(Result):
    """The control point of a quadratic Bezier curve of low loss between two solutions."""

    vector: Tensor = described("weights of the control point", dims=("parameter",))
    loss: FloatArray = described(
        "loss of the batch at each step, at a random point of the path", unit=LOSS_UNIT, dims=("step",)
    )
    batch_size: int = described("samples of a batch")
    learning_rate: float = described("of Adam at the first step, with cosine decay to 0")
    seed: int = described("seed of the batches and the points")
    loss_unit: str = loss_unit_field()


@of_objective
def paths(
    objectives: Mapping[str, Objective],
    other: Weights,
    *,
    bend: Bend | None = None,
    steps: int = 25,
    batch_norm: str | None = None,
    calibration: Tensor | None = None,
    progress: Progress | bool | None = None,
) -> dict[str, Path]:
    """Several losses on the way from the objectives' weights to others, from the same passes.

    The barrier is max_t L(t) - ((1 - t) L(0) + t L(1)) (Frankle et al. 2020; Entezari et al. 2022). Two networks that
    were trained separately differ in the order of their units; `matched` brings the units into one order first.

    Args:
        objectives: of one model, as for `surfaces`.
        other: the other solution's weights. A module, or its tensors by name, is compared with the objectives' model in
            all that stays on the path: frozen parameters, buffers, and what layers hold besides.
        bend: the control point of a quadratic Bezier curve (`low_loss_bend`); a straight line if not given.
        steps: number of points on the path, its ends included.
        batch_norm: `"eval"` uses the statistics of the objectives' model everywhere. `"recalibrate"` computes the
            statistics anew at each point, because the statistics of one end are wrong at the other. It is the default
            for models with BatchNorm statistics.
        calibration: inputs to recalibrate with, as for `surfaces`.
        progress: as for `surfaces`.

    Raises:
        ValueError: an argument is out of range, the objectives are of different models, or their model does not become
            the other one with its weights, so that the path would not end there.
    """
    if steps < 2:
        raise ValueError(f"steps: must be at least 2, got {steps}")
    if not objectives:
        raise ValueError("objectives: holds none")
    first = next(iter(objectives.values()))
    check_that_weights_lead_to(first, other)
    position = np.linspace(0, 1, steps)
    chord = first.flatten(other) - first.theta
    vectors, multiples = [chord], position[:, None]
    if bend is not None:
        vectors = [first.flatten(bend.vector) - first.theta, chord]
        multiples = np.stack([2 * position * (1 - position), position**2], 1)
    choice = batch_norm or _choice_for(first)
    evaluator = Evaluator(objectives, vectors, batch_norm=choice, calibration=calibration, expected=steps)
    report = as_progress(progress, "path")
    values = evaluator(multiples, lambda done: report(done, steps))
    distance = torch.linalg.vector_norm(chord.double()).item()
    result = {}
    for column, (name, objective) in enumerate(objectives.items()):
        loss = values.loss[:, column].copy()
        rise = loss - ((1 - position) * loss[0] + position * loss[-1])
        # a path with a NaN has no barrier of 0; argmax takes NaN for the largest number
        highest = int(rise.argmax())
        result[name] = Path(
            position=position.copy(),
            loss=loss,
            accuracy=values.accuracy[:, column].copy(),
            barrier=float(rise[highest]),
            barrier_position=float(position[highest]),
            kind="straight" if bend is None else "quadratic Bezier",
            distance=distance,
            length=distance if bend is None else _length(vectors),
            batch_norm=choice,
            calibration_samples=evaluator.calibration_samples,
            samples=objective.n_samples,
            loss_unit=unit_of(objective.loss_fn),
        )
    return result


@of_objective
@with_arguments_of(paths)
def path(objective: Objective, *arguments: Any, **options: Any) -> Path:
    """Loss and accuracy from the objective's weights to others; arguments as for `paths`."""
    return paths({"loss": objective}, *arguments, **options)["loss"]


@of_objective
def low_loss_bend(
    objective: Objective,
    other: Weights,
    *,
    steps: int = 300,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Bend:
    """Trains the control point of a quadratic Bezier curve so that the loss along it is low.

    The curve is (1 - t)^2 a + 2 t (1 - t) w + t^2 b, from the objective's weights a to other weights b, with the
    control point w. Each step lowers the loss of a random batch at a random t (Garipov et al. 2018, arXiv:1802.10026,
    section 3). The control point begins in the middle of the straight line. Meanwhile BatchNorm uses the statistics of
    the batch, as in training. Of several ranks each has the batch of all, so that the control point is that of one
    process with all samples.

    Args:
        objective: its loss is lowered, and its weights are one end of the curve.
        other: the weights at the other end.
        steps: number of steps of Adam, whose learning rate falls to 0 as a cosine.
        batch_size: number of samples in a step.
        learning_rate: learning rate of the first step.
        seed: seed of the batches and of t.
        progress: called with the steps done and the steps in all. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range, or the path would not end at the other model, as for `paths`.
    """
    if steps < 1:
        raise ValueError(f"steps: must be at least 1, got {steps}")
    if not 1 <= batch_size <= objective.n_samples:
        raise ValueError(
            f"batch_size: must lie between 1 and {objective.n_samples} samples, got {batch_size}"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: must be positive and finite, got {learning_rate}")
    # two ends, the control point, Adam's two averages, a point and its gradient
    objective.memory.check_room(7, "low_loss_bend")
    check_that_weights_lead_to(objective, other)
    samples, batch_loss = _samples_and_loss(objective)
    start, end = objective.theta, objective.flatten(other)
    report = as_progress(progress, "bend")
    generator = generator_for("places on a path", seed)
    control = (start + end) / 2
    adam = torch.optim.Adam([control], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps)
    losses = torch.zeros(steps, dtype=torch.float64, device=objective.device)
    for step in range(steps):
        t = torch.rand((), generator=generator, dtype=torch.float64, device="cpu").item()
        rows = torch.randint(objective.n_samples, (batch_size,), generator=generator, device="cpu")
        batch = copied_to(samples[rows], objective.device)
        point = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
        with objective.ranks.together(), objective.exclusive, torch.enable_grad():
            loss, gradient = batch_loss.of_batch(point, *batch)
        if objective.penalty:
            loss, gradient = loss + objective.penalty(point), gradient + objective.penalty.gradient(point)
        # all ranks have the same batch, and keep the same control point although each rounds by itself
        control.grad = objective.ranks.mean(2 * t * (1 - t) * gradient)
        adam.step()
        schedule.step()
        losses[step] = objective.ranks.mean(loss.detach())
        report(step + 1, steps)
    return Bend(
        control,
        losses.cpu().numpy(),
        batch_size,
        learning_rate,
        seed,
        unit_of(objective.loss_fn),
    )


def _samples_and_loss(objective: Objective) -> tuple[SharedSamples, Gradients]:
    """The samples of all ranks, and the loss of a batch, in which BatchNorm uses the statistics of the batch."""
    with objective.ranks.together():
        objective.check_that_derivatives_exist()
        own = (objective.inputs, objective.targets)
    shares = objective.ranks.gathered(objective.chunks.samples)
    model = BatchStatistics(objective).model if _choice_for(objective) == "recalibrate" else objective.model
    loss = Gradients(model, objective.layout, objective.run, objective.loss_fn, objective.chunks)
    return SharedSamples(own, shares, objective.ranks), loss


def _choice_for(objective: Objective) -> str:
    return "recalibrate" if any(map(keeps_statistics, objective.model.modules())) else "eval"


def _length(vectors: list[Tensor]) -> float:
    """The length of the curve 2 t (1 - t) c + t^2 b: the integral of |2 (1 - 2 t) c + 2 t b| by the midpoint rule."""
    pair = torch.stack(vectors, 1).double()
    gram = (pair.T @ pair).cpu().numpy()
    t = (np.arange(1000) + 0.5) / 1000
    speed = np.stack([2 * (1 - 2 * t), 2 * t])
    return float(np.sqrt(np.einsum("it,ij,jt->t", speed, gram, speed).clip(0)).mean())
