"""Checks of the settings of an Objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

Linearize = bool | Literal["measured", "counted"]
"""Whether products are traced; `Objective` says what the words mean."""


def check_settings(
    chunk_size: int,
    memory_budget: int,
    dtype: torch.dtype | None,
    parameters: Callable[[str], bool] | None,
    linearize: Linearize,
) -> None:
    """Checks the settings of an Objective.

    Raises:
        ValueError: a number is out of range.
        TypeError: an argument has another type.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size: must be at least 1, got {chunk_size}")
    if memory_budget < 0:
        raise ValueError(f"memory_budget: must not be negative, got {memory_budget}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: must be a torch.dtype such as torch.float64, got {dtype!r}")
    if not isinstance(linearize, bool) and linearize not in ("measured", "counted"):
        raise ValueError(f'linearize: must be True, False, "measured" or "counted", got {linearize!r}')
    if parameters is not None and not callable(parameters):
        raise TypeError(
            f"parameters: must be a function from a name to whether it is chosen, got {type(parameters).__name__}; "
            "for names in a set, its __contains__"
        )
