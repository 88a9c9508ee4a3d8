"""The errors of a study file and of an unknown name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ncsam.options import nearest

OWN_PARTS = "own_parts"
"""Key of the context of validation. If set, unknown names may be those of the user's parts, which are not loaded."""


class StudyError(ValueError):
    """A study that cannot be run as written; the message is one line that names the field."""


def one_of(value: str, known: Collection[str]) -> str:
    """Returns the value, if it is known.

    Raises:
        ValueError: the value is unknown. The message lists the known values, and names the one that is most like it.
    """
    if value not in known:
        hint = nearest(value, known)
        words = [f"unknown {value!r}", f"known: {', '.join(sorted(known))}", *([hint] if hint else [])]
        raise ValueError("; ".join(words))
    return value


def one_of_or_own(value: str, known: Collection[str], context: Any) -> str:
    """As `one_of`, but unknown values pass in a configuration that is only read and names the user's parts."""
    if context and context.get(OWN_PARTS):
        return value
    try:
        return one_of(value, known)
    except ValueError as error:
        raise ValueError(
            f"{error}; a part of your own needs --with FILE, the file that registers it"
        ) from None
