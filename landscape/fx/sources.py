"""The source of a traced graph, which torch keeps for tracebacks until the process ends."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx import graph_module

from landscape.fx.threads import TRACING


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """Takes away the sources of all graphs that are made within; the graphs themselves run as before.

    One Objective that is traced leaves some 70 KiB of them, which a long process would gather.
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
