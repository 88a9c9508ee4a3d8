"""What lines and surfaces share: samples are drawn, finished points are kept, and results get their fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.random_part import random_part
from landscape.evaluation.batch_norm import evenly_spaced
from landscape.evaluation.evaluator import Evaluator, Values
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.results.fields import FloatArray
from landscape.seeds import generator_for
from landscape.slices.checkpoint import Checkpoint, fingerprint
from landscape.slices.directions import Directions
from landscape.slices.levels import Evaluate, Levels


@dataclass(frozen=True)
class Options:
    """The options of a measurement that `lines` and `surfaces` share; see `surfaces`."""

    batch_norm: str
    calibration: Tensor | None
    samples: int | None
    seed: int
    checkpoint: str | Path | None
    checkpoint_seconds: float
    part: float | None = None


@dataclass(frozen=True)
class Slice:
    """Several losses on one line or plane, ready to be evaluated.

    Attributes:
        objectives: the losses, on the samples that were drawn.
        population: the number of samples of each objective before the draw.
        batch_norm: how BatchNorm is evaluated.
        evaluator: evaluates points.
        evaluate: the evaluator, or with a part that of `Levels`; finished points are kept in the checkpoint's file if
            one is given.
        parts: the losses on a random part of the samples; none without a part.
        share: cost of a point on the part, relative to a point on all samples.
        seed: seed of the draws.
    """

    objectives: dict[str, Objective]
    population: dict[str, int]
    batch_norm: str
    evaluator: Evaluator
    evaluate: Evaluate
    parts: dict[str, Objective]
    share: float
    seed: int

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
                **self._of_part(name),
                "calibration_samples": self.evaluator.calibration_samples,
                "direction_kind": directions.kind if known else "given",
                "one_dimensional": directions.one_dimensional if known else "kept",
                "loss_unit": unit_of(objective.loss_fn),
            }
            for column, (name, objective) in enumerate(self.objectives.items())
        }

    def _of_part(self, name: str) -> dict[str, int]:
        part = self.parts.get(name)
        return {} if part is None else {"part_samples": part.n_samples, "part_seed": self.seed}

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
    parts = {
        name: random_part(objective, options.part, options.seed)
        for name, objective in chosen.items()
        if options.part is not None
    }
    calibration = options.calibration
    if parts and calibration is None and options.batch_norm == "recalibrate":
        # the part has the statistics of all samples
        calibration = evenly_spaced(first_of(chosen))
    ready = partial(
        Evaluator,
        vectors=vectors,
        batch_norm=options.batch_norm,
        calibration=calibration,
        errors=options.samples is not None,
        expected=math.prod(map(len, axes)),
    )
    evaluator = ready(chosen)
    levels = Levels(evaluator, ready(parts)) if parts else None
    evaluates = levels or evaluator
    evaluate: Evaluate = evaluates
    if options.checkpoint is not None:
        if first_of(chosen).process_group is not None:
            raise ValueError("checkpoint: cannot be written by several ranks")
        settings = (
            *([axis.tolist() for axis in axes], options.batch_norm, evaluator.calibration_samples),
            *((options.part, options.seed) if parts else ()),
        )
        digests = fingerprint(chosen, vectors, settings)
        evaluate = Checkpoint(options.checkpoint, evaluates, digests, every=options.checkpoint_seconds)
    share = levels.share if levels else 0.0
    return Slice(chosen, population, options.batch_norm, evaluator, evaluate, parts, share, options.seed)


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
        if samples < objective.n_samples and objective.counting.is_sum:
            raise ValueError(
                f"samples: the loss of {name!r} is a sum, which is smaller for some of the samples; make the Objective "
                "with reduction='mean', or leave out samples"
            )
        if objective.process_group is not None:
            raise ValueError(
                "samples: with a process group, give each rank's objective fewer samples instead"
            )
        generator = generator_for("samples of slices", seed)
        order = torch.randperm(objective.n_samples, generator=generator, device="cpu")
        chosen[name] = objective.subset(samples=order[:samples].sort().values)
    return chosen, population
