"""The scale on which losses are interpolated: as they are, or a logarithm, whichever promises smaller errors.

Losses rise steeply away from a minimum. Their logarithm is rounder, and takes fewer points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.results.fields import FloatArray
from landscape.slices.interpolation import Fields

LOG = "logarithm of the loss"
"""Name of the field of transformed losses."""

ABOVE = 0.3
"""The logarithm is that of the loss above the lowest one, plus this share of the range."""

LOCAL = 5
"""Largest error of a value relative to the value, in tolerances. Without it, large values far away hide a basin."""

FLOOR = 0.02
"""For the rule of `LOCAL`, a value below this share of the range counts as this share."""

LARGEST = 50.0
"""Larger logarithms count as this. Far from all points an interpolation may be anything."""


@dataclass(frozen=True)
class LossScale:
    """The range of each loss, (losses,)."""

    low: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, losses: FloatArray) -> LossScale:
        """The range of losses (points, losses). Those that are not finite do not enter it."""
        finite = np.isfinite(losses)
        low = np.where(finite, losses, np.inf).min(0)
        high = np.where(finite, losses, -np.inf).max(0)
        found = np.isfinite(low)
        return cls(np.where(found, low, 0.0), np.where(found, high - low, 0.0))

    def allowed(self, losses: FloatArray, tolerance: float) -> FloatArray:
        """The largest error of each loss; `landscape.slices.adaptive.refined` says which."""
        floor = np.maximum(np.abs(losses), FLOOR * self.spread)
        return np.asarray(tolerance * np.minimum(self.spread, LOCAL * floor))

    def logarithm(self, losses: FloatArray) -> FloatArray:
        """log(1 + share of the range above the lowest loss / ABOVE); below the lowest loss its tangent."""
        share = (losses - self.low) / self._divisor / ABOVE
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(share > 0, np.log1p(np.maximum(share, 0)), share))

    def losses(self, logarithms: FloatArray) -> FloatArray:
        """The losses that have these logarithms."""
        above = np.expm1(np.clip(logarithms, 0, LARGEST))
        share = ABOVE * np.where(logarithms > 0, above, logarithms)
        return np.asarray(self.low + self.spread * share)

    @property
    def _divisor(self) -> FloatArray:
        return np.where(self.spread > 0, self.spread, 1.0)

    def back(self, filled: Fields, errors: Fields) -> tuple[Fields, Fields]:
        """The fields of `Values`, and their estimated errors.

        Logarithms become losses again where they were better: the mean of their estimated errors, in those allowed, is
        smaller than that of the losses that were interpolated themselves.
        """
        losses = self.losses(filled[LOG])
        up, down = (self.losses(filled[LOG] + sign * errors[LOG]) for sign in (1, -1))
        error = np.maximum(up - losses, losses - down)
        better = self._mean_share(losses, error) < self._mean_share(filled["loss"], errors["loss"])
        keep = {name: of_points for name, of_points in filled.items() if name != LOG}
        keep_errors = {name: errors[name] for name in keep}
        # an evaluated loss stays what it is, to the last bit
        there = better & (errors["loss"] != 0)
        keep["loss"] = np.where(there, losses, filled["loss"])
        keep_errors["loss"] = np.where(there, error, errors["loss"])
        return keep, keep_errors

    def _mean_share(self, losses: FloatArray, errors: FloatArray) -> FloatArray:
        """The mean over the points of the errors in those allowed, (losses,)."""
        allowed = self.allowed(losses, 1.0)
        usable = np.isfinite(errors) & (allowed > 0)
        return np.divide(errors, allowed, out=np.zeros_like(errors), where=usable).mean(0)
