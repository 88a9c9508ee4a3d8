"""A quadratic model of a loss through the points that an ascent has visited."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.model.long_vectors import dot

FloatArray = NDArray[np.float64]

SMALLEST_STEP = 1e-5
"""The shortest difference of points that shows curvature, as a share of the radius; shorter ones are rounding."""
INDEPENDENT = 1e-5
"""If the squared length of a direction outside of the span of the others is a smaller share, it is only rounding."""


class SecantModel:
    """The quadratic on the plane through the visited points that has the gradients found there.

    For a quadratic loss the model is exact. Its maximum is then the maximum that Lanczos' method finds with the same
    number of gradients.

    Args:
        slope: the gradient (n,) at the center, which is the first point.
        points: number of points that are kept, at least 3. Each takes two vectors, an offset and a gradient.
    """

    def __init__(self, slope: Tensor, points: int) -> None:
        # the center's offset is 0, and is not held
        self.offsets: list[Tensor | None] = [None]
        self.gradients = [slope]
        self.rises = [0.0]
        self._points = points
        # inner products of offsets with offsets, and of offsets with gradients
        self._gram = np.zeros((points, points))
        self._secants = np.zeros((points, points))

    def add(self, offset: Tensor, gradient: Tensor, rise: float) -> None:
        """Keeps a point. If all places are taken, the lowest point is dropped, but never the center."""
        place = len(self.rises)
        if place == self._points:
            place = 1 + int(np.argmin(self.rises[1:]))
        here = slice(place, place + 1)
        self.offsets[here], self.gradients[here], self.rises[here] = [offset], [gradient], [rise]
        known = len(self.rises)
        self._gram[place, :known] = _products(self.offsets, offset)
        self._gram[:known, place] = self._gram[place, :known]
        self._secants[:known, place] = _products(self.offsets, gradient)
        self._secants[place, :known] = _products(self.gradients, offset)

    def maximum(self, radius: float) -> tuple[Tensor, Tensor]:
        """The model's maximum in the ball around 0, and the model's gradient there; each is (n,)."""
        known, best = len(self.rises), int(np.argmax(self.rises))
        gram, secants = self._gram[:known, :known], self._secants[:known, :known]
        # columns are combinations of the points: the differences to the highest point, of unit length
        differences = np.eye(known)
        differences[best] -= 1
        lengths = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", differences, gram, differences), 0))
        is_long = lengths > SMALLEST_STEP * radius
        if not is_long.any() or not (np.isfinite(gram).all() and np.isfinite(secants).all()):
            offset = self.offsets[best]
            return torch.zeros_like(self.gradients[0]) if offset is None else offset, self.gradients[best]
        differences = differences[:, is_long] / lengths[is_long]
        squares, mixing = np.linalg.eigh(differences.T @ gram @ differences)
        is_independent = squares > INDEPENDENT * squares[-1]
        basis = differences @ (mixing[:, is_independent] / np.sqrt(squares[is_independent]))
        curvature = basis.T @ secants @ basis
        curvatures, axes = np.linalg.eigh((curvature + curvature.T) / 2)
        basis = basis @ axes
        # coordinates and slope of the highest point in the plane through 0 that is parallel to that of the points
        place, slope = basis.T @ gram[:, best], basis.T @ secants[:, best]
        reach = math.sqrt(max(radius**2 - gram[best, best] + place @ place, 0.0))
        top = largest_in_ball(slope - curvatures * place, curvatures, reach)
        weights = basis @ (top - place)
        weights[best] += 1
        return _combined(weights, self.offsets), _combined(weights, self.gradients)


def largest_in_ball(slope: FloatArray, curvatures: FloatArray, radius: float) -> FloatArray:
    """The z that maximizes slope . z + z . (curvatures z) / 2 over ||z|| <= radius.

    On the sphere, (m - curvatures) z = slope, with m at least 0 and at least the largest curvature (Moré and Sorensen
    1983, section 2). m is found by bisection. In the hard case, the slope has no part along the largest curvature; then
    the part of z along it fills up the radius.
    """
    top = curvatures.max()
    if top < 0:
        inside = -slope / curvatures
        if np.linalg.norm(inside) <= radius:
            return inside
    size = float(np.linalg.norm(slope))
    scale = max(float(np.abs(curvatures).max()), size / max(radius, np.finfo(float).tiny))
    if scale == 0 or radius == 0:
        return np.zeros_like(slope)
    low = max(top, 0.0) + 1e-10 * scale
    high = max(top, 0.0) + size / radius + 1e-10 * scale
    at_low: FloatArray = slope / (low - curvatures)
    left = radius**2 - at_low @ at_low
    if left >= 0:
        axis = int(curvatures.argmax())
        at_low[axis] += math.copysign(math.sqrt(left), slope[axis])
        return at_low * (radius / np.linalg.norm(at_low))
    while high - low > 1e-14 * scale:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if np.linalg.norm(slope / (middle - curvatures)) > radius:
            low = middle
        else:
            high = middle
    on_sphere: FloatArray = slope / (high - curvatures)
    return on_sphere * (radius / np.linalg.norm(on_sphere))


def _products(vectors: Sequence[Tensor | None], with_vector: Tensor) -> FloatArray:
    """The inner products of vectors, of which None is 0, with one."""
    found = [with_vector.new_zeros(()) if each is None else each @ with_vector for each in vectors]
    products = np.asarray(torch.stack(found).double().cpu().numpy())
    if np.isfinite(products).all():
        return products
    # in float32 the product of long vectors is infinite
    return np.array([0.0 if each is None else dot(each, with_vector) for each in vectors])


def _combined(weights: FloatArray, vectors: Sequence[Tensor | None]) -> Tensor:
    pairs = [(float(weight), each) for weight, each in zip(weights, vectors, strict=True) if each is not None]
    total = torch.zeros_like(pairs[0][1])
    for weight, vector in pairs:
        total.add_(vector, alpha=weight)
    return total
