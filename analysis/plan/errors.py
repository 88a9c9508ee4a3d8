"""The errors of a study file and of an unknown name."""

from __future__ import annotations

from collections.abc import Collection

from ncsam.options import nearest


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
