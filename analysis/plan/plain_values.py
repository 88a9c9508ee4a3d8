"""A check of the values that any setting can have."""

from __future__ import annotations

import math
from typing import Any

import torch

SMALLEST, LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""Networks are trained and measured in float32. Larger numbers become infinite, and smaller ones zero."""
MAX_DEPTH = 6
MAX_WORD = 500


def check_plain(settings: dict[str, Any]) -> None:
    """Raises ValueError unless all values are possible values of a setting.

    A setting can be a whole number of 64 bits, a number that float32 holds, true or false, a short printable word, or a
    list or table of these that nests a few levels deep. Later code can then compare, print and store every value.
    """
    left: list[tuple[tuple[str, ...], Any]] = [((), settings)]
    while left:
        place, value = left.pop()
        field = ".".join(place)
        if len(place) > MAX_DEPTH:
            raise ValueError(f"{field}: nests too deeply; no setting has more than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key in value:
                if not key or not _is_plain(key):
                    raise ValueError(
                        f"{field or 'study'}: has the key {key[:40]!r}; give the name of a setting"
                    )
            left += [((*place, key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            left += [((*place, str(index)), part) for index, part in reversed([*enumerate(value)])]
        elif isinstance(value, str):
            if not _is_plain(value):
                raise ValueError(
                    f"{field}: must be at most {MAX_WORD} printable characters, got {len(value)}: {value[:40]!r}"
                )
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"{field}: must be a number that is finite, got {value}")
            if value != 0 and not SMALLEST <= abs(value) <= LARGEST:
                raise ValueError(
                    f"{field}: must be a number of float32, {SMALLEST:.2g} to {LARGEST:.2g} in size, got {value:g}"
                )
        elif isinstance(value, int):
            if value.bit_length() > 63:
                raise ValueError(
                    f"{field}: must be a number of at most 63 bits, got {value.bit_length()} bits"
                )
        else:
            raise ValueError(f"{field}: must not be a date or a time, got {value}")


def _is_plain(text: str) -> bool:
    return len(text) <= MAX_WORD and text.isprintable()
