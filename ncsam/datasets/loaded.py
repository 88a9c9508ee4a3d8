"""Samples that a map-style dataset reads one by one, such as image files that are decoded at each access."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from ncsam.datasets.finite import check_finite
from ncsam.datasets.workers import read_by_workers
from ncsam.plain_numbers import with_plain_numbers
from ncsam.random_state import borrowed_generators

KEPT_SETTINGS = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)
"""The settings that are taken from a DataLoader, besides its dataset and its collate_fn."""


class Loaded:
    """Samples of a map-style dataset, read batch by batch, by worker processes if wanted.

    The random numbers that an item draws from the global generators of torch, NumPy and Python follow from the epoch's
    seed and the sample's position alone. They are the same with any number of workers, and in a resumed training.

    Args:
        data: a dataset with `__len__` and `__getitem__`, whose items are pairs (input, target) or inputs alone; or a
            DataLoader of one. The DataLoader's workers and collate_fn are used; its order is not.
        evaluated: the dataset for evaluations in place of `data`: the same samples without random augmentation.
        workers: number of processes that read; the DataLoader's number if not given.
        batch_size: samples that are read at once for an evaluation; the DataLoader's number if not given.

    Raises:
        TypeError: a dataset without numbered samples.
        ValueError: a DataLoader that chooses the samples or their order, or datasets of unequal lengths.
    """

    @with_plain_numbers
    def __init__(
        self,
        data: Any,
        *,
        evaluated: Any = None,
        workers: int | None = None,
        batch_size: int = 256,
    ) -> None:
        self._settings: dict[str, Any] = {}
        self._collate: Callable[[list[Any]], Any] = _joined
        check_samples("data", data)
        if isinstance(data, DataLoader):
            self._settings = {name: getattr(data, name) for name in KEPT_SETTINGS}
            if data.collate_fn is not default_collate:
                self._collate = data.collate_fn
            batch_size = data.batch_size or batch_size
            data = data.dataset
        if workers is not None:
            if workers == 0:
                # torch refuses settings of worker processes if there are no workers
                self._settings = {}
            self._settings["num_workers"] = workers
        if evaluated is not None:
            _check_that_it_is_numbered("evaluated", evaluated)
        self._training, self._samples = data, len(data)
        self._evaluated = data if evaluated is None else evaluated
        self.evaluation_batch = batch_size
        if len(self._evaluated) != len(self):
            raise ValueError(f"evaluated: {len(self._evaluated)} samples, but {len(self)} to train on")

    def __len__(self) -> int:
        return self._samples

    def batches(
        self, pieces: Sequence[Tensor], augment: Callable[[Tensor], Tensor] | None = None, *, seed: int | None
    ) -> Iterator[Any]:
        """The inputs of the samples at each of the `pieces`.

        Args:
            pieces: int64 (batch,) each.
            augment: must be None, because such a dataset augments by itself.
            seed: of the items' random numbers; None: for evaluation.

        Raises:
            ValueError: a batch that is one tensor holds a value that is not finite.
        """
        assert augment is None
        for batch, piece in zip(self._read(pieces, seed), pieces, strict=True):
            inputs = batch[0] if _is_pair(batch) else batch
            # of several tensors one may be a mask, which may be infinite
            if isinstance(inputs, Tensor) and len(inputs) == len(piece):
                check_finite("data", inputs, piece)
            yield inputs

    @cached_property
    def targets(self) -> Tensor:
        """int64 (n,), the targets of the items; all items are read at the first access.

        Raises:
            ValueError: items that are no pairs.
        """
        targets = []
        for batch in self._read(torch.arange(len(self), device="cpu").split(self.evaluation_batch), None):
            if not _is_pair(batch):
                raise ValueError(
                    "data: its items must be pairs (input, target), because their targets are read"
                )
            targets.append(
                batch[1] if isinstance(batch[1], Tensor) else torch.as_tensor(batch[1], device="cpu")
            )
        return torch.cat(targets)

    def some(self, count: int) -> Any:
        """The inputs of the first samples, as in an evaluation."""
        (inputs,) = self.batches([torch.arange(min(count, len(self)), device="cpu")], seed=None)
        return inputs

    def _read(self, pieces: Sequence[Tensor], seed: int | None) -> Iterator[Any]:
        dataset = self._evaluated if seed is None else self._training
        if len(dataset) != len(self):
            raise ValueError(
                f"data: had {len(self)} samples and has {len(dataset)} now; keep the samples, which the labels belong "
                "to, and start another training for others"
            )
        loader = DataLoader(
            _WithOwnDraws(dataset, seed or 0),
            batch_sampler=[piece.tolist() for piece in pieces],
            collate_fn=self._collate,
            # a DataLoader draws a seed for its workers
            generator=torch.Generator().manual_seed(0),
            **self._settings,
        )
        for batch, piece in zip(read_by_workers(loader), pieces, strict=True):
            _check_that_none_is_missing(batch, len(piece))
            yield batch


class _WithOwnDraws(Dataset[Any]):
    """A dataset whose items each draw from a seed of their own."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        seeds = np.random.SeedSequence([self._seed, index])
        if get_worker_info() is not None:
            # nothing else draws in a worker; it may have been forked with a locked lock, which nobody would release
            _seed_generators(seeds)
            return self._item(index)
        with _restored_generators():
            _seed_generators(seeds)
            return self._item(index)

    def _item(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except IndexError as error:
            raise ValueError(
                f"data: has {len(self)} samples by its __len__, and reading sample {index} fails: {error}; let "
                "__len__ return how many there are"
            ) from error


@contextmanager
def _restored_generators() -> Iterator[None]:
    """A context after which the global generators of torch, NumPy and Python are as before."""
    with borrowed_generators():
        kept, kept_by_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(kept_by_numpy)  # noqa: NPY002


def _seed_generators(seeds: np.random.SeedSequence) -> None:
    words = seeds.generate_state(3, np.uint64)
    # the CPU's generator alone, because `torch.manual_seed` seeds GPUs too
    torch.random.default_generator.manual_seed(int(words[0]))
    random.seed(int(words[1]))
    np.random.seed(int(words[2]) % 2**32)  # noqa: NPY002


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, list | tuple) and len(batch) == 2


def _joined(items: list[Any]) -> Any:
    """The items as one batch.

    Raises:
        TypeError: they are no tensors, arrays or numbers, such as images of PIL.
        ValueError: their tensors have unequal shapes.
    """
    if all(isinstance(item, tuple) and len(item) == 1 for item in items):
        # as those of a TensorDataset of inputs alone
        items = [item[0] for item in items]
    inputs = [item[0] if _is_pair(item) else item for item in items]
    shapes = {tuple(part.shape) for part in inputs if isinstance(part, Tensor | np.ndarray)}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise ValueError(
            f"data: the samples of a batch have unequal shapes, such as {first} and {second}; crop or resize them in "
            "the dataset's transform, or give a DataLoader with a collate_fn that joins them"
        )
    try:
        return default_collate(items)
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(
            "data: the samples of a batch cannot be joined; make tensors of them in the dataset's transform, of images "
            f"by torchvision.transforms.ToTensor(), or give a DataLoader with a collate_fn: {error}"
        ) from error


def _check_that_none_is_missing(batch: Any, samples: int) -> None:
    """Raises ValueError if a batch has another number of targets than of samples."""
    targets = batch[1] if _is_pair(batch) else None
    if isinstance(targets, Tensor) and targets.ndim and len(targets) != samples:
        raise ValueError(
            f"data: {samples} samples gave a batch of {len(targets)} targets; make a Subset of the samples wanted, and "
            "a collate_fn that keeps them all"
        )


def check_samples(field: str, data: Any) -> None:
    """Checks that a dataset, or a DataLoader of one, has numbered samples, whose order is free.

    Raises:
        TypeError, ValueError: as for `Loaded`. The message begins with `field`.
    """
    if isinstance(data, DataLoader):
        _check_that_order_is_free(field, data)
        data = data.dataset
    _check_that_it_is_numbered(field, data)


def _check_that_it_is_numbered(field: str, dataset: Any) -> None:
    is_map = hasattr(dataset, "__getitem__") and isinstance(dataset, Sized)
    if isinstance(dataset, IterableDataset) or not is_map:
        raise TypeError(
            f"{field}: {type(dataset).__name__} has no numbered samples, which labels could belong to; give a "
            "map-style dataset, with __len__ and __getitem__"
        )
    if not len(dataset):
        raise ValueError(f"{field}: holds no samples")


def _check_that_order_is_free(field: str, loader: DataLoader[Any]) -> None:
    """Raises ValueError for a DataLoader that chooses samples or their order by itself."""
    if isinstance(loader.dataset, IterableDataset):
        return
    sampler = loader.sampler
    is_plain = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    if not is_plain or type(loader.batch_sampler) is not BatchSampler:
        chooser = sampler if not is_plain else loader.batch_sampler
        raise ValueError(
            f"{field}: the order of samples follows from the seed, so that a {type(chooser).__name__} cannot choose "
            "it; give a DataLoader without a sampler (on several ranks too, to which samples are dealt out), or a "
            "Subset of the dataset"
        )
    if loader.drop_last:
        raise ValueError(f"{field}: every sample is trained on; make the DataLoader without drop_last")
