"""Files of figures that exist whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landscape.results.files import flush


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside the target. If nothing fails, the file written there takes the target's place.

    The temporary path has the target's ending, because writers of pictures choose the format by it.
    """
    beside = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield beside
        flush(beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
