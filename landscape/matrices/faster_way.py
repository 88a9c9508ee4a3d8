"""Which of two ways to compute products is the faster: measured once for each form of a problem, and remembered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from landscape.matrices.rule import Rule
from landscape.model.weights import ParameterLayout

ROUNDS = 5
"""Most rounds of a comparison."""

LONG_ENOUGH = 1.0
"""Seconds after which a comparison has no further round. The longer a product takes, the less its time varies."""


@dataclass(frozen=True)
class Form:
    """What the time of a product depends on. Two problems of one form differ in their values only.

    Attributes:
        rule: how the matrix is multiplied.
        modules: types of the model's modules.
        layout: names and shapes of the variables.
        chunk: form of a chunk.
        chunks: number of chunks.
        memory_budget: bytes that may be kept from product to product.
        vectors: multiplied at once.
        dtype: of the weights.
        device: of the weights.
        threads: of torch.
        compile_mode: of the traced product.
    """

    rule: Rule
    modules: tuple[type[nn.Module], ...]
    layout: ParameterLayout
    chunk: tuple[str, tuple[torch.Size, ...]]
    chunks: int
    memory_budget: int
    vectors: int
    dtype: torch.dtype
    device: torch.device
    threads: int
    compile_mode: str | None


_TRACED_IS_FASTER: dict[Form, bool] = {}


def traced_was_faster(form: Form) -> bool | None:
    """Whether traced products of this form were faster than direct ones; None if that was not yet measured."""
    return _TRACED_IS_FASTER.get(form)


def remember(form: Form, traced_is_faster: bool) -> None:
    """Remembers the faster way for the rest of the process."""
    _TRACED_IS_FASTER[form] = traced_is_faster


def least_seconds(tasks: list[Callable[[], object]], device: torch.device) -> list[float]:
    """The shortest time of each task. The tasks take turns, so that other work on the machine disturbs all alike."""
    least = [math.inf] * len(tasks)
    spent = 0.0
    for _ in range(ROUNDS):
        for place, task in enumerate(tasks):
            seconds = _seconds(task, device)
            least[place] = min(least[place], seconds)
            spent += seconds
        if spent > LONG_ENOUGH:
            break
    return least


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
