"""Containers whose contents are kept aside and put back, in place."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any


def refill(container: Any, entries: Any) -> None:
    """Gives a dict, set, list or deque the entries that it had."""
    if is_as_it_was(container, entries):
        return
    container.clear()
    if isinstance(container, dict | set):
        container.update(entries)
    else:
        container.extend(entries)


def is_as_it_was(container: Any, entries: Any, is_same: Callable[[Any, Any], bool] = is_) -> bool:
    """Whether a container has the entries that it had.

    Args:
        container: a dict, set, list or deque.
        entries: a dict where it is a dict, a list otherwise.
        is_same: whether two entries are the same.
    """
    if len(container) != len(entries):
        return False
    if isinstance(container, set):
        return all(entry in container for entry in entries)
    if isinstance(container, dict):
        return all(key in container and is_same(container[key], value) for key, value in entries.items())
    return all(is_same(now, then) for now, then in zip(container, entries, strict=True))
