"""Folders of image files with tables of labels: Animal-10N, Clothing1M, Food-101N and the like."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncsam.datasets.classes import number_of_classes
from ncsam.datasets.split import Dataset, make_dataset

DEFAULT_SIZE = 64
MAX_BYTES = 64 * 2**30
"""A data set that would need more memory than this is refused as a slip."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats that Pillow decodes itself. For others, such as EPS, Pillow would start another program."""


@dataclass(frozen=True)
class _Table:
    """Rows of a CSV file: image files, their given labels and, where these are known, their true labels."""

    paths: list[Path]
    label: Tensor
    clean: Tensor | None


def images(data_dir: Path | None = None, *, size: int = DEFAULT_SIZE) -> Dataset:
    """A data set from a folder of image files with the tables `train.csv` and `test.csv`.

    Each table starts with a line of column names. `path` is an image within the folder. `label` is a whole number
    from 0. `clean`, where it is known, is the true label. If `train.csv` has `clean`, these labels are the targets and
    those of `label` become `observed`. In `test.csv`, `clean` takes the place of `label`. Images are converted to RGB
    and resized to `size` x `size` pixels (bilinear, with antialiasing).

    Args:
        data_dir: the folder.
        size: side of an image in pixels.

    Raises:
        FileNotFoundError: no folder was given, a table or an image is missing, or Pillow is.
        ValueError: a table has another form, a path leads out of the folder, or a file is not an image.
    """
    if data_dir is None:
        raise FileNotFoundError(
            "dataset 'images': pass data_dir (on the command line --data-dir), a folder with train.csv and test.csv"
        )
    if size < 1:
        raise ValueError(f"image_size: must be at least 1 pixel, got {size}")
    tables = {part: _read_table(data_dir, part) for part in ("train", "test")}
    needed = 3 * size**2 * sum(len(table.paths) for table in tables.values())
    if needed > MAX_BYTES:
        raise ValueError(f"image_size: {size} needs {needed / 2**30:.0f} GiB of memory; choose a smaller one")
    train, test = (
        (_read_images(table.paths, size), table.label if table.clean is None else table.clean)
        for table in tables.values()
    )
    observed = tables["train"].label if tables["train"].clean is not None else None
    labels = {
        f"{column} of {part}.csv": tensor
        for part, table in tables.items()
        for column, tensor in (("label", table.label), ("clean", table.clean))
        if tensor is not None
    }
    classes = number_of_classes(labels, None, str(data_dir), "name a sample of each class")
    return make_dataset("images", train, test, num_classes=classes, observed=observed)


def _read_table(folder: Path, part: str) -> _Table:
    table = folder / f"{part}.csv"
    if not table.is_file():
        raise FileNotFoundError(f"data_dir: {table} is missing")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table}: is not a CSV file ({error})") from error
    if not {"path", "label"} <= set(names) or not rows:
        raise ValueError(f"{table}: must have the columns 'path' and 'label' and at least one row")
    return _Table(
        paths=[_within(folder, row["path"], f"{table}, row {number}") for number, row in enumerate(rows, 1)],
        label=_labels(rows, "label", table),
        clean=_labels(rows, "clean", table) if "clean" in names else None,
    )


def _within(folder: Path, name: str | None, where: str) -> Path:
    path = folder / (name or "")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r} leads out of the folder")
    if not path.is_file():
        raise FileNotFoundError(f"{where}: {path} is missing")
    return path


def _labels(rows: list[dict[str, Any]], column: str, table: Path) -> Tensor:
    for number, row in enumerate(rows, 1):
        # more digits than any set has classes
        if not (row[column] or "").strip().isdecimal() or len(row[column]) > 9:
            raise ValueError(
                f"{table}, row {number}: {column} must be a whole number from 0, got {row[column]!r}"
            )
    return torch.tensor([int(row[column]) for row in rows], dtype=torch.int64, device="cpu")


def _read_images(paths: list[Path], size: int) -> Tensor:
    try:
        from PIL import Image
    except ImportError as error:
        raise FileNotFoundError("dataset 'images' needs Pillow: pip install 'ncsam[data]'") from error
    pixels = np.empty((len(paths), 3, size, size), dtype=np.uint8)
    for place, path in enumerate(paths):
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"{image.mode} has more than 8 bits a channel; convert it to 8")
                # a JPEG is decoded at the smallest scale that is still large enough
                image.draft("RGB", (size, size))
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # a broken image may raise anything
            raise ValueError(f"{path}: is not an image that Pillow reads ({error})") from error
        pixels[place] = np.asarray(resized).transpose(2, 0, 1)
    return torch.from_numpy(pixels)
