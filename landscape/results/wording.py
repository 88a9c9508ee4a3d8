"""How numbers are written for people, the same in tables, titles, verdicts and figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_DIGITS = 17
"""A float64 is given by so many digits."""


def percent(share: Any) -> str:
    """A share in as many digits as it has, up to four: 40%, 12.5%, 40.21%."""
    return f"{100 * share:.4g}%"


def percents(shares: Iterable[Any]) -> dict[Any, str]:
    """Each share -> its percent, in as many digits as it takes to tell the shares apart, four at least."""
    values = sorted(set(shares))
    found: dict[Any, str] = {}
    for digits in range(4, MOST_DIGITS + 1):
        found = {value: f"{100 * value:.{digits}g}%" for value in values}
        if len(set(found.values())) == len(values):
            break
    return found
