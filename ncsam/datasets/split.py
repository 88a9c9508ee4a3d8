"""Samples in memory as they were stored, and the normalization that is applied to each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ncsam.datasets.classes import number_of_classes
from ncsam.datasets.finite import check_finite
from ncsam.options import check_is_tensor
from ncsam.plain_numbers import with_plain_numbers


class Samples(Protocol):
    """Numbered samples that can be read in any order; a `Split` is such, and so is `Loaded`."""

    @property
    def targets(self) -> Tensor:
        """int64 (n,)."""

    @property
    def evaluation_batch(self) -> int:
        """Samples read at once where a model is evaluated."""

    def __len__(self) -> int: ...

    def batches(
        self, pieces: Sequence[Tensor], augment: Callable[[Tensor], Tensor] | None = None, *, seed: int | None
    ) -> Iterator[Any]:
        """The inputs of the samples at each of the `pieces`, int64 (batch,); `seed` None: for evaluation."""

    def some(self, count: int) -> Any:
        """The inputs of the first samples, as a model is evaluated on them."""


NORMALIZED_BYTES = 256 * 1024**2
"""Most bytes of normalized samples that are held beside the bytes of the images."""


@dataclass(frozen=True)
class Split:
    """Samples and their labels, held on one device as they were stored and normalized batch by batch.

    Images of bytes take a quarter of the memory of images of floats, so that a whole training set fits on a GPU.

    Attributes:
        pixels: (n, channels, height, width), uint8 as a rule; or features of any shape (n, ...), floating; or
            tokens, int64 (n, length), which stay whole numbers.
        targets: int64 (n,), classes counted from 0.
        mean: float32 (channels,), subtracted from each channel, in the units of `pixels`; None: no normalization.
        std: float32 (channels,), each channel is then divided by it; None: no normalization.
    """

    pixels: Tensor
    targets: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    evaluation_batch: ClassVar[int] = 2000

    def __repr__(self) -> str:
        normalized = "" if self.mean is None else ", normalized when read"
        return (
            f"Split({len(self.targets):,} samples of shape {self.input_shape}, {self.pixels.dtype}{normalized}, "
            f"on {self.pixels.device})"
        )

    def __post_init__(self) -> None:
        check_is_tensor("pixels", self.pixels, "(n, ...)")
        check_is_tensor("targets", self.targets, "(n,)")
        if 0 in (self.pixels.ndim, self.targets.ndim):
            raise ValueError("pixels, targets: must have an axis of samples, and one is a single number")
        if len(self.pixels) != len(self.targets):
            raise ValueError(f"targets: {len(self.targets)} labels for {len(self.pixels)} samples")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean, std: give both or neither")
        for name, statistic in (("mean", self.mean), ("std", self.std)):
            if statistic is not None:
                self._check_statistic(name, statistic)

    def _check_statistic(self, name: str, statistic: Tensor) -> None:
        check_is_tensor(name, statistic, "(channels,)")
        channels = self.input_shape[0] if self.input_shape else 1
        # one number may stand for all channels
        if statistic.numel() not in (1, channels):
            raise ValueError(
                f"{name}: must be ({channels},), one of each channel, got {tuple(statistic.shape)}"
            )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: channels, height, width of an image."""
        return tuple(self.pixels.shape[1:])

    @property
    def inputs(self) -> Tensor:
        """All samples as a model sees them, computed anew at each access; `batch` gives chosen samples."""
        return self._normalized(self.pixels)

    def batch(self, indices: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The samples at `indices` as a model sees them: float32, or the data's own type of floats or tokens.

        Args:
            indices: int64 (batch,), on the split's device.
            augment: pixels -> pixels, called before the normalization, so that padding with 0 is black.
        """
        pixels = self.pixels.index_select(0, indices)
        return self._normalized(pixels if augment is None else augment(pixels))

    def batches(
        self, pieces: Sequence[Tensor], augment: Callable[[Tensor], Tensor] | None = None, *, seed: int | None
    ) -> Iterator[Tensor]:
        """The inputs of the samples at each of the `pieces`.

        Args:
            pieces: int64 (batch,) each.
            augment: as for `batch`.
            seed: not used, because stored samples draw nothing.
        """
        del seed
        for piece in pieces:
            yield self.batch(piece.to(self.pixels.device), augment)

    def some(self, count: int) -> Tensor:
        """The inputs of the first samples."""
        return self.batch(torch.arange(min(count, len(self)), device=self.pixels.device))

    def take(self, indices: Tensor) -> Split:
        """The samples at `indices`, in that order."""
        return Split(self.pixels[indices], self.targets[indices], self.mean, self.std)

    def to(self, device: torch.device | str) -> Split:
        """The same samples on `device`."""
        mean, std = (None if tensor is None else tensor.to(device) for tensor in (self.mean, self.std))
        return Split(self.pixels.to(device), self.targets.to(device), mean, std)

    def normalized_once(self) -> Split:
        """The same samples, normalized now and not at each reading, if they then take at most `NORMALIZED_BYTES`."""
        if self._affine is None or self.pixels.numel() * self._affine[0].element_size() > NORMALIZED_BYTES:
            return self
        return Split(self.inputs, self.targets)

    def _normalized(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.int64:
            return pixels
        if not pixels.is_floating_point():
            pixels = pixels.float()
        if self._affine is None:
            return pixels
        scale, shift = self._affine
        return torch.addcmul(shift, pixels, scale)

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor] | None:
        """1 / std and -mean / std, shaped to multiply and to add to a batch."""
        if self.mean is None or self.std is None:
            return None
        shape = (-1, *(1 for _ in self.input_shape[1:]))
        scale = 1 / self.std.view(shape)
        return scale, -self.mean.view(shape) * scale


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, both normalized with the statistics of the training set.

    Attributes:
        name: name of the data set.
        train: the training samples with their true labels, as far as these are known.
        test: the test samples.
        num_classes: number of classes.
        train_indices: int64 (n,), the position of each sample of `train` in the whole training set. They index the
            labels of a file that covers the whole training set.
        observed: int64 (n,), labels that annotators gave to the training samples; None where the source has no labels
            beside the true ones.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    train_indices: Tensor
    observed: Tensor | None = None

    def __repr__(self) -> str:
        annotators = "" if self.observed is None else ", with annotators' labels"
        return f"Dataset({self.name!r}, {self.num_classes} classes{annotators}, train={self.train}, test={self.test})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: channels, height, width of an image."""
        return self.train.input_shape

    @property
    def mean(self) -> Tensor | None:
        """float32 (channels,): subtracted from both splits, in the units of their pixels."""
        return self.train.mean

    @property
    def std(self) -> Tensor | None:
        """float32 (channels,): both splits are divided by it."""
        return self.train.std


@with_plain_numbers
def make_dataset(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    num_classes: int | None = None,
    observed: Tensor | None = None,
) -> Dataset:
    """A data set of two pairs (pixels, targets).

    Bytes are normalized by the channels of the training set; floating data are not normalized. `num_classes` is the
    largest label plus one if not given; each class must then occur.

    Raises:
        ValueError: a label lies outside the classes, or `num_classes` is not given and no label is of some class.
    """
    pixels, targets = train
    labels = {"train": targets, "test": test[1]} | ({} if observed is None else {"observed": observed})
    classes = number_of_classes(labels, num_classes, f"dataset {name!r}", "give num_classes={classes}")
    mean, std = channel_statistics(pixels) if pixels.dtype == torch.uint8 else (None, None)
    return Dataset(
        name=name,
        train=Split(pixels, targets, mean, std),
        test=Split(*test, mean, std),
        num_classes=classes,
        train_indices=torch.arange(len(targets), device="cpu"),
        observed=observed,
    )


def standardized(data: Dataset) -> Dataset:
    """The data set with floating samples in float32, each column or channel with mean 0 and deviation 1 in training.

    Columns of a table often differ in their units by powers of ten, and a network with usual weights would see only the
    largest. Data that are normalized already, and tokens, are returned as they are.

    Raises:
        ValueError: a value of the training or the test samples is not finite.
    """
    pixels = data.train.pixels
    if data.mean is not None or not pixels.is_floating_point():
        return data
    for part, split in (("x_train", data.train), ("x_test", data.test)):
        check_finite(part, split.pixels)
    values = pixels.double().transpose(0, 1).flatten(1)
    mean, std = values.mean(1).float(), values.std(1, correction=0).float()
    std = torch.where(std > 0, std, 1.0)
    train, test = (Split(part.pixels.float(), part.targets, mean, std) for part in (data.train, data.test))
    return replace(data, train=train, test=test)


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32 (channels,); 1 for a channel of one value.

    Args:
        pixels: uint8 (n, channels, height, width). Each value is counted, so that no sum is rounded.
    """
    values = torch.arange(256, dtype=torch.float64, device="cpu")
    means, deviations = [], []
    for channel in pixels.unbind(1):
        counts = channel.flatten().bincount(minlength=256).double()
        mean = (counts @ values) / counts.sum()
        variance = (counts @ (values - mean).square()) / (counts.sum() - 1).clamp(min=1)
        means.append(mean)
        deviations.append(variance.sqrt() if variance > 0 else torch.ones_like(variance))
    return torch.stack(means).float(), torch.stack(deviations).float()
