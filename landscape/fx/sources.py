"""The source code of traced graphs, which torch keeps for tracebacks until the process ends."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx import graph_module

from landscape.fx.threads import TRACING


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """Deletes the sources of all graphs that are made inside the block. The graphs run as before.

    Each traced Objective leaves some 70 KiB of sources, which would add up in a long process.
    """
    kept: dict[str, str] = graph_module._loader.eval_cache
    with TRACING:
        before = set(kept)
        try:
            yield
        finally:
            for name in kept.keys() - before:
                del kept[name]
                linecache.cache.pop(name, None)
