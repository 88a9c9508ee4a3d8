"""How numbers are said in tables, titles and verdicts."""

from __future__ import annotations

from typing import Any


def percent(share: Any) -> str:
    """A share in as many digits as it has, up to four: 40%, 12.5%, 40.21%.

    Figures have the same function of their own: whoever judges or trains loads no matplotlib.
    """
    return f"{100 * share:.4g}%"
