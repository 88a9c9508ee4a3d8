"""How much memory there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux says how much memory a container may take."""


def memory_there_is() -> float:
    """Bytes of the machine's memory, or of what its container may take; infinite where they are not known."""
    limits = []
    for path in map(Path, LIMITS):
        # no such file, or "max"
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=float("inf"))
