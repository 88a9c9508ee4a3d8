"""Whether outputs are scores of classes, so that there is an accuracy."""

from __future__ import annotations

from torch import Tensor

from landscape.data.complex_numbers import is_whole


def are_class_scores(outputs: object, targets: object) -> bool:
    """Whether outputs are (n, at least 2 classes) and targets (n,) classes. One column is a binary model's logit."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    are_scores = outputs.ndim == 2 and outputs.shape[1] > 1 and not outputs.is_complex()
    return are_scores and targets.ndim == 1 and is_whole(targets) and len(outputs) == len(targets)
