"""What lines and surfaces share: samples are drawn, finished points are kept, and results get their fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.evaluation.evaluator import Evaluator, Values
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.results.fields import FloatArray
from landscape.slices.checkpoint import Checkpoint, fingerprint
from landscape.slices.directions import Directions

Evaluate = Callable[[FloatArray, Callable[[int], None] | None], Values]
"""(multiples (points, directions), called with the number of points done) -> values at the points."""


@dataclass(frozen=True)
class Options:
    """The options of a measurement that `lines` and `surfaces` share; see `surfaces`."""

    batch_norm: str
    calibration: Tensor | None
    samples: int | None
    seed: int
    checkpoint: str | Path | None
    checkpoint_seconds: float


@dataclass(frozen=True)
class Slice:
    """Several losses on one line or plane, ready to be evaluated.

    Attributes:
        objectives: the losses, on the samples that were drawn.
        population: the number of samples of each objective before the draw.
        batch_norm: how BatchNorm is evaluated.
        evaluator: evaluates points.
        evaluate: the evaluator; finished points are kept in the checkpoint's file if one is given.
    """

    objectives: dict[str, Objective]
    population: dict[str, int]
    batch_norm: str
    evaluator: Evaluator
    evaluate: Evaluate

    def fields(self, values: Values, shape: Sequence[int], directions: Any) -> dict[str, dict[str, Any]]:
        """The fields that results for lines and for surfaces share, for each loss.

        Args:
            values: at all points.
            shape: of the grid of points.
            directions: what the caller gave.
        """
        center = self.evaluator.center
        known = isinstance(directions, Directions)
        loss_error, rise_error = self._corrected(values.loss_error), self._corrected(values.rise_error)
        return {
            name: {
                "loss": _of_loss(values.loss, column, shape),
                "accuracy": _of_loss(values.accuracy, column, shape),
                "loss_error": None if loss_error is None else _of_loss(loss_error, column, shape),
                "rise_error": None if rise_error is None else _of_loss(rise_error, column, shape),
                "center_loss": float(center.loss[0, column]),
                "center_accuracy": float(center.accuracy[0, column]),
                "samples": objective.n_samples,
                "population": self.population[name],
                "batch_norm": self.batch_norm,
                "calibration_samples": self.evaluator.calibration_samples,
                "direction_kind": directions.kind if known else "given",
                "one_dimensional": directions.one_dimensional if known else "kept",
                "loss_unit": unit_of(objective.loss_fn),
            }
            for column, (name, objective) in enumerate(self.objectives.items())
        }

    def _corrected(self, errors: FloatArray | None) -> FloatArray | None:
        """Standard errors (points, losses), corrected for finite populations (Cochran 1977, section 2.2)."""
        if errors is None:
            return None
        drawn = [objective.n_samples / self.population[name] for name, objective in self.objectives.items()]
        return errors * np.sqrt(1 - np.array(drawn))


def _of_loss(values: FloatArray, column: int, shape: Sequence[int]) -> FloatArray:
    return values[:, column].reshape(shape).copy()


def prepared(
    objectives: Mapping[str, Objective], vectors: list[Tensor], axes: Sequence[FloatArray], options: Options
) -> Slice:
    """The losses on the grid of the axes along the vectors."""
    chosen, population = _sampled(objectives, options.samples, options.seed)
    evaluator = Evaluator(
        chosen,
        vectors,
        batch_norm=options.batch_norm,
        calibration=options.calibration,
        errors=options.samples is not None,
        expected=math.prod(map(len, axes)),
    )
    evaluate: Evaluate = evaluator
    if options.checkpoint is not None:
        if first_of(chosen).process_group is not None:
            raise ValueError("checkpoint: cannot be written by several ranks")
        settings = ([axis.tolist() for axis in axes], options.batch_norm, evaluator.calibration_samples)
        digests = fingerprint(chosen, vectors, settings)
        evaluate = Checkpoint(options.checkpoint, evaluator, digests, every=options.checkpoint_seconds)
    return Slice(chosen, population, options.batch_norm, evaluator, evaluate)


def first_of(objectives: Mapping[str, Objective]) -> Objective:
    """The first objective.

    Raises:
        ValueError: there is none.
    """
    if not objectives:
        raise ValueError("objectives: holds none")
    return next(iter(objectives.values()))


def _sampled(
    objectives: Mapping[str, Objective], samples: int | None, seed: int
) -> tuple[dict[str, Objective], dict[str, int]]:
    """Each objective on `samples` of its samples, and how many samples it had.

    Objectives with the same number of samples keep the same ones.
    """
    population = {name: objective.n_samples for name, objective in objectives.items()}
    if samples is None:
        return dict(objectives), population
    chosen = {}
    for name, objective in objectives.items():
        if not 2 <= samples <= objective.n_samples:
            raise ValueError(
                f"samples: must lie between 2 and the {objective.n_samples} there are, got {samples}"
            )
        if objective.process_group is not None:
            raise ValueError(
                "samples: with a process group, give each rank's objective fewer samples instead"
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(objective.n_samples, generator=generator)
        chosen[name] = objective.subset(samples=order[:samples].sort().values)
    return chosen, population
