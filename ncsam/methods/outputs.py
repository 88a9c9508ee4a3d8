"""A check for methods that differentiate the model's outputs themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def one_tensor(outputs: Any, method: str) -> Tensor:
    """The outputs, (batch, ...), if they are one tensor.

    Raises:
        ValueError: they are no tensor, or a loss that a closure returned.
    """
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model: must return one tensor for {method}, got {type(outputs).__name__}; wrap it in a module that "
            "returns the outputs alone"
        )
    if outputs.ndim == 0:
        raise ValueError(
            f"closure: returns a loss, and {method} needs the model's outputs; call backward(inputs, targets)"
        )
    return outputs
