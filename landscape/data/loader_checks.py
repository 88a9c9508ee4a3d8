"""Warns of a DataLoader that leaves out or repeats samples, or whose samples differ from one reading to the next."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Subset, TensorDataset

from landscape.data.batches import digest_of
from landscape.data.random_state import borrowed_generators

READ_TWICE = 8
"""Items that are read twice. A flip of every second one, at random, escapes in 1 of 2^8 readings."""


def warn_of_samples_left_out(data: Any) -> None:
    """Warns if a DataLoader leaves out the samples of the last batch.

    Warns:
        UserWarning: it does. The message says how many.
    """
    if not isinstance(data, DataLoader) or not getattr(data.batch_sampler, "drop_last", False):
        return
    try:
        samples, size = len(data.sampler), int(getattr(data.batch_sampler, "batch_size", 0))  # type: ignore[arg-type]
    except (TypeError, NotImplementedError, AttributeError):
        return
    if size and (left_out := samples % size):
        warnings.warn(
            f"data: the DataLoader leaves out {left_out} of {samples} samples, because it has drop_last=True; these "
            "are others after each shuffling; give drop_last=False to measure all of them",
            stacklevel=5,
        )


def warn_of_drawn_samples(data: Any) -> None:
    """Warns if the sampler of a DataLoader draws with replacement, as `WeightedRandomSampler` does, or another number.

    Warns:
        UserWarning: it does, so that some samples are measured several times, or others not at all.
    """
    sampler = sampler_of(data)
    if getattr(sampler, "replacement", False) is True:
        warnings.warn(
            f"data: the DataLoader's {type(sampler).__name__} draws samples with replacement, so that some are "
            "measured several times and others not at all; give a DataLoader without sampler= to measure each one once",
            stacklevel=5,
        )
    elif isinstance(sampler, RandomSampler) and (drawn := len(sampler)) != (all_ := len(sampler.data_source)):
        warnings.warn(
            f"data: the DataLoader's RandomSampler draws {drawn} samples of {all_} (num_samples={drawn}); give a "
            "DataLoader without sampler= to measure each one once, or of a Subset to measure these alone",
            stacklevel=5,
        )


def warn_of_shares(data: Any, with_others: bool) -> None:
    """Warns if the sampler of a DataLoader cuts the dataset into shares of ranks which are not its samples, once each.

    Samplers are known by what `DistributedSampler` has, because others are made after it.

    Args:
        data: one batch, or an iterable of batches.
        with_others: whether other ranks measure their shares too.

    Warns:
        UserWarning: one share alone is measured, or the shares repeat samples or leave some out.
    """
    sampler = sampler_of(data)
    ranks, total = getattr(sampler, "num_replicas", None), getattr(sampler, "total_size", None)
    if not isinstance(ranks, int) or not isinstance(total, int) or ranks < 2:
        return
    name = f"the DataLoader's {type(sampler).__name__}"
    samples = len(data.dataset)
    if not with_others:
        warnings.warn(
            f"data: {name} gives this rank one of {ranks} shares of {samples} samples, and without process_group= this "
            "share alone is measured; give process_group=torch.distributed.group.WORLD on all ranks, or a DataLoader "
            "without sampler=",
            stacklevel=5,
        )
    if total != samples:
        changed = f"repeats {total - samples}" if total > samples else f"leaves out {samples - total}"
        warnings.warn(
            f"data: {name} {changed} of {samples} samples, so that all ranks have equally many; give each rank a "
            "DataLoader of Subset(dataset, range(rank, len(dataset), ranks)) to measure each one once",
            stacklevel=5,
        )


def sampler_of(data: Any) -> Any:
    """What draws the samples of a DataLoader; None for other data."""
    if not isinstance(data, DataLoader):
        return None
    sampler = data.sampler if data.batch_sampler is None else data.batch_sampler
    # one that draws batches holds one that draws samples
    return getattr(sampler, "sampler", sampler)


def warn_of_augmentation(data: Any) -> None:
    """Warns if the items of a DataLoader's dataset differ between two readings, so that those kept are one draw.

    A worker reads them if the loader has workers, because a dataset may open files that no two processes can share.

    Warns:
        UserWarning: they differ.
    """
    if not isinstance(data, DataLoader) or isinstance(data.dataset, IterableDataset):
        return
    dataset = data.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if isinstance(dataset, TensorDataset | list | tuple):
        return
    try:
        digests = _digests_of_two_readings(data)
    except Exception:
        # a dataset with other keys than 0, 1, ..., or a batch that cannot be compared
        return
    half = len(digests) // 2
    if differing := sum(a != b for a, b in zip(digests[:half], digests[half:], strict=True)):
        warnings.warn(
            f"data: {differing} of {half} items of the dataset differ between two readings, as those of a random "
            "augmentation do, so that the kept samples are one draw; turn the augmentation off to measure the samples "
            "themselves (keep='none' refuses such data)",
            stacklevel=5,
        )


def _digests_of_two_readings(data: DataLoader[Any]) -> list[int]:
    items = len(data.dataset)  # type: ignore[arg-type]
    places = torch.linspace(0, items - 1, min(items, READ_TWICE), device="cpu").long().unique().tolist()
    with borrowed_generators():
        again = DataLoader(
            data.dataset,
            sampler=places * 2,
            batch_size=1,
            collate_fn=data.collate_fn,
            num_workers=min(data.num_workers, 1),
            worker_init_fn=data.worker_init_fn,
            multiprocessing_context=data.multiprocessing_context,
        )
        return [digest_of(batch) for batch in again]
