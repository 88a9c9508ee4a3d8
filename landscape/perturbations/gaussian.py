"""How much the loss rises under Gaussian noise on the weights, and how much noise it bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy
import torch

from landscape.evaluation.evaluator import Evaluator
from landscape.krylov.traces import WIDER_QUANTILE
from landscape.loss.objective import Objective
from landscape.loss.weight_scales import scale_of
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result

MIN_PAIRS = 4

FEW_PAIRS = 16
"""What an average looks at first, and with which the search for sigma begins before it takes all draws."""

STEPS = 40
"""Of that search, each by a factor of up to `FARTHEST`, before it ends with nothing found."""

FARTHEST = 5.0


@result
class AverageSharpness:
    """The mean rise of the loss under Gaussian noise on the weights."""

    value: float = described("mean rise of the loss", unit="nat")
    standard_error: float = described("of the value, from the spread of the draws", unit="nat")
    sigma: float = described("standard deviation of the noise")
    adaptive: str = described("what the noise is relative to")
    center_loss: float = described("mean loss of the model itself", unit="nat")
    converged: bool = described("the 95% interval is within two of the tolerances asked for")
    draws: int = described("draws of the noise, half of them the negatives of the others")
    samples: int = described("samples in the mean loss")


@result
class NoiseTolerance:
    """The largest Gaussian noise on the weights that keeps the mean rise of the loss under a given value."""

    sigma: float = described("standard deviation of the noise, the geometric middle of the interval")
    low: float = described(
        "lower end of the 95% interval of sigma, from the spread of the draws; 0 if none was found"
    )
    high: float = described("upper end of the interval; infinite if none was found")
    increase: float = described("rise of the loss", unit="nat")
    adaptive: str = described("what the noise is relative to")
    converged: bool = described("the interval is within the tolerance asked for")
    evaluations: int = described("passes over the data", unit="evaluations")
    samples: int = described("samples in the mean loss")


class NoiseRises:
    """Rises of several losses under the same draws of noise, at any size of it, each evaluated once.

    Draws come as pairs z and -z, which cancel the gradient's part of the spread. The same draws serve all sizes,
    so that the mean rise is a smooth function of the size.

    Args:
        objectives: of one model, as for `surfaces`.
        adaptive: what the noise is relative to.
        seed: of the draws.
        expected: about how many evaluations are to come.

    Attributes:
        center: losses of the model itself, (losses,).
        evaluations: passes over the data so far.
    """

    def __init__(
        self, objectives: Mapping[str, Objective], *, adaptive: str, seed: int, expected: int
    ) -> None:
        self._evaluator = Evaluator(objectives, [], expected=expected)
        self._lead = next(iter(objectives.values()))
        self._scale = scale_of(self._lead, adaptive)
        self._seed = seed
        self._rises: dict[float, FloatArray] = {}
        self.center = self._evaluator.center.loss[0]
        self.evaluations = 0

    def at(self, sigma: float, pairs: int) -> FloatArray:
        """(pairs, losses): the mean rise over each of the first pairs of draws, at least as many as asked for."""
        known = self._rises.get(sigma, np.zeros((0, len(self.center))))
        # as many pairs together as the evaluator takes points
        together = max(1, self._evaluator.block // 2)
        while len(known) < pairs:
            indices = range(len(known), min(len(known) + together, pairs))
            known = np.concatenate([known, self._of_pairs(sigma, indices)])
            self._rises[sigma] = known
        return known[:pairs]

    def _of_pairs(self, sigma: float, indices: range) -> FloatArray:
        theta = self._lead.theta
        noises = []
        for index in indices:
            # each pair by its own seed, so that none needs to be kept
            generator = torch.Generator(theta.device).manual_seed(self._seed + 1_000_003 * index)
            noise = torch.randn(theta.shape, dtype=theta.dtype, device=theta.device, generator=generator)
            noises.append(noise * (sigma * self._scale))
        offsets = torch.stack(noises)
        losses = self._evaluator.at(torch.cat([theta + offsets, theta - offsets])).loss
        self.evaluations += len(losses)
        with np.errstate(invalid="ignore"):
            return np.asarray(losses.reshape(2, len(indices), -1).mean(0) - self.center)


def average_sharpness(
    objective: Objective,
    *,
    sigma: float = 0.01,
    adaptive: str = "none",
    rtol: float = 0.1,
    max_draws: int = 200,
    seed: int = 0,
) -> AverageSharpness:
    """Average-case sharpness E L(theta + sigma T z) - L(theta), z standard normal.

    Sources: Neyshabur et al. 2017; Andriushchenko et al. 2023, equation 2 (adaptive). Cost: an evaluation a draw.

    Args:
        objective: whose loss, in evaluation mode.
        sigma: standard deviation of the noise.
        adaptive: `"none"` (T = 1), `"elementwise"` or `"filter"`, as for `sharpness`.
        rtol: ends when the 95% interval is within +-2 rtol |value|, looked at from 16 pairs of draws on.
        max_draws: budget.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range.
    """
    check_noise(sigma, max_draws)
    if not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")
    rises = NoiseRises({"loss": objective}, adaptive=adaptive, seed=seed, expected=max_draws)
    value, error, pairs, converged = mean_rises(rises, sigma, rtol, max_draws // 2)
    return AverageSharpness(
        value=float(value[0]),
        standard_error=float(error[0]),
        sigma=sigma,
        adaptive=adaptive,
        center_loss=float(rises.center[0]),
        converged=converged,
        draws=2 * pairs,
        samples=objective.n_samples,
    )


def check_noise(sigma: float, max_draws: int) -> None:
    """Checks the arguments of an average over noise.

    Raises:
        ValueError: one out of range.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma: must be positive and finite, got {sigma}")
    if max_draws < 2 * MIN_PAIRS:
        raise ValueError(f"max_draws: must be at least {2 * MIN_PAIRS}, got {max_draws}")


def mean_rises(
    rises: NoiseRises, sigma: float, rtol: float, max_pairs: int
) -> tuple[FloatArray, FloatArray, int, bool]:
    """Means (losses,) and standard errors, the pairs of draws taken, and whether the errors are within rtol.

    They are when a 95% interval, which is Student's, is within +-2 rtol |mean|. It is the wider one, for a look at
    which the draws happen to lie close is where it stops. +-2 standard errors then hold the mean of a quadratic in
    92 to 94% of seeds, but in 86 to 90% where 16 skewed draws suffice (rtol 0.2), or where one eigenvalue gives half
    of the mean and a hundred small ones the rest.
    """
    pairs = min(FEW_PAIRS, max_pairs)
    while True:
        found = rises.at(sigma, pairs)
        with np.errstate(invalid="ignore"):
            value, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(pairs)
        margin = scipy.special.stdtrit(pairs - 1, WIDER_QUANTILE) * error
        converged = bool((margin <= 2 * rtol * np.abs(value)).all())
        if converged or pairs >= max_pairs or not np.isfinite(value).all():
            return value, error, pairs, converged
        pairs = min(2 * pairs, max_pairs)


def pac_bayes_sigma(
    objective: Objective,
    *,
    increase: float = 0.1,
    adaptive: str = "none",
    rtol: float = 0.05,
    max_draws: int = 200,
    seed: int = 0,
) -> NoiseTolerance:
    """The sigma with E L(theta + sigma T z) - L(theta) = increase, and a 95% interval of it.

    At each sigma the same draws give an interval for the mean rise; sigma's interval is where that holds `increase`.
    The interval of the mean is taken of its logarithm: rises are skewed like squares, and unluckily small ones have a
    small spread too. On quadratics it held the truth in 93 to 97% of seeds from 16 pairs of draws on, whatever the
    eigenvalues (with one of them alone the plain interval held 88 to 94%); from 4 pairs in 89 to 97%.

    Sources: Neyshabur et al. 2017; Jiang et al. 2020, section C.5 (sigma by search; theirs bounds the accuracy). Cost:
    all draws at 5 to 8 sizes of noise, a few at some more; an evaluation a draw.

    Args:
        objective: whose loss, in evaluation mode.
        increase: rise of the mean loss that is borne.
        adaptive: `"none"` (T = 1), `"elementwise"` (Jiang et al.'s magnitude-aware sigma) or `"filter"`.
        rtol: `converged` is whether the interval's ends differ by less, relative to the lower one; they are found to a
            tenth of it.
        max_draws: at each sigma.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range.
    """
    check_tolerance(increase, rtol, max_draws)
    rises = NoiseRises({"loss": objective}, adaptive=adaptive, seed=seed, expected=10 * max_draws)
    low, high = tolerated(rises, 0, increase, rtol, max_draws // 2, first_sigma(objective, adaptive))
    return NoiseTolerance(
        increase=increase,
        adaptive=adaptive,
        evaluations=rises.evaluations,
        samples=objective.n_samples,
        **bracket(low, high, rtol),
    )


def check_tolerance(increase: float, rtol: float, max_draws: int) -> None:
    """Checks the arguments of a search for sigma.

    Raises:
        ValueError: one out of range.
    """
    if not 0 < increase < math.inf:
        raise ValueError(f"increase: must be positive and finite, got {increase}")
    if not rtol > 0:
        raise ValueError(f"rtol: must be positive, got {rtol}")
    check_noise(1.0, max_draws)


def first_sigma(objective: Objective, adaptive: str) -> float:
    """Where the search begins: a tenth of a weight's size."""
    if adaptive != "none":
        return 0.1
    size = objective.theta.double().square().mean().sqrt().item()
    # a power of two, so that losses whose searches meet share their evaluations
    return float(2.0 ** round(math.log2(0.1 * size))) if 0 < size < math.inf else 0.1


def tolerated(
    rises: NoiseRises, column: int, increase: float, rtol: float, max_pairs: int, start: float
) -> tuple[float, float]:
    """The 95% interval of the sigma at which the mean rise of one loss passes `increase`.

    0 or inf: not found; NaN: the loss of the model itself is not finite.
    """
    if not np.isfinite(rises.center[column]):
        # from a loss that is no number nothing rises
        return math.nan, math.nan
    quantile = float(scipy.special.stdtrit(max_pairs - 1, WIDER_QUANTILE))

    def excess(sigma: float, pairs: int, side: float) -> float:
        return _excess(rises.at(sigma, pairs)[:, column], increase, side * quantile)

    low, high = _crossing(lambda sigma: excess(sigma, min(FEW_PAIRS, max_pairs), 0), start, 0.2)
    if low == 0 or high == math.inf:
        return low, high
    near = math.sqrt(low * high)
    # the upper limit of the mean passes it first
    low, _ = _crossing(lambda sigma: excess(sigma, max_pairs, 1), near, rtol / 10)
    _, high = _crossing(lambda sigma: excess(sigma, max_pairs, -1), near, rtol / 10)
    return low, high


def _excess(found: FloatArray, increase: float, errors: float) -> float:
    """log of (mean rise, so many standard errors away in its logarithm) over `increase`, within what one step asks."""
    most = 2 * math.log(FARTHEST)
    if not np.isfinite(found).all():
        return most
    mean, margin = found.mean(), errors * found.std(ddof=1) / math.sqrt(len(found))
    # without a logarithm the plain interval; below `increase` if only its end is
    if mean <= 0:
        return -most if mean + margin < increase else most
    return float(np.clip(math.log(mean / increase) + margin / mean, -most, most))


def _crossing(excess: Callable[[float], float], start: float, tolerance: float) -> tuple[float, float]:
    """The sizes between which the excess passes 0, a tolerance of their logarithm about it; 0 or inf if it does not."""
    below, above = 0.0, math.inf
    sigma = start
    for _ in range(STEPS):
        size = excess(sigma)
        below, above = (max(below, sigma), above) if size <= 0 else (below, min(above, sigma))
        if below > 0 and above < math.inf:
            root = math.exp(
                scipy.optimize.brentq(
                    lambda x: excess(math.exp(x)), math.log(below), math.log(above), xtol=tolerance
                )
            )
            return root * math.exp(-tolerance), root * math.exp(tolerance)
        # where a quadratic passes, and a little beyond
        sigma *= math.exp(-size / 2 - math.copysign(tolerance, size))
    return below, above


def bracket(low: float, high: float, rtol: float) -> dict[str, Any]:
    """An interval as fields: its geometric middle, its ends, and whether they are near enough."""
    known = low > 0 and high < math.inf
    return {
        "sigma": math.sqrt(low * high) if known else (high if low == 0 else low),
        "low": low,
        "high": high,
        "converged": known and high <= (1 + rtol) * low,
    }
