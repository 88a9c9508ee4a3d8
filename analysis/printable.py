"""Stored and foreign text on a terminal: what would steer the terminal is shown as an escape."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""The text with each character that is not printable, such as ESC, as Python would write it: `\x1b`."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )
