"""The error of a study file, and the words that it quotes values and suggests names with."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

MAX_QUOTED = 1000
"""Characters of a value that an error quotes whole."""


class StudyError(ValueError):
    """A study that cannot be run as written; the message is one line that names the field."""


def shortened(value: Any) -> str:
    """The value as an error can quote it."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED // 2]} ..."


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


def nearest(word: str, known: Collection[str]) -> str:
    """ "did you mean ...?" of the known word most like this one; empty if none is like it."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""
