"""The memory that an Objective may keep between products."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Memory:
    """Bytes that may be kept, and bytes that are kept now."""

    budget: int
    used: int = 0
