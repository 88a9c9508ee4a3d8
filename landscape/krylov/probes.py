"""Random probes of a symmetric operator A: the values of A and of A^2 that each probe gives.

A sampler can draw further probes; it keeps the values of all its probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from landscape.ranks import ALONE, Ranks
from landscape.seeds import normal_like

SKETCH_NOISE = 1e-9
"""Relative shift of the sketch. It keeps the basis well conditioned on operators of low rank, and adds no bias."""

ENOUGH_SIGNS = 16
"""So many probes of random signs show a spread. In fewer probes, the product of two signs is the same in all by chance:
in 8 probes, in one of 128 draws. Where a form hangs on few such products, the probes then agree, and their mean is
wrong."""

NO_SPREAD = 1e-12
"""A variance below this share of the largest one that is possible is only rounding, in float32 too."""

Image = Callable[[Tensor], Tensor]
"""A block (n, k) -> A times the block, in float64."""


class Probes(Protocol):
    """Probes drawn so far."""

    def grow(self, count: int) -> None:
        """Draws more probes, and applies the operator to them."""

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """The samples of the trace of A and of the trace of A^2.

        Each is a pair: one value for each probe, and the variance that a part common to all values adds to their mean.
        """


def random_directions(known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random directions orthogonal to the known ones, of squared length the dimension that is left."""
    n = known.shape[0]
    draw = normal_like((n, count), known, generator)
    draw = draw - known @ (known.T @ draw)
    return draw * (math.sqrt(n - known.shape[1]) / torch.linalg.vector_norm(draw, dim=0))


class Signs:
    """Hutchinson's probes w. Only w^T A w and w^T A^2 w are kept; with `less` = B, those of A less those of B.

    The probes are random signs rather than random directions, because signs give the trace of a diagonal without error.
    """

    def __init__(
        self, image: Image, draw: Callable[[], Tensor], less: Image | None = None, ranks: Ranks = ALONE
    ) -> None:
        self._image, self._draw, self._less, self._ranks = image, draw, less, ranks
        self._samples: list[Tensor] = []

    def grow(self, count: int) -> None:
        """Draws more random signs; each costs one product."""
        for _ in range(count):
            probe = self._draw()
            image = self._image(probe)
            forms = _forms(probe, image)
            squares = largest = forms[1]
            if self._less is not None:
                other = self._less(probe)
                of_other = _forms(probe, other)
                largest = torch.maximum(largest, of_other[1])
                forms = forms - of_other
                squares = (image - other).square().sum()
            sample = torch.cat([forms, torch.stack([squares, largest])])
            self._samples.append(self._ranks.over_entries(sample))

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """The samples of the trace of A and of the trace of A^2.

        Each is a pair: one value for each probe, and the variance that a part common to all values adds to their mean.
        """
        *forms, squares, largest = torch.stack(self._samples, 1)
        # the variances of w^T A w and w^T A^2 w are at most 2 ||A||^2 and 2 ||A^2||^2 in Frobenius' norm
        most = 2 * squares.mean(), 2 * largest.mean().square()
        return [(values, unseen_variance(values, bound)) for values, bound in zip(forms, most, strict=True)]


def unseen_variance(values: Tensor, most: Tensor) -> Tensor:
    """The variance of the mean of values (probes, ...) of random signs that agree by chance; 0 if they do not.

    Args:
        values: of the probes.
        most: the largest variance of a value that is possible, (...).
    """
    count = len(values)
    agree = (
        values.var(0) <= NO_SPREAD * most
        if 1 < count < ENOUGH_SIGNS
        else torch.zeros_like(most, dtype=torch.bool)
    )
    return torch.where(agree, most / count, 0.0)


def _forms(probe: Tensor, applied: Tensor) -> Tensor:
    """w^T A w and w^T A^2 w of a probe w (n, 1) and A w."""
    return torch.stack([(probe * applied).sum(), applied.square().sum()])


class Sketched:
    """Probes with a basis Q of A times random vectors: the probes themselves (XTrace) or others (Hutch++)."""

    def __init__(self, image: Image, draw: Callable[[int], Tensor], known: Tensor, method: str) -> None:
        self._image, self._draw, self._known = image, draw, known
        self._leaves_out = method == "xtrace"
        self._probes = self._images = self._basis = self._basis_images = known[:, :0]
        self._triangle = known.new_zeros(0, 0)

    def grow(self, count: int) -> None:
        """Draws more probes; each costs two products with XTrace, three with Hutch++."""
        probes = self._draw(count)
        images = self._image(probes)
        sketch = images if self._leaves_out else self._image(self._draw(count))
        noise = self._draw(count) * (SKETCH_NOISE * sketch.norm() / math.sqrt(sketch.numel()))
        sketch = torch.where(sketch.norm() > 0, sketch + noise, self._draw(count))
        coordinates = sketch.new_zeros(self._basis.shape[1], count)
        inner = torch.eye(count, dtype=sketch.dtype, device=sketch.device)
        # the second pass removes the rounding errors of columns that were nearly in the span of the basis
        for _ in range(2):
            sketch = sketch - self._known @ (self._known.T @ sketch)
            part = self._basis.T @ sketch
            coordinates = coordinates + part @ inner
            sketch, factor = torch.linalg.qr(sketch - self._basis @ part)
            inner = factor @ inner
        self._triangle = torch.cat(
            [torch.nn.functional.pad(self._triangle, (0, 0, 0, count)), torch.cat([coordinates, inner])], 1
        )
        self._probes = torch.cat([self._probes, probes], 1)
        self._images = torch.cat([self._images, images], 1)
        self._basis = torch.cat([self._basis, sketch], 1)
        self._basis_images = torch.cat([self._basis_images, self._image(sketch)], 1)

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """The samples of the trace of A and of the trace of A^2.

        Each is a pair: one value for each probe, and the variance that a part common to all values adds to their mean.
        """
        probes, images, basis, basis_images = self._probes, self._images, self._basis, self._basis_images
        dimension = self._known.shape[0] - self._known.shape[1]
        coordinates = basis.T @ probes
        forms = [
            _Form(basis.T @ basis_images, basis_images.T @ probes, (probes * images).sum(0)),
            _Form(basis_images.T @ basis_images, basis_images.T @ images, images.square().sum(0)),
        ]
        if self._leaves_out:
            alone = torch.linalg.inv(self._triangle).T
            alone = alone / torch.linalg.vector_norm(alone, dim=0)
            return [_held_out(form, coordinates, alone, dimension) for form in forms]
        none_removed = basis.new_zeros(basis.shape[1], 0, probes.shape[1])
        return [
            (_values(form, coordinates, none_removed, none_removed, dimension), basis.new_zeros(()))
            for form in forms
        ]


@dataclass(frozen=True)
class _Form:
    """The needed parts of a quadratic form B = A or B = A^2: Q^T B Q, and Q^T B w and w^T B w of each probe w."""

    core: Tensor
    cross: Tensor
    diagonal: Tensor


def _held_out(form: _Form, coordinates: Tensor, alone: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """XTrace's values, one a probe, and an estimate of their mean covariance.

    Given all other probes, the mean of each value t_i is the trace. Let g_ij be the value of probe i if probe j is left
    out of its basis too, and d_ij = t_i - g_ij. Given the probes other than i and j, g_ij and g_ji are independent, and
    d_ij has mean 0 for every probe j. So Cov(t_i, t_j) = E[d_ij d_ji], and
    Var(mean) = E[s^2 / m + mean of d_ij d_ji over i != j]. The paper of XTrace uses the sample variance s^2 alone. This
    leaves out the second term, and can give only half of the standard error.

    Args:
        form: the quadratic form.
        coordinates: coordinates of the probes in the basis, (m, m).
        alone: column i is the direction, of length 1, that is in the basis only because of probe i.
        dimension: dimension of the space.
    """
    count = alone.shape[1]
    images = form.core @ alone
    values = _values(form, coordinates, alone.unsqueeze(1), images.unsqueeze(1), dimension)
    overlaps = alone.T @ alone
    rest = alone.unsqueeze(2) - alone.unsqueeze(1) * overlaps
    lengths = torch.linalg.vector_norm(rest, dim=0).clamp(min=1e-30)

    def both(vectors: Tensor) -> Tensor:
        # of probe i (second to last index) without probe j (last index)
        other = vectors.unsqueeze(1).expand(-1, count, -1)
        return torch.stack([(vectors.unsqueeze(2) - other * overlaps) / lengths, other], 1)

    without = _values(form, coordinates, both(alone), both(images), dimension)
    change = (values.unsqueeze(1) - without).fill_diagonal_(0)
    covariance = (change * change.T).sum() / (count * (count - 1))
    return values, covariance.clamp(min=0)


def _values(form: _Form, coordinates: Tensor, removed: Tensor, images: Tensor, dimension: int) -> Tensor:
    """The estimate of each single probe, with some directions removed from the basis.

    The form is applied to the removed directions beforehand, as these are combinations of few; applied to each here, it
    would cost more than all the rest.

    Args:
        form: the quadratic form.
        coordinates: coordinates of the probes in the basis, (m, probes).
        removed: r orthonormal directions in the basis for each probe, (m, r, probes), or for several cases of
            each probe, (m, r, probes, cases).
        images: the form's core times these.
        dimension: dimension of the space, which is the squared length of the probes.
    """
    cases = (..., None) if removed.ndim == 4 else (...,)
    image, coordinates = (form.core @ coordinates)[cases], coordinates[cases]
    cross, diagonal = form.cross[cases], form.diagonal[cases]
    shares = (removed * coordinates.unsqueeze(1)).sum(0)
    kept = coordinates - (removed * shares).sum(1)
    inside = form.core.trace() - (removed * images).sum((0, 1))
    twice = (kept * (image - (images * shares).sum(1))).sum(0)
    outside = diagonal - 2 * (kept * cross).sum(0) + twice
    rank = len(form.core) - removed.shape[1]
    # the length of the rest of a probe is known on average, sqrt(dimension - rank); this removes one source of noise
    return inside + outside * (dimension - rank) / (dimension - kept.square().sum(0))
