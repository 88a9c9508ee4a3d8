"""How numbers are written for people, the same in tables, titles, verdicts and figures."""

from __future__ import annotations

from typing import Any


def percent(share: Any) -> str:
    """A share in as many digits as it has, up to four: 40%, 12.5%, 40.21%."""
    return f"{100 * share:.4g}%"
