"""The numbers of a tensor as bytes, for digests."""

from __future__ import annotations

import torch
from torch import Tensor


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The numbers of a dense tensor of any dtype as bytes; of a complex one its real and imaginary parts in turns."""
    numbers = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    # as bytes, because NumPy has no bfloat16
    return numbers.view(torch.uint8).numpy().data
