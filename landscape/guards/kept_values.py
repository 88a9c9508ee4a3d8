"""Values as they are at one time: containers with all that they hold, and tensors and arrays with their numbers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.data.batches import dense_parts

MOST_ENTRIES = 10_000
"""Entries of a container up to which these are looked at; of a longer one the length is."""

MOST_NUMBERS = 1 << 20
"""Numbers of a tensor or array up to which these are looked at; what is larger is data."""


@dataclass(frozen=True)
class _Container:
    """A dict, list, set or deque (hooks, caches), and what it held: containers in the same form, others as they are."""

    original: Any
    held: Any


@dataclass(frozen=True)
class _Numbers:
    """A tensor or an array, and a copy of its numbers."""

    original: Any
    copy: Any


def kept_of(value: Any, seen: set[int]) -> Any:
    """A value as it is now. One that was seen already, such as a list that holds itself, stands as it is."""
    if id(value) in seen:
        return value
    if isinstance(value, Tensor):
        is_plain = (
            type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided and not value.is_meta
        )
        return (
            _Numbers(value, value.detach().clone()) if is_plain and value.numel() <= MOST_NUMBERS else value
        )
    if isinstance(value, np.ndarray):
        is_small = value.size <= MOST_NUMBERS and value.flags.writeable and not value.dtype.hasobject
        return _Numbers(value, value.copy()) if is_small else value
    if not isinstance(value, dict | list | set | deque):
        return value
    seen.add(id(value))
    if len(value) > MOST_ENTRIES:
        return _Container(value, len(value))
    if isinstance(value, dict):
        return _Container(value, {key: kept_of(each, seen) for key, each in value.items()})
    if isinstance(value, set):
        return _Container(value, set(value))
    return _Container(value, [kept_of(each, seen) for each in value])


def is_as_kept(value: Any, kept: Any) -> bool:
    """Whether a value is the object that was kept, and still holds the same objects and numbers."""
    if isinstance(kept, _Numbers):
        return value is kept.original and _has_numbers(value, kept.copy)
    if not isinstance(kept, _Container):
        return value is kept
    if value is not kept.original:
        return False
    held = kept.held
    if isinstance(held, int):
        return len(value) == held
    if isinstance(held, dict):
        return value.keys() == held.keys() and all(
            # a class of dicts may make a new object at each look
            is_as_kept(dict.__getitem__(value, key), each)
            for key, each in held.items()
        )
    if isinstance(held, list):
        return len(value) == len(held) and all(map(is_as_kept, value, held))
    return bool(value == held)


def put_back(kept: Any) -> Any:
    """The object that was kept, which holds the same objects and numbers again, as far as they are known."""
    if isinstance(kept, _Numbers):
        if isinstance(kept.original, Tensor):
            with torch.inference_mode(kept.original.is_inference()), torch.no_grad():
                kept.original.copy_(kept.copy)
        else:
            np.copyto(kept.original, kept.copy)
        return kept.original
    if not isinstance(kept, _Container):
        return kept
    original, held = kept.original, kept.held
    if isinstance(held, int) or is_as_kept(original, kept):
        return original
    if isinstance(held, dict):
        entries: Any = {key: put_back(each) for key, each in held.items()}
    elif isinstance(held, list):
        entries = [put_back(each) for each in held]
    else:
        entries = held
    original.clear()
    if isinstance(original, dict | set):
        original.update(entries)
    else:
        original.extend(entries)
    return original


def has_same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one form hold the same values; NaN equals NaN."""
    parts = [dense_parts(each) for each in (one, other)]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*parts, strict=True))


def _has_numbers(value: Any, copy: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.shape == copy.shape and value.tobytes() == copy.tobytes()
    same_form = (value.shape, value.dtype, value.device) == (copy.shape, copy.dtype, copy.device)
    return same_form and has_same_numbers(value, copy)
