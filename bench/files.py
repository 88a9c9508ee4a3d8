"""The bytes of a run file by group, and its size if it were written in other ways.

python bench/files.py results/quick/runs/mnist-5k/symmetric-0.4/sam/seed0.h5
"""

from __future__ import annotations

import collections
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
from timing import parser_of, table

from landscape.results.storage import INDEX_OF_CHUNKS

GZIP = {"compression": "gzip", "shuffle": True}
BINDINGS = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME")
"""Attributes that belong to the dimension scales of one file. All copies leave them out."""


def _is_weight(data: h5py.Dataset) -> bool:
    return bool(data.name.startswith("/weights/"))


WAYS: dict[str, Callable[[h5py.Dataset], bool]] = {
    "nothing compressed": lambda _: False,
    "every array but the weights compressed": lambda data: data.size > 1 and not _is_weight(data),
    "as written: those of more than 2 KiB": lambda data: data.compression is not None,
    "those and the weights": lambda data: data.nbytes > INDEX_OF_CHUNKS,
}


def rewritten(path: Path, is_compressed: Callable[[h5py.Dataset], bool], version: str) -> int:
    """The size of a copy in bytes."""
    memory = io.BytesIO()
    with h5py.File(path) as old, h5py.File(memory, "w", libver=version) as new:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                options = GZIP if is_compressed(item) else {}
                data = None if item.id.get_storage_size() == 0 else item[()]
                made = new.create_dataset(name, item.shape, item.dtype, data=data, **options)
            else:
                made = new.require_group(name)
            for key, value in item.attrs.items():
                if key not in BINDINGS:
                    made.attrs[key] = value

        old.visititems(copy)
    return len(memory.getvalue())


def main() -> None:
    """Prints the two tables."""
    parser = parser_of(__doc__)
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    count, plain, stored = collections.Counter(), collections.Counter(), collections.Counter()
    with h5py.File(path) as file:

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                group = name.split("/")[0]
                count[group] += 1
                plain[group] += item.nbytes
                stored[group] += item.id.get_storage_size()

        file.visititems(add)
    rows = [[group, str(count[group]), str(plain[group]), str(stored[group])] for group in count]
    rows.append(["all else: names, attributes, scales", "", "", str(path.stat().st_size - stored.total())])
    table(f"{path.name}: {path.stat().st_size} bytes", ["group", "data sets", "bytes", "stored"], rows)
    sizes = [
        [way, *(str(rewritten(path, test, v)) for v in ("earliest", "latest"))] for way, test in WAYS.items()
    ]
    table("Bytes of a copy without dimension scales", ["way", "HDF5 1.8 format", "latest format"], sizes)


if __name__ == "__main__":
    main()
