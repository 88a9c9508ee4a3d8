"""Average-case sharpness: the mean rise of the loss under Gaussian perturbations of the weights."""

from __future__ import annotations

from landscape.checks import check_rtol
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.perturbations.gaussian import GaussianRises, check_draws, check_sigma, mean_rises
from landscape.perturbations.largest_size import check_size
from landscape.progress import Progress, counted
from landscape.results.fields import LOSS_UNIT, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import Result


@result
class AverageSharpness(Result):
    """The mean rise of the loss under Gaussian noise on the weights."""

    value: float = described("mean rise of the loss", unit=LOSS_UNIT)
    standard_error: float = described(
        "of the value, from the spread of the draws and the rounding of the losses", unit=LOSS_UNIT
    )
    sigma: float = described("standard deviation of the noise")
    adaptive: str = described("what the noise is relative to")
    center_loss: float = described("mean loss of the model itself", unit=LOSS_UNIT)
    converged: bool = described("the 95% interval is within two of the tolerances asked for")
    draws: int = described("draws of the noise, half of them the negatives of the others")
    samples: int = described("samples in the mean loss")
    loss_unit: str = loss_unit_field()


@of_objective
def average_sharpness(
    objective: Objective,
    *,
    sigma: float = 0.01,
    adaptive: str = "none",
    rtol: float = 0.1,
    max_draws: int = 200,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> AverageSharpness:
    """Average-case sharpness E L(theta + sigma T z) - L(theta) with z standard normal.

    Sources: Neyshabur et al. 2017; Andriushchenko et al. 2023, equation 2 (adaptive). Each draw costs one evaluation.

    Args:
        objective: its loss is measured, in evaluation mode.
        sigma: standard deviation of the noise.
        adaptive: `"none"` (T = 1), `"elementwise"` or `"filter"`, as for `sharpness`.
        rtol: sampling ends when the 95% interval is within +-2 rtol |value|. The interval is first looked at after 16
            pairs of draws.
        max_draws: largest number of draws.
        seed: seed of the draws.
        progress: called with the draws spent and the most that may be spent. True writes a line on the terminal.

    Raises:
        ValueError: an argument is out of range.
    """
    check_sigma(sigma)
    check_draws(max_draws)
    check_size("sigma", sigma, objective.dtype, is_squared=False)
    check_rtol(rtol)
    with counted(max_draws, progress, "average sharpness", "draws") as spend:
        rises = GaussianRises(
            {"loss": objective}, adaptive=adaptive, seed=seed, expected=max_draws, spend=spend
        )
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
        loss_unit=unit_of(objective.loss_fn),
    )
