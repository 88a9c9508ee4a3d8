"""The errors of a study file and of an unknown name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ncsam.options import nearest

OWN_PARTS = "own_parts"
"""Key of the context in which a study or a configuration is validated: names may be those of parts of one's own, which
are not loaded."""


class StudyError(ValueError):
    """A study that cannot be run as written; the message is one line that names the field."""


def one_of(value: str, known: Collection[str]) -> str:
    """The value, if it is known.

    Raises:
        ValueError: the value is unknown; the message lists the known ones and the one most like the value.
    """
    if value not in known:
        hint = nearest(value, known)
        words = [f"unknown {value!r}", f"known: {', '.join(sorted(known))}", *([hint] if hint else [])]
        raise ValueError("; ".join(words))
    return value


def one_of_or_own(value: str, known: Collection[str], context: Any) -> str:
    """`one_of`, but for a configuration that is only read and has parts of one's own that are not loaded."""
    return value if context and context.get(OWN_PARTS) else one_of(value, known)
