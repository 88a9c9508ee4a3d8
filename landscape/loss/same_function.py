"""Checks that a model computes the same function at the end of a measure as at its beginning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.loss.batches import copied_to
from landscape.loss.objective import Objective
from landscape.loss.random_state import borrowed_generators

SAMPLES = 4
"""Samples that are looked at. A batch that cannot be cut is looked at as a whole."""

ALLOWED = 1e-4
"""Relative difference of outputs. On a GPU sums in any order give less; a switch of the model gives more."""


@contextmanager
def same_function(objectives: Sequence[Objective]) -> Iterator[None]:
    """A measure, before and after which the outputs for some samples are compared, at the objectives' own weights.

    The check finds models that count their passes and change after some, by a schedule, a warm-up or a moving average.
    It costs two forward passes of a few samples. Models under FSDP2 are not looked at.

    Raises:
        ValueError: the outputs differ.
    """
    with ExitStack() as checks:
        for objective in objectives:
            if not objective.ranks.share_vectors:
                checks.enter_context(_one_function(objective))
        yield


@contextmanager
def _one_function(objective: Objective) -> Iterator[None]:
    before = _measures_of_outputs(objective)
    yield
    after = _measures_of_outputs(objective)
    if len(before) != len(after) or not all(map(_agree, before, after)):
        raise ValueError(
            "model: its outputs for the same samples at the same weights differ between the beginning and the end of "
            "this measure, so that the result would be of no one loss; the model counts its passes, or moves a value "
            "with each: turn such schedules, warm-ups and moving averages off in evaluation mode (if self.training:)"
        )


def _measures_of_outputs(objective: Objective) -> list[tuple[float, float, float]]:
    """For each tensor of the outputs its norm, its sum, and the allowed difference; no output is kept."""
    inputs = copied_to(objective.chunks.first(SAMPLES)[0], objective.device)
    with borrowed_generators(objective.device), objective.without_gradients():
        outputs = objective.outputs(objective.theta, inputs)
    return [_measured(leaf.detach()) for leaf in tree_leaves(outputs) if _is_plain(leaf)]


def _is_plain(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.is_floating_point()


def _measured(leaf: Tensor) -> tuple[float, float, float]:
    norm = torch.linalg.vector_norm(leaf, dtype=torch.float64).item()
    allowed = max(ALLOWED, 20 * torch.finfo(leaf.dtype).eps)
    return norm, leaf.sum(dtype=torch.float64).item(), allowed * norm * math.sqrt(max(leaf.numel(), 1))


def _agree(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether norms and sums agree. What is no number agrees with what is none."""
    allowed = max(one[2], other[2])
    return all(
        abs(a - b) <= allowed or not (math.isfinite(a) or math.isfinite(b))
        for a, b in zip(one[:2], other[:2], strict=True)
    )
