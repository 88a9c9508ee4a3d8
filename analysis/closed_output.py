"""An output whose reader may close it, as `head` does. The work goes on, and later text is dropped."""

from __future__ import annotations

import os
from typing import Any, TextIO


class ClosedOutput:
    """Passes on to a stream; once nobody reads the stream any more, to nowhere.

    Args:
        stream: such as `sys.stdout`.
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
        """Sends on what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _leave(self) -> None:
        """Leads the stream to nowhere, so that the interpreter's last flush does not fail either."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
