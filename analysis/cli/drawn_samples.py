"""The samples on which `ncsam measure CHECKPOINT` measures: drawn at random, because data are often sorted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from analysis.cli.python_names import called
from landscape.data.endless import EndlessData
from landscape.results.storage import write
from landscape.seeds import generator_for
from ncsam import DATASETS, load_dataset
from ncsam.options import nearest

GROUP = "measured_samples"
"""Group of the results' file."""


@dataclass(frozen=True)
class DrawnSamples:
    """Samples that were drawn from data.

    Attributes:
        data: (inputs, targets), or a list of batches of such pairs.
        positions: int64 (n,), ascending, the place of each sample in the order in which the data were read.
        total: number of samples of the data.
        seed: seed of the draw.
    """

    data: Any
    positions: Tensor
    total: int
    seed: int

    def __str__(self) -> str:
        if len(self.positions) == self.total:
            return f"{self.total:,} samples"
        return f"{len(self.positions):,} of {self.total:,} samples, drawn at random with seed {self.seed}"

    def write_to(self, file: h5py.File) -> None:
        """Writes into an open file which samples these are. An earlier draw is replaced."""
        if GROUP in file:
            del file[GROUP]
        group = file.create_group(GROUP)
        words = "positions in the data of the samples that were measured on"
        write(group, "positions", self.positions.numpy(), description=words, dims=("sample",))
        write(group, "total", self.total, description="samples in the data")
        write(group, "seed", self.seed, description="seed of the draw of the samples")


def drawn_samples(text: str, data_dir: Path | None, samples: int, seed: int) -> DrawnSamples:
    """At most `samples` samples of the data that `--data` names, drawn at random without replacement.

    Every sample has the same chance. A seed draws the same places, whether the data come whole or in batches.

    Args:
        text: a packaged data set, whose test samples are used; an .npz file with `inputs` and `targets`; or
            `module:function`, which returns (inputs, targets) or batches of such pairs. The batches are read once.
        data_dir: folder of the files of a packaged data set.
        samples: most samples.
        seed: seed of the draw.

    Raises:
        FileNotFoundError, ValueError: there are no such data.
    """
    data = _read(text, data_dir)
    if not _is_pair(data):
        return _drawn_from_batches(data, samples, seed)
    inputs, targets = data
    keys = _keys(len(targets), generator_for("measured samples", seed))
    positions = _smallest(keys, samples)
    return DrawnSamples((inputs[positions], targets[positions]), positions, len(targets), seed)


def _read(text: str, data_dir: Path | None) -> Any:
    if text in DATASETS:
        test = load_dataset(text, data_dir).test
        return test.inputs, test.targets
    if text.endswith(".npz"):
        return _of_npz(Path(text))
    if ":" not in text:
        hint = nearest(text, DATASETS)
        raise ValueError(
            f"--data: {text!r} is no packaged data set, no .npz file and no module:function"
            + (f"; {hint}" if hint else "")
        )
    return called("--data", text)


def _of_npz(path: Path) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"--data: {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, targets = (torch.from_numpy(arrays[name]) for name in ("inputs", "targets"))
    except Exception as error:  # a broken file may raise anything
        raise ValueError(f"--data: {path} does not hold the arrays inputs and targets: {error}") from error
    _check_pair(inputs, targets)
    return inputs, targets


def _is_pair(data: Any) -> bool:
    if not (isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor)):
        return False
    _check_pair(*data)
    return True


def _check_pair(inputs: Any, targets: Any) -> None:
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise ValueError(
            f"--data: needs tensors (inputs, targets), got {type(inputs).__name__} and {type(targets).__name__}"
        )
    if len(inputs) != len(targets):
        raise ValueError(f"--data: {len(targets)} targets for {len(inputs)} inputs")


@dataclass(frozen=True)
class _Piece:
    """The samples of one batch that may still be among the drawn ones, with the key of each."""

    inputs: Tensor
    targets: Tensor
    keys: Tensor
    positions: Tensor

    def up_to(self, key: float) -> _Piece:
        kept = self.keys <= key
        return _Piece(self.inputs[kept], self.targets[kept], self.keys[kept], self.positions[kept])


def _drawn_from_batches(batches: Iterable[Any], samples: int, seed: int) -> DrawnSamples:
    """The samples with the smallest random keys. So one pass is enough, and few samples are held at a time."""
    generator, total, pieces = generator_for("measured samples", seed), 0, list[_Piece]()
    for inputs, targets in _pairs(batches):
        positions = torch.arange(total, total + len(targets), device="cpu")
        pieces.append(_Piece(inputs, targets, _keys(len(targets), generator), positions))
        total += len(targets)
        if sum(len(piece.keys) for piece in pieces) > 2 * samples:
            pieces = _smallest_of(pieces, samples)
    if not total:
        raise ValueError("--data: holds no samples")
    pieces = _smallest_of(pieces, samples)
    data = [(piece.inputs, piece.targets) for piece in pieces]
    return DrawnSamples(data, torch.cat([piece.positions for piece in pieces]), total, seed)


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    endless = EndlessData(batches)
    for number, batch in enumerate(batches):
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise ValueError(
                f"--data: batch {number} must be (inputs, targets), got {type(batch).__name__}; for other batches use "
                "landscape.Objective in a script"
            )
        _check_pair(*batch)
        endless.check((batch[0], batch[1]), kept=0)
        yield batch[0], batch[1]


def _smallest_of(pieces: list[_Piece], samples: int) -> list[_Piece]:
    keys = torch.cat([piece.keys for piece in pieces])
    if len(keys) <= samples:
        return pieces
    largest = float(keys.kthvalue(samples).values)
    return [kept for kept in (piece.up_to(largest) for piece in pieces) if len(kept.keys)]


def _keys(samples: int, generator: torch.Generator) -> Tensor:
    """A random number for each sample, with so many bits that two are never equal."""
    return torch.rand(samples, dtype=torch.float64, generator=generator, device="cpu")


def _smallest(keys: Tensor, samples: int) -> Tensor:
    return keys.argsort(stable=True)[:samples].sort().values
