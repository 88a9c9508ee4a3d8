"""Data sets that were read and are kept, so that the next one who asks need not wait for the files."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from threading import Lock

from torch import Tensor

from ncsam.datasets.split import Dataset, Split

MOST_KEPT = 2
"""Data sets that are kept."""
MOST_BYTES = 2 * 1024**3
"""A data set of more bytes is not kept, because whoever asks gets a copy beside the one that is kept."""
MOST_FILES = 100_000
"""A folder of more files is read anew, because to look at each of them takes about as long."""

_kept: OrderedDict[Hashable, Dataset] = OrderedDict()
_lock = Lock()


def kept_or_read(key: Hashable, source: Path | None, read: Callable[[], Dataset]) -> tuple[Dataset, bool]:
    """The data set as it was read before if no file changed since, else as it is read now.

    Args:
        key: name and options of the data set.
        source: the file, or the folder of the files; None: there are none that could change.
        read: reads the data set.

    Returns:
        The data set, and whether it is kept. The caller must not hand out the tensors of one that is kept.
    """
    files = _state_of(source)
    if files is None:
        return read(), False
    place = (key, files)
    with _lock:
        if place in _kept:
            _kept.move_to_end(place)
            return _kept[place], True
    dataset = read()
    # a file that changed meanwhile may have been read before or after
    if sum(tensor.nbytes for tensor in _tensors(dataset)) > MOST_BYTES or _state_of(source) != files:
        return dataset, False
    with _lock:
        _kept[place] = dataset
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return dataset, True


def part_of(split: Split, positions: Tensor | None) -> Split:
    """The samples at these positions, or all, in memory of their own."""
    mean, std = (None if tensor is None else tensor.clone() for tensor in (split.mean, split.std))
    pixels, targets = (
        tensor.clone() if positions is None else tensor[positions] for tensor in (split.pixels, split.targets)
    )
    return Split(pixels, targets, mean, std)


def _tensors(dataset: Dataset) -> Iterator[Tensor]:
    for split in (dataset.train, dataset.test):
        yield from (split.pixels, split.targets)


def _state_of(source: Path | None) -> tuple[tuple[str, int, int], ...] | None:
    """Path, size and time of the last change of each file; None for too many."""
    if source is None:
        return ()
    paths = [source] if source.is_file() else []
    if source.is_dir():
        for folder, _, names in os.walk(source, followlinks=True):
            paths += [Path(folder, name) for name in names]
            if len(paths) > MOST_FILES:
                return None
    found = []
    for path in sorted(paths):
        try:
            state = path.stat()
        except OSError:  # a link to nothing is no file of the data set
            continue
        found.append((str(path), state.st_size, state.st_mtime_ns))
    return tuple(found)
