"""Makes stored and foreign text safe for a terminal: characters that would control it are shown as escapes."""

from __future__ import annotations

from rich.console import Console


def printable(text: object) -> str:
    r"""The text, in which characters that are not printable stand as Python writes them, such as `\x1b` for ESC."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )


def say(console: Console, text: object, *, style: str | None = None) -> None:
    """Prints a line as it is: its brackets are no markup, its numbers get no color, and a path in it is not wrapped."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
