"""What lines and surfaces share: the samples drawn, the finished points kept, the errors, the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.evaluation.evaluator import Evaluator, Values
from landscape.loss.objective import Objective
from landscape.results.fields import FloatArray
from landscape.slices.checkpoint import Checkpoint, fingerprint
from landscape.slices.directions import Directions


def first_of(objectives: Mapping[str, Objective]) -> Objective:
    """The first objective.

    Raises:
        ValueError: there is none.
    """
    if not objectives:
        raise ValueError("objectives: holds none")
    return next(iter(objectives.values()))


def sampled(
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


def recorded(
    evaluator: Evaluator,
    objectives: Mapping[str, Objective],
    vectors: list[Tensor],
    checkpoint: str | Path | None,
    every: float,
    settings: Any,
) -> Callable[[FloatArray, Callable[[int], None] | None], Values]:
    """The evaluator, with its finished points kept in the checkpoint's file if one is given."""
    if checkpoint is None:
        return evaluator
    if first_of(objectives).process_group is not None:
        raise ValueError("checkpoint: cannot be written by several ranks")
    return Checkpoint(checkpoint, evaluator, fingerprint(objectives, vectors, settings), every=every)


def standard_errors(
    values: Values, objectives: Mapping[str, Objective], population: Mapping[str, int], shape: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """The standard errors of each loss, with the correction for a finite population (Cochran 1977, section 2.2)."""
    result: dict[str, dict[str, Any]] = {}
    for column, (name, objective) in enumerate(objectives.items()):
        left = math.sqrt(1 - objective.n_samples / population[name])
        result[name] = {
            field: None if errors is None else left * errors[:, column].reshape(shape)
            for field, errors in (("loss_error", values.loss_error), ("rise_error", values.rise_error))
        }
    return result


def settings_of(evaluator: Evaluator, batch_norm: str, directions: Any) -> dict[str, Any]:
    """The fields of a result that say how it was measured and along what."""
    known = isinstance(directions, Directions)
    return {
        "batch_norm": batch_norm,
        "calibration_samples": evaluator.calibration_samples,
        "direction_kind": directions.kind if known else "given",
        "one_dimensional": directions.one_dimensional if known else "kept",
    }
