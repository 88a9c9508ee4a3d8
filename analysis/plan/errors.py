"""The errors of a study file and of an unknown name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ncsam.options import nearest

OWN_PARTS = "own_parts"
"""Key of the context of validation. If set, unknown names may be those of the user's parts, which are not loaded."""


class StudyError(ValueError):
    """A study that cannot be run as written; the message is one line that names the field."""


def check_known(value: str, known: Collection[str], field: str, error: type[ValueError] = ValueError) -> None:
    """Refuses an unknown value.

    Raises:
        ValueError: the value is unknown; an error of the given type. The message names the field first.
    """
    if value not in known:
        raise error(f"{field}: {_unknown(value, known)}")


def one_of_or_own(value: str, known: Collection[str], context: Any) -> str:
    """Returns the value, if it is known. Unknown values pass in a configuration that is only read and names the user's
    parts.

    Raises:
        ValueError: the value is unknown. Validation puts the field before the message.
    """
    if value in known or (context and context.get(OWN_PARTS)):
        return value
    raise ValueError(
        f"{_unknown(value, known)}; a part of your own needs --with FILE, the file that registers it"
    )


def _unknown(value: str, known: Collection[str]) -> str:
    """The known values in words, and the one that is most like an unknown value."""
    hint = nearest(value, known)
    words = [f"unknown {value!r}", f"known: {', '.join(sorted(known))}", *([hint] if hint else [])]
    return "; ".join(words)
