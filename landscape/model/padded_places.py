"""Outputs of `nn.TransformerEncoder` at padded places, which torch leaves out in passes without a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def compute_padded_places(model: nn.Module) -> None:
    """Makes passes without a gradient compute padded places too, in place, as passes with a gradient always do.

    With `enable_nested_tensor`, the default, they are 0 where no gradient is recorded. Losses and derivatives would be
    of two functions.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


@contextmanager
def padded_places_as_in(original: nn.Module, copy: nn.Module) -> Iterator[bool]:
    """Inside the block a copy leaves padded places out where the original does. Yields whether it leaves any out."""
    pairs = zip(original.modules(), copy.modules(), strict=False)
    leaving_out = [
        (own, other.use_nested_tensor)
        for other, own in pairs
        if isinstance(other, nn.TransformerEncoder) and isinstance(own, nn.TransformerEncoder)
    ]
    for module, leaves_out in leaving_out:
        module.use_nested_tensor = leaves_out
    try:
        yield any(leaves_out for _, leaves_out in leaving_out)
    finally:
        for module, _ in leaving_out:
            module.use_nested_tensor = False
