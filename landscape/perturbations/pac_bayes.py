"""The largest Gaussian perturbation of the weights that keeps the mean rise of the loss under a given value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from landscape.checks import check_rtol
from landscape.krylov.stopping import WIDER_QUANTILE, student
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.perturbations.gaussian import FEW_PAIRS, GaussianRises, check_draws
from landscape.progress import Progress, counted
from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result

STEPS = 40
"""Largest number of steps of the search for sigma; each changes sigma by a factor of up to `FARTHEST`."""

FARTHEST = 5.0


@result
class NoiseTolerance(Result):
    """The largest Gaussian noise on the weights that keeps the mean rise of the loss under a given value."""

    sigma: float = described("standard deviation of the noise, the geometric middle of the interval")
    low: float = described(
        "lower end of the 95% interval of sigma, from the spread of the draws and rounding; 0 if none was found"
    )
    high: float = described("upper end of the interval; infinite if none was found")
    increase: float = described("rise of the loss", unit=LOSS_UNIT)
    adaptive: str = described("what the noise is relative to")
    converged: bool = described("the interval is within the tolerance asked for")
    evaluations: int = described("passes over the data", unit="evaluations")
    samples: int = described("samples in the mean loss")
    loss_unit: str = loss_unit_field()


@dataclass(frozen=True)
class SigmaInterval:
    """A 95% interval of sigma.

    Attributes:
        low, high: its ends; 0 or inf if an end was not found, and NaN if the loss of the model itself is not finite.
    """

    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether both ends were found."""
        return self.low > 0 and self.high < math.inf

    @property
    def sigma(self) -> float:
        """The geometric middle, or the end that was found."""
        if self.is_known:
            return math.sqrt(self.low * self.high)
        return self.high if self.low == 0 else self.low

    def is_within(self, rtol: float) -> bool:
        """Whether the ends differ by less than rtol, relative to the lower end."""
        return self.is_known and self.high <= (1 + rtol) * self.low


@of_objective
def pac_bayes_sigma(
    objective: Objective,
    *,
    increase: float = 0.1,
    adaptive: str = "none",
    rtol: float = 0.05,
    max_draws: int = 200,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> NoiseTolerance:
    """The sigma at which E L(theta + sigma T z) - L(theta) = increase, and a 95% interval of sigma.

    At each sigma the same draws give an interval for the mean rise. The interval of sigma holds all sigmas whose
    interval of the rise holds `increase`. The interval is computed for the logarithm of the rise, because rises are
    skewed like squares, and small rises have a small spread. On quadratics the interval held the truth in 93 to 97% of
    seeds with at least 16 pairs of draws, for all eigenvalues tried, and in 89 to 97% with 4 pairs. (With a single
    eigenvalue, the interval without the logarithm held the truth in 88 to 94%.)

    Sources: Neyshabur et al. 2017; Jiang et al. 2020, section C.5 (their search for sigma bounds the accuracy). Cost:
    all draws at 5 to 8 sizes of noise, and a few draws at some more sizes. Each draw costs one evaluation.

    Args:
        objective: its loss is measured, in evaluation mode.
        increase: mean rise of the loss that sigma may cause.
        adaptive: `"none"` (T = 1), `"elementwise"` (Jiang et al.'s magnitude-aware sigma) or `"filter"`.
        rtol: the result is converged if the ends of the interval differ by less than rtol, relative to the lower end.
            Each end is found to a tenth of rtol.
        max_draws: largest number of draws at each sigma.
        seed: seed of the draws.
        progress: called with the evaluations done and about how many there will be. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range.
    """
    check_tolerance(increase, rtol, max_draws)
    expected = 10 * max_draws
    with counted(expected, progress, "PAC-Bayes sigma", "evaluations") as spend:
        rises = GaussianRises(
            {"loss": objective}, adaptive=adaptive, seed=seed, expected=expected, spend=spend
        )
        found = tolerated(rises, 0, increase, rtol, max_draws // 2, first_sigma(objective, adaptive))
    return NoiseTolerance(
        sigma=found.sigma,
        low=found.low,
        high=found.high,
        increase=increase,
        adaptive=adaptive,
        converged=found.is_within(rtol),
        evaluations=rises.evaluations,
        samples=objective.n_samples,
        loss_unit=unit_of(objective.loss_fn),
    )


def check_tolerance(increase: float, rtol: float, max_draws: int) -> None:
    """Checks the arguments of a search for sigma.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 < increase < math.inf:
        raise ValueError(f"increase: must be positive and finite, got {increase}")
    check_rtol(rtol)
    check_draws(max_draws)


def first_sigma(objective: Objective, adaptive: str) -> float:
    """The sigma at which the search begins: a tenth of the size of a weight."""
    if adaptive != "none":
        return 0.1
    size = objective.theta.double().square().mean().sqrt().item()
    # a power of two, so that the searches of several losses meet and share evaluations
    return float(2.0 ** round(math.log2(0.1 * size))) if 0 < size < math.inf else 0.1


def tolerated(
    rises: GaussianRises, column: int, increase: float, rtol: float, max_pairs: int, start: float
) -> SigmaInterval:
    """The 95% interval of the sigma at which the mean rise of one loss passes `increase`."""
    if not np.isfinite(rises.center[column]):
        return SigmaInterval(math.nan, math.nan)
    quantile = student(WIDER_QUANTILE, max_pairs)

    def excess(log_sigma: float, pairs: int, side: float) -> float:
        return _excess(
            rises.at(log_sigma, pairs)[:, column], increase, side * quantile, float(rises.rounding[column])
        )

    few = min(FEW_PAIRS, max_pairs)
    low, high = _crossing(lambda log_sigma: excess(log_sigma, few, 0), math.log(start), 0.2)
    if low > -math.inf and high < math.inf:
        near = (low + high) / 2
        # as sigma grows, the upper limit of the mean rise passes `increase` first
        low, _ = _crossing(lambda log_sigma: excess(log_sigma, max_pairs, 1), near, rtol / 10)
        _, high = _crossing(lambda log_sigma: excess(log_sigma, max_pairs, -1), near, rtol / 10)
    return SigmaInterval(math.exp(low), math.exp(high))


def _excess(found: FloatArray, increase: float, errors: float, rounding: float) -> float:
    """The logarithm of (mean rise / `increase`), moved by `errors` standard errors and cut off at one step's size."""
    most = 2 * math.log(FARTHEST)
    if not np.isfinite(found).all():
        return most
    mean = found.mean()
    margin = errors * math.hypot(found.std(ddof=1) / math.sqrt(len(found)), rounding)
    # a mean of at most 0 has no logarithm; its plain interval lies below `increase` if its upper end does
    if mean <= 0:
        return -most if mean + margin < increase else most
    return float(np.clip(math.log(mean / increase) + margin / mean, -most, most))


def _crossing(excess: Callable[[float], float], start: float, tolerance: float) -> tuple[float, float]:
    """Two logarithms of sizes, a tolerance below and above the root of the excess; -inf or inf if there is none.

    Args:
        excess: of the logarithm of a size.
        start: the logarithm of the first size.
        tolerance: how near to the root the search ends.
    """
    below, above = -math.inf, math.inf
    at = start
    for _ in range(STEPS):
        size = excess(at)
        below, above = (max(below, at), above) if size <= 0 else (below, min(above, at))
        if below > -math.inf and above < math.inf:
            root = scipy.optimize.brentq(excess, below, above, xtol=tolerance)
            return root - tolerance, root + tolerance
        # the size at which a quadratic passes 0, and a little beyond
        at -= size / 2 + math.copysign(tolerance, size)
    return below, above
