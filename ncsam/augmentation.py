"""Random crops, flips and holes of whole batches, as tensor operations with their own generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ncsam.plain_numbers import whole_number


@dataclass(frozen=True)
class Augmentation:
    """Crop, then flip, then cutout, of a batch of images.

    ::

        augment = Augmentation(crop=4, flip=True)
        inputs = split.batch(indices, lambda pixels: augment(pixels, generator))

    Attributes:
        crop: width in pixels of the black border that is added on each side, before a window of the old size is cut
            out; 0: no crop.
        flip: whether half of the images are mirrored.
        cutout: side of the black square in pixels; 0: no square.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, value in (("crop", self.crop), ("cutout", self.cutout)):
            if whole_number(name, value) < 0:
                raise ValueError(f"{name}: must be at least 0 pixels, got {value}")

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Changes each image of (n, channels, height, width), of any type, by a draw of its own.

        Args:
            pixels: images on any device; they are not written to.
            generator: makes the draws. A generator on the pixels' device saves a copy between devices.

        Raises:
            ValueError: the samples are no such images.
        """
        if pixels.ndim != 4:
            raise ValueError(
                f"augmentation: takes images (n, channels, height, width), got {tuple(pixels.shape)}; give images of "
                "one channel as images.unsqueeze(1), and train other samples without augmentation"
            )
        if self.crop:
            pixels = random_crop(pixels, self.crop, generator)
        if self.flip:
            pixels = random_flip(pixels, generator)
        if self.cutout:
            pixels = cutout(pixels, self.cutout, generator)
        return pixels


def random_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pads each image with `padding` pixels of 0, and cuts a window of the old size at a uniformly random place."""
    count, channels, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (padding,) * 4)
    padded_height, padded_width = padded.shape[2:]
    top, left = (_integers(2 * padding + 1, pixels, generator) for _ in range(2))
    rows = torch.arange(height, device=pixels.device)
    planes = torch.arange(count * channels, device=pixels.device) * (padded_height * padded_width)
    # each row of a window is `width` neighbors in memory; copying rows is many times faster than copying elements
    starts = planes.view(count, channels, 1) + (
        (top.unsqueeze(1) + rows) * padded_width + left.unsqueeze(1)
    ).unsqueeze(1)
    windows = padded.flatten().unfold(0, width, 1).index_select(0, starts.flatten())
    return windows.view(pixels.shape)


def random_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image with probability 1/2."""
    mirrored = _integers(2, pixels, generator)
    both = torch.cat([pixels, pixels.flip(3)])
    return both.index_select(0, torch.arange(len(pixels), device=pixels.device) + len(pixels) * mirrored)


def cutout(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Sets a square around a uniformly random pixel of each image to 0; the border cuts the square off.

    Source: DeVries and Taylor 2017 (arXiv:1708.04552). Their code sets the square after the normalization, so that it
    has the mean color; here the square is black.

    Args:
        pixels: (n, channels, height, width).
        size: side of the square. An even square reaches `size / 2` pixels up and left, and one less down and right.
        generator: draws the centers.
    """
    height, width = pixels.shape[2:]
    inside = []
    for length in (height, width):
        first = _integers(length, pixels, generator) - size // 2
        offset = torch.arange(length, device=pixels.device) - first.unsqueeze(1)
        inside.append((offset >= 0) & (offset < size))
    rows, columns = inside
    hole = rows.unsqueeze(2) & columns.unsqueeze(1)
    return pixels.masked_fill(hole.unsqueeze(1), 0)


def _integers(end: int, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """An integer from 0 to `end` - 1 for each image, on the images' device."""
    drawn = torch.randint(end, (len(pixels),), generator=generator, device=generator.device)
    # copying to the device needs no wait; copying from the device would
    return drawn.to(pixels.device, non_blocking=pixels.is_cuda)
