"""Makes stored and foreign text safe for a terminal: characters that would control it are shown as escapes."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""The text, in which characters that are not printable stand as Python writes them, such as `\x1b` for ESC."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )
