"""Decodes CIFAR-10 as JPEG of quality 75 into a file for the `npz` loader.

    python bench/cifar10_jpeg.py ../shared/data/cifar10-jpeg.npz --out data/cifar10-jpeg.npz

    dataset = load_dataset("npz", "data/cifar10-jpeg.npz")
    worst = read_human_labels("../shared/data/cifar10n-labels.npz", "worst")[dataset.train_indices]

The source has the arrays `header`, `data`, `offsets`, `y_train`, `y_test`. Image i is the JPEG
`header + data[offsets[i]:offsets[i + 1]]`; the training images come first. JPEG is lossy: results on these images are
results on "CIFAR-10 (JPEG q75)", not on CIFAR-10.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image


def decode(source: Path) -> dict[str, np.ndarray]:
    """The arrays `x_train`, `y_train`, `x_test`, `y_test`: images uint8 (n, 32, 32, 3), labels int64 (n,)."""
    with np.load(source, allow_pickle=False) as file:
        header, data, offsets = file["header"].tobytes(), file["data"].tobytes(), file["offsets"]
        y_train, y_test = (file[name].astype(np.int64) for name in ("y_train", "y_test"))
    images = np.empty((len(offsets) - 1, 32, 32, 3), dtype=np.uint8)
    for i in range(len(images)):
        with Image.open(io.BytesIO(header + data[offsets[i] : offsets[i + 1]])) as image:
            images[i] = np.asarray(image)
    return {
        "x_train": images[: len(y_train)],
        "y_train": y_train,
        "x_test": images[len(y_train) :],
        "y_test": y_test,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("data/cifar10-jpeg.npz"))
    arguments = parser.parse_args()
    arrays = decode(arguments.source)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, **arrays)
    print(f"{arguments.out}: {len(arrays['x_train'])} + {len(arrays['x_test'])} images")


if __name__ == "__main__":
    main()
