"""The result of `sample_curvature`, and its means over groups of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landscape.results.fields import LOSS_UNIT, FloatArray, described, loss_unit_field
from landscape.results.registry import result
from landscape.results.shown import DrawnResult

ERROR = "_error"
SAMPLE = ("sample",)

MEASURES = (
    "gradient_norm",
    "gradient_cosine",
    "gauss_newton_trace",
    "fisher_trace",
    "hessian_trace",
    "input_trace",
    "input_curvature",
)
"""Names of all measures."""


def _standard_error_of_trace() -> FloatArray | None:
    field: FloatArray | None = described(
        "standard error of the trace, over probes; 0 where exact", dims=SAMPLE, default=None
    )
    return field


@result
class SampleCurvature(DrawnResult):
    """Loss, gradient and curvature of every sample, in the order in which the data are read.

    A measure is None if it was not asked for or is not defined. A sample is NaN if its loss is no number or it has no
    weight.
    """

    loss: FloatArray = described("loss of each sample", unit=LOSS_UNIT, dims=SAMPLE)
    probes: int = described("random probes of each estimate")
    products: int = described("gradients and products with Hessians spent on every sample", unit="products")
    samples: int = described("samples measured")
    target: NDArray[np.int64] | None = described(
        "class that each sample is labeled with, where targets are classes", dims=SAMPLE, default=None
    )
    gradient_norm: FloatArray | None = described(
        "norm of the gradient of each sample's loss in the weights", dims=SAMPLE, default=None
    )
    gradient_cosine: FloatArray | None = described(
        "cosine between a sample's gradient and the mean gradient, its own included: negative in conflict",
        dims=SAMPLE,
        default=None,
    )
    gauss_newton_trace: FloatArray | None = described(
        "trace of the Gauss-Newton matrix", dims=SAMPLE, default=None
    )
    gauss_newton_trace_error: FloatArray | None = _standard_error_of_trace()
    fisher_trace: FloatArray | None = described(
        "trace of the Fisher matrix, whose labels are drawn from the softmax of the outputs",
        dims=SAMPLE,
        default=None,
    )
    fisher_trace_error: FloatArray | None = _standard_error_of_trace()
    hessian_trace: FloatArray | None = described(
        "trace of the Hessian of each sample's loss in the weights", dims=SAMPLE, default=None
    )
    hessian_trace_error: FloatArray | None = _standard_error_of_trace()
    input_trace: FloatArray | None = described(
        "trace of the Hessian of each sample's loss in the input", dims=SAMPLE, default=None
    )
    input_trace_error: FloatArray | None = _standard_error_of_trace()
    input_curvature: FloatArray | None = described(
        "trace of the squared Hessian in the input (Garg and Roy 2023)", dims=SAMPLE, default=None
    )
    input_curvature_error: FloatArray | None = _standard_error_of_trace()
    loss_unit: str = loss_unit_field()

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures that were taken."""
        return tuple(name for name in MEASURES if getattr(self, name) is not None)

    def by_class(self) -> GroupCurvature:
        """Means over the samples of each class.

        Raises:
            ValueError: targets are no classes.
        """
        if self.target is None:
            raise ValueError(
                "by_class: the targets are no classes; use by(groups) with a group for each sample"
            )
        return self.by(self.target)

    def by(self, groups: ArrayLike) -> GroupCurvature:
        """Means over groups of samples, each with its numerical and its sampling error.

        Args:
            groups: (samples,), a number or a name for each sample, such as whether its label is wrong. The samples of
                NaN are the group `nan`.

        Raises:
            ValueError: the numbers of groups and of samples differ.
        """
        names = np.asarray(groups)
        if names.shape != (self.samples,):
            raise ValueError(f"groups: must be ({self.samples},), one a sample, got {names.shape}")
        # NaN is equal to no number, but its samples are a group too
        known, places = np.unique(names, return_inverse=True)
        places = places.reshape(names.shape)
        means = [
            [self._mean(name, places == place) for name in ("loss", *self.measures)]
            for place in range(len(known))
        ]
        table = np.array(means, dtype=np.float64).reshape(len(known), -1, 4)
        return GroupCurvature(
            group=known.astype(str),
            measure=np.array(["loss", *self.measures]),
            mean=table[..., 0],
            probe_error=table[..., 1],
            sampling_error=table[..., 2],
            counted=table[..., 3].astype(np.int64),
            size=np.bincount(places, minlength=len(known)).astype(np.int64),
        )

    def _mean(self, name: str, members: NDArray[np.bool_]) -> tuple[float, float, float, int]:
        """Mean, standard error over probes, standard error over samples, and the number of samples in the mean."""
        values = getattr(self, name)[members]
        is_number = np.isfinite(values)
        count = int(is_number.sum())
        if count == 0:
            return np.nan, np.nan, np.nan, 0
        errors = getattr(self, name + ERROR, None)
        # the probes of different samples are independent
        of_probes = 0.0 if errors is None else np.sqrt(np.square(errors[members][is_number]).sum()) / count
        of_samples = values[is_number].std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return values[is_number].mean(), of_probes, of_samples, count


@result
class GroupCurvature(DrawnResult):
    """Means of per-sample measures over groups of samples. Samples without a number are left out, and counted."""

    group: NDArray[np.str_] = described("names of the groups", dims=("group",), coordinate=True)
    measure: NDArray[np.str_] = described("names of the measures", dims=("measure",), coordinate=True)
    mean: FloatArray = described("mean over the samples of the group", dims=("group", "measure"))
    probe_error: FloatArray = described(
        "standard error of the mean, over probes; 0 where exact", dims=("group", "measure")
    )
    sampling_error: FloatArray = described(
        "standard error of the mean, over samples, the noise of their probes included (do not add probe_error)",
        dims=("group", "measure"),
    )
    counted: NDArray[np.int64] = described(
        "samples whose measure is a number", unit="samples", dims=("group", "measure")
    )
    size: NDArray[np.int64] = described("samples of the group", unit="samples", dims=("group",))
