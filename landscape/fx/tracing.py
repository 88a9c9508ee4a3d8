"""Graphs of pure operations, traced so that a failure leaves torch as it was."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx


def traced(function: Callable[..., Any], *arguments: Any, **options: Any) -> fx.GraphModule:
    """The operations of one call as a graph, in which nothing is written in place.

    Args:
        function: the function to trace.
        arguments: its arguments, of the shapes that the graph is for.
        options: those of `make_fx`.
    """
    # where a forward-mode derivative of a functionalized operation fails, such as that of quantile(), torch leaves the
    # dispatch keys of autograd switched off in this thread: from then on no result has a gradient, and all are zero
    included, excluded = (
        torch._C._dispatch_tls_local_include_set(),
        torch._C._dispatch_tls_local_exclude_set(),
    )
    outer = sys.exc_info()[1]
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        try:
            return make_fx(functionalize(function), **options)(*arguments)
        except Exception as error:
            # frames of the error hold guards that switch the keys off as late as the error is freed
            _free_frames(error, outer)
            raise


def _free_frames(error: BaseException | None, outer: BaseException | None) -> None:
    """Frees what the frames of an error, and of those that led to it, hold; not of one that the caller handles."""
    seen: set[int] = set()
    while error is not None and error is not outer and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
