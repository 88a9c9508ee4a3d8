"""Checks of arguments that many functions take."""

from __future__ import annotations

from torch import Tensor


def check_rtol(rtol: float | None) -> None:
    """Raises ValueError for a relative tolerance that is not positive; None asks for none."""
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")


def check_is_tensor(name: str, values: object, shape: str) -> None:
    """Raises TypeError for what is no tensor, such as a NumPy array or a list, with the shape that it should have."""
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name}: must be a tensor {shape}, got {type(values).__name__}; torch.as_tensor makes one"
        )
