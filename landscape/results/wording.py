"""How numbers are written for people, the same in tables, titles, verdicts and figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SINGULAR = {"families": "family", "series": "series", "data sets": "data set"}
"""Names whose singular is not the plural of the first word without its s."""
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


def listed(shares: Iterable[Any]) -> str:
    """Several shares in a line, each as `percents` says it: "0% 40%"."""
    shares = list(shares)
    words = percents(shares)
    return " ".join(words[share] for share in shares)


def counted(count: int, words: str) -> str:
    """A number of things that are named in the plural: "1 pair", "3 seeds in cells"."""
    if count != 1:
        return f"{count} {words}"
    first, *others = words.split(" ")
    one = SINGULAR.get(words) or " ".join([SINGULAR.get(first, first.removesuffix("s")), *others])
    return f"1 {one}"
