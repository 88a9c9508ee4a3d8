"""An output that its reader may close, as `head` does. The work continues, and later text is dropped."""

from __future__ import annotations

import os
from typing import Any, TextIO


class ClosedOutput:
    """Passes text on to a stream, until nobody reads the stream any more. Later text is dropped.

    Args:
        stream: the stream, such as `sys.stdout`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _leave(self) -> None:
        """Connects the stream with the null device, so that the interpreter's last flush does not fail either."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
