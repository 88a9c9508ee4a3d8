"""A check that several Objectives, such as those of observed and true labels, are of one model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from landscape.data.batches import copied_to, tensors_in
from landscape.loss.objective import Objective


def check_one_model(objectives: Mapping[str, Objective]) -> None:
    """Checks that the objectives are of one model at the same weights, run in one way.

    Raises:
        TypeError: the objectives are no mapping.
        ValueError: there is no objective, or models, weights, buffers, variables or the outputs for the first inputs
            differ.
    """
    if not isinstance(objectives, Mapping):
        raise TypeError(
            f"objectives: must be objectives by name, such as {{'observed': objective}}, "
            f"got {type(objectives).__name__}"
        )
    if not objectives:
        raise ValueError("objectives: holds none")
    (first_name, first), *others = objectives.items()
    with first.ranks.together():
        for name, other in others:
            same = first.names == other.names and first.process_group is other.process_group
            if not same or not (other.model is first.model or _are_alike(first, other)):
                raise ValueError(
                    f"objectives: {name!r} is of another model or other weights than {first_name!r}, or runs the "
                    "model otherwise (forward=)"
                )


def _are_alike(first: Objective, other: Objective) -> bool:
    """Whether the models hold the same tensors and compute the same outputs. Models with equal weights may differ."""
    first_tensors, other_tensors = first.tensors(), other.tensors()
    if first_tensors.keys() != other_tensors.keys():
        return False
    pairs = [(tensor, other_tensors[name]) for name, tensor in first_tensors.items()]
    if not all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs):
        return False
    if not (first.has_outputs and other.has_outputs):
        # losses that run the model by themselves may differ; their layers may not
        layers = (
            [(name, type(part)) for name, part in each.model.named_modules()] for each in (first, other)
        )
        return next(layers) == next(layers)
    some, _ = first.chunks.first(4)
    outputs = []
    for each in (first, other):
        with each.without_gradients():
            # the model gets a copy, because it may change its inputs
            outputs.append(tensors_in(each.outputs(each.theta, copied_to(some, each.device))))
    return len(outputs[0]) == len(outputs[1]) and all(
        one.shape == two.shape and _agree(one, two, first.dtype) for one, two in zip(*outputs, strict=True)
    )


def _agree(one: Tensor, two: Tensor, dtype: torch.dtype) -> bool:
    rounding = 100 * torch.finfo(dtype).eps * one[torch.isfinite(one)].abs().sum().item()
    return torch.allclose(one, two, rtol=0, atol=rounding, equal_nan=True)
