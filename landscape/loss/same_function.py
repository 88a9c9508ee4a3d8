"""Checks that a model computes the same function at the end of a measure as at its beginning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from landscape.data.batches import copied_to
from landscape.data.complex_numbers import as_real, is_whole
from landscape.data.random_state import borrowed_generators
from landscape.guards.repeated_runs import allowed_between_runs
from landscape.loss.objective import Objective

SAMPLES = 4
"""Samples that are looked at. A batch that cannot be cut is looked at as a whole."""

ENTRIES = 10_000
"""Entries of each tensor of outputs that are kept for the comparison, about so many and evenly spaced."""

PRECISE = 1e-7
"""Relative difference of outputs in float64. Sums in any order give less; a switch of the model gives more."""

_looked_at: ContextVar[frozenset[int]] = ContextVar(
    "objectives whose model is looked at", default=frozenset()
)
"""Identities of the objectives of the measures that are at work. A measure that calls another looks once."""


@contextmanager
def same_function(objectives: Sequence[Objective]) -> Iterator[None]:
    """A measure, before and after which the outputs for some samples are compared, at the objectives' own weights.

    The check finds models that count their passes and change after some, by a schedule, a warm-up or a moving average.
    It costs two forward passes of a few samples. If one rank finds a change, all ranks raise. Models under FSDP2 are
    not looked at.

    Raises:
        ValueError: the outputs differ.
        RuntimeError: they differ on another rank.
    """
    known = _looked_at.get()
    new = [one for one in objectives if id(one) not in known and not one.ranks.share_vectors]
    token = _looked_at.set(known | {id(one) for one in new})
    try:
        with ExitStack() as checks:
            for objective in new:
                checks.enter_context(_one_function(objective))
            yield
    finally:
        _looked_at.reset(token)


@contextmanager
def _one_function(objective: Objective) -> Iterator[None]:
    with objective.ranks.together():
        before = _look(objective)
    yield
    with objective.ranks.together():
        after = _look(objective)
        if len(before) != len(after) or not all(map(_agree, before, after)):
            raise ValueError(
                "model: its outputs for the same samples at the same weights differ between the beginning and the end "
                "of this measure, so that the result would be of no one loss; the model counts its passes, or moves a "
                "value with each: turn such schedules, warm-ups and moving averages off in evaluation mode "
                "(if self.training:)"
            )


@dataclass(frozen=True)
class _Outputs:
    """What is kept of a tensor of outputs.

    Attributes:
        norm: of all entries.
        entries: some of them, in float64 on the CPU.
        allowed: relative difference.
    """

    norm: float
    entries: Tensor
    allowed: float


def _look(objective: Objective) -> list[_Outputs]:
    inputs = copied_to(objective.chunks.first(SAMPLES)[0], objective.device)
    with borrowed_generators(objective.device), objective.without_gradients():
        outputs = objective.outputs(objective.theta, inputs)
    return [_kept(leaf.detach()) for leaf in tree_leaves(outputs) if _is_plain(leaf)]


def _is_plain(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout == torch.strided and not is_whole(leaf)


def _kept(leaf: Tensor) -> _Outputs:
    leaf = as_real(leaf)
    norm = torch.linalg.vector_norm(leaf, dtype=torch.float64).item()
    entries = leaf.reshape(-1)[:: max(1, leaf.numel() // ENTRIES)].to("cpu", torch.float64, copy=True)
    allowed = PRECISE if leaf.dtype == torch.float64 else allowed_between_runs(leaf)
    return _Outputs(norm, entries, allowed)


def _agree(one: _Outputs, other: _Outputs) -> bool:
    """Whether norms and entries agree. What is no number agrees with what is none."""
    if one.entries.shape != other.entries.shape:
        return False
    if math.isfinite(one.norm + other.norm) and abs(one.norm - other.norm) > one.allowed * one.norm:
        return False
    finite = one.entries.isfinite()
    if not torch.equal(finite, other.entries.isfinite()):
        return False
    here, there = one.entries[finite], other.entries[finite]
    # entries near 0 are sums of larger numbers
    return not len(here) or bool((here - there).abs().max() <= one.allowed * here.abs().max())
