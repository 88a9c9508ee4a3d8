"""The result class of sampling errors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape.checks import check_rtol
from landscape.krylov.stopping import QUANTILE, student
from landscape.results.fields import FloatArray, described
from landscape.results.registry import result
from landscape.results.shown import DrawnResult
from landscape.sampling_errors.units import Units


@result
class SamplingError(DrawnResult):
    """The spread of measured quantities over draws of the samples from the same source, at the same weights."""

    quantity: NDArray[np.str_] = described("what was measured", dims=("quantity",), coordinate=True)
    values: FloatArray = described("as measured", dims=("quantity",))
    standard_errors: FloatArray = described("of the values, over draws of the samples", dims=("quantity",))
    biases: FloatArray = described(
        "by how much the mean over draws exceeds the quantity of all samples of the source; at least by so much where "
        "an interval is infinite",
        dims=("quantity",),
    )
    low: FloatArray = described(
        "lower ends of 95% intervals, the biases taken off, numerical errors included; infinite for an eigenvalue that "
        "meets others on some draws",
        dims=("quantity",),
    )
    high: FloatArray = described(
        "upper ends of 95% intervals, the biases taken off, numerical errors included", dims=("quantity",)
    )
    units: int = described("groups of samples, or batches, that the errors are the spread over")
    samples: int = described("samples measured")
    drawn: float = described("share of a finite population that was measured; 0 for an unbounded one")
    products: int = described("matrix-vector products spent", unit="products")

    def samples_for(self, rtol: float) -> FloatArray:
        """The number of samples of the source at which each standard error is `rtol` times the value.

        The number is infinite for a value of 0, and as uncertain as the squared standard error. Biases fall faster, as
        1 / samples.

        Raises:
            ValueError: rtol is not positive, or the whole population was measured, so that there is no sampling error.
        """
        check_rtol(rtol)
        if self.drawn == 1:
            raise ValueError("samples_for: the whole population was measured, which leaves no sampling error")
        # the variance is a constant times 1 / samples - 1 / N for samples of a population of N
        constant = self.standard_errors**2 * self.samples / (1 - self.drawn)
        wanted = (rtol * self.values) ** 2 + constant * self.drawn / self.samples
        return np.ceil(np.divide(constant, wanted, out=np.full_like(wanted, np.inf), where=wanted > 0))


def error_of(
    units: Units,
    quantity: list[str],
    values: Tensor,
    variances: Tensor,
    *,
    biases: Tensor | None = None,
    numerical: Tensor | None = None,
    open_ends: Tensor | None = None,
    products: int = 0,
) -> SamplingError:
    """The sampling error of values (k,) with Student's intervals.

    Args:
        units: the units over whose spread the variances are.
        quantity: names of the values.
        values: as measured.
        variances: of the values, over draws of the samples.
        biases: of the values; 0 if not given.
        numerical: standard errors of the values as numbers of these samples; 0 if not given.
        open_ends: (2, k), whether the lower and the upper end of each interval is infinite; none if not given.
        products: products that were spent.
    """
    biases = 0 * values if biases is None else biases
    spread = variances if numerical is None else variances + numerical.square()
    margins = student(QUANTILE, units.count) * spread.sqrt()
    centers = values - biases
    low, high = centers - margins, centers + margins
    if open_ends is not None:
        low, high = low.masked_fill(open_ends[0], -math.inf), high.masked_fill(open_ends[1], math.inf)
    return SamplingError(
        quantity=np.array(quantity),
        values=values.numpy(),
        standard_errors=variances.sqrt().numpy(),
        biases=biases.numpy(),
        low=low.numpy(),
        high=high.numpy(),
        units=units.count,
        samples=units.objective.n_samples,
        drawn=units.drawn,
        products=products,
    )
