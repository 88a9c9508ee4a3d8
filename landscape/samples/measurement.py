"""sample_curvature(): gradient and curvature of the loss of every sample, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.data.batches import copied_to, rows_of, samples_in
from landscape.data.class_scores import are_class_scores
from landscape.data.complex_numbers import is_whole
from landscape.data.counts import Pair
from landscape.fx.plain_formulas import twice_differentiable
from landscape.loss.objective import Objective
from landscape.loss.units import unit_of
from landscape.loss.wrapped import of_objective
from landscape.matrices.hessian import Hessian
from landscape.matrices.second_derivatives import check_second_derivatives
from landscape.model.precision import full_float32
from landscape.progress import Progress, as_progress
from landscape.samples.one_sample import OneSample
from landscape.samples.probes import Probes
from landscape.samples.result import MEASURES, SampleCurvature
from landscape.samples.vectorized import Vectorized

MOST_ROWS = 64
"""Number of samples that are vectorized together. More samples are no faster."""

OF_OUTPUTS = ("gauss_newton_trace", "fisher_trace")
OF_INPUTS = ("input_trace", "input_curvature")

Columns = dict[str, Tensor]
"""Field of `SampleCurvature` -> its values for some samples, (samples,)."""


@of_objective
def sample_curvature(
    objective: Objective,
    *,
    measures: Sequence[str] | None = None,
    probes: int = 4,
    exact_up_to: int = 64,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> SampleCurvature:
    """Gradient and curvature of the loss of every sample, at the objective's weights, in evaluation mode.

    The loss of a sample is that of a batch of one. With J the Jacobian of its outputs in the weights:

    - `gradient_norm`: the norm of the sample's gradient.
    - `gradient_cosine`: the cosine between the sample's gradient and the mean gradient of all samples that have a
      number, itself included. So n orthogonal gradients of one length have cosines of 1/sqrt(n). A gradient of zeros
      has no cosine (NaN).
    - `gauss_newton_trace`, `fisher_trace`: the traces of J^T M J, where M is the Hessian of the loss in the outputs, or
      the covariance of labels drawn from the softmax of the outputs. For cross-entropy the two are equal. (The trace of
      the empirical Fisher matrix is the squared gradient norm.)
    - `hessian_trace`: the trace of the Hessian in the weights. If the Gauss-Newton trace is exact, only the rest, the
      functional Hessian, is estimated.
    - `input_trace`, `input_curvature`: the traces of H and of H^2, where H is the Hessian in the input. The latter is
      the curvature of Garg and Roy 2023 (arXiv:2307.05831), with exact products in place of their finite differences.

    Traces are estimated by Hutchinson's random signs, which are drawn anew for each sample. In spaces of at most
    `probes` dimensions traces are exact. The regularizer is no part of any measure, because no sample enters it.

    Args:
        objective: of data whose batches can be cut into samples, and that are read in one order, not shuffled.
        measures: names, some of `landscape.samples.MEASURES`; all that are defined if not given.
        probes: number of random signs of each estimate, at least 2. Each costs a product. With few of them a single
            sample's error may be several times too small; the root mean square of the errors is right.
        exact_up_to: Gauss-Newton and Fisher traces are exact, at the cost of a gradient an output, if a sample has at
            most this number of outputs and its Jacobian fits into the memory budget. Else they are estimated.
        seed: seed of the probes.
        progress: called with the samples done and the samples in all. True writes a line on the terminal.

    Raises:
        ValueError: an unknown measure, or one that is not defined for this objective; batches that cannot be cut;
            shuffled data; too few probes; derivatives that torch cannot compute.
    """
    if probes < 2:
        raise ValueError(f"probes: must be at least 2, got {probes}")
    if objective.is_shuffled:
        raise ValueError(
            "data: are shuffled, so that no row belongs to a known sample; make the DataLoader with shuffle=False"
        )
    with objective.ranks.together():
        _check_that_it_can_be_cut(objective.chunks.first(1))
    chosen = _chosen(objective, measures)
    report = as_progress(progress, "samples")
    with _derivatives_of(objective):
        if any(name not in ("gradient_norm", "gradient_cosine") for name in chosen):
            with objective.ranks.together():
                check_second_derivatives(Hessian, objective)
        work = _Measurement(objective, chosen, exact_up_to, probes, seed)
        direction = work.mean_gradient() if "gradient_cosine" in chosen else torch.ones_like(objective.theta)
        found: list[Columns] = []
        done = 0
        for pair, weights in work.pieces():
            found.append(work.columns(pair, weights, direction))
            done += len(weights)
            report(done, objective.chunks.samples)
    return SampleCurvature(
        probes=probes,
        products=work.products,
        samples=done,
        loss_unit=unit_of(objective.loss_fn),
        **{name: torch.cat([piece[name] for piece in found]).detach().cpu().numpy() for name in found[0]},
    )


@dataclass
class _Measurement:
    """The measures of an objective, and the way in which they are taken.

    Attributes:
        products: gradients and products that are spent on a sample.
    """

    objective: Objective
    chosen: tuple[str, ...]
    exact_up_to: int
    count: int
    seed: int
    products: int = 0

    def __post_init__(self) -> None:
        self._one = OneSample.of(self.objective)
        self._each = Vectorized()
        theta = self.objective.theta
        # a seed for each space, so that one more measure leaves the numbers of the others unchanged
        self._of_outputs, self._of_weights, self._of_inputs = (
            Probes(self.count, theta, 3 * self.seed + space) for space in range(3)
        )

    def pieces(self) -> Iterator[tuple[Pair, Tensor]]:
        """A few samples at a time, on the device, with their weights."""
        for chunk in self.objective.chunks:
            _check_that_it_can_be_cut(chunk.pair)
            weights = self.objective.counting.of_samples(chunk.pair)
            pair = chunk.read()
            rows = self._rows_at_once(pair)
            for start in range(0, chunk.samples, rows):
                part = slice(start, start + rows)
                yield rows_of(pair, part), weights[part].to(self.objective.device)

    def mean_gradient(self) -> Tensor:
        """The weighted mean gradient (n,) of the samples whose gradient is a number."""
        total = torch.zeros_like(self.objective.theta, dtype=torch.float64)
        with self.objective.ranks.together():
            for pair, weights in self.pieces():
                (gradients,) = self._each(lambda sample: (self._one.gradient(sample),), pair)
                counts = (weights > 0) & gradients.isfinite().all(1)
                total += (weights[counts, None] * gradients[counts]).sum(0)
        self.products += 1
        return self.objective.ranks.over_samples(total).to(self.objective.dtype)

    def columns(self, pair: Pair, weights: Tensor, mean_gradient: Tensor) -> Columns:
        """The measures of some samples."""
        spent = 1 if "gradient_cosine" in self.chosen else 0
        outputs = self._outputs(pair)
        is_exact = self._is_exact(outputs)
        columns = self._first_order(pair, mean_gradient, is_exact)
        spent += outputs if is_exact else 1
        if not is_exact and any(name in self.chosen for name in OF_OUTPUTS):
            columns |= self._of_output_probes(pair, outputs)
            spent += 3 * min(self.count, outputs)
        if "hessian_trace" in self.chosen:
            columns |= self._of_weight_probes(pair, columns["gauss_newton_trace"] if is_exact else None)
            spent += min(self.count, self.objective.n_parameters)
        if any(name in self.chosen for name in OF_INPUTS):
            columns |= self._of_input_probes(pair)
            spent += min(self.count, pair[0][0].numel())
        self.products = max(self.products, spent)
        wanted = {"loss", *self.chosen, *(f"{name}_error" for name in self.chosen)}
        undefined = torch.tensor(torch.nan, dtype=torch.float64, device=weights.device)
        kept = {
            name: torch.where(weights > 0, values.double(), undefined)
            for name, values in columns.items()
            if name in wanted
        }
        return kept | _classes(pair)

    def _outputs(self, pair: Pair) -> int:
        return len(self._one.outputs(rows_of(pair, slice(0, 1))))

    def _is_exact(self, outputs: int) -> bool:
        """Whether the Gauss-Newton trace of a sample with this number of outputs is measured, and exact."""
        wanted = any(name in self.chosen for name in (*OF_OUTPUTS, "hessian_trace"))
        fits = outputs <= self.exact_up_to and self._bytes(outputs) <= self.objective.memory_budget
        return wanted and self.objective.has_outputs and fits

    def _bytes(self, outputs: int) -> int:
        """The bytes of a sample's Jacobian, and of the vectors and products that are computed from it."""
        return (2 * outputs + 3) * self.objective.theta.nbytes

    def _rows_at_once(self, pair: Pair) -> int:
        outputs = self._outputs(pair)
        most = self.objective.memory_budget // self._bytes(outputs if self._is_exact(outputs) else 1)
        return max(1, min(MOST_ROWS, self.objective.chunk_size, most))

    def _first_order(self, pair: Pair, mean_gradient: Tensor, is_exact: bool) -> Columns:
        one = self._one
        names = ("loss", "gradient_norm", "gradient_cosine", *OF_OUTPUTS)
        rule = one.of_all_outputs if is_exact else one.first_order
        values = self._each(lambda sample: rule(sample, mean_gradient), pair)
        columns = dict(zip(names, values, strict=False))
        for name in OF_OUTPUTS:
            if name in columns:
                columns[f"{name}_error"] = torch.where(columns[name].isfinite(), 0.0, torch.nan)
        return columns

    def _of_output_probes(self, pair: Pair, outputs: int) -> Columns:
        directions = self._of_outputs.directions(_count(pair), outputs)
        values = [self._each(self._one.of_output_probe, pair, signs) for signs in directions]
        return _estimates(OF_OUTPUTS, values, self._of_outputs, outputs)

    def _of_weight_probes(self, pair: Pair, gauss_newton: Tensor | None) -> Columns:
        dimension = self.objective.n_parameters
        directions = self._of_weights.directions(_count(pair), dimension)
        rule = self._one.of_weight_probe if gauss_newton is None else self._one.of_functional_probe
        values = [self._each(rule, pair, signs) for signs in directions]
        columns = _estimates(("hessian_trace",), values, self._of_weights, dimension)
        if gauss_newton is not None:
            columns["hessian_trace"] += gauss_newton
        return columns

    def _of_input_probes(self, pair: Pair) -> Columns:
        inputs: Tensor = pair[0]
        dimension = inputs[0].numel()
        directions = self._of_inputs.directions(len(inputs), dimension)
        values = [
            self._each(self._one.of_input_probe, pair, signs.to(inputs).reshape(inputs.shape))
            for signs in directions
        ]
        return _estimates(OF_INPUTS, values, self._of_inputs, dimension)


def _estimates(
    names: Sequence[str], values: Sequence[tuple[Tensor, ...]], probes: Probes, dimension: int
) -> Columns:
    """Means and standard errors of several measures, from the values of each probe."""
    columns: Columns = {}
    for name, of_probes in zip(names, zip(*values, strict=True), strict=True):
        columns[name], columns[f"{name}_error"] = probes.estimate(torch.stack(of_probes), dimension)
    return columns


def _count(pair: Pair) -> int:
    samples = samples_in(pair)
    assert samples is not None
    return samples


def _classes(pair: Pair) -> Columns:
    targets = pair[1]
    is_class = isinstance(targets, Tensor) and targets.ndim == 1 and is_whole(targets)
    return {"target": targets.long()} if is_class else {}


def _check_that_it_can_be_cut(batch: Pair) -> None:
    if samples_in(batch) is None:
        raise ValueError(
            "objective: has batches that cannot be cut into samples, so that no sample has a loss of its own; give "
            "batches whose tensors share their first size"
        )


def _chosen(objective: Objective, measures: Sequence[str] | None) -> tuple[str, ...]:
    """The measures of these names, all of which must be defined; for None all measures that are defined."""
    undefined = _undefined(objective)
    if measures is None:
        return tuple(name for name in MEASURES if name not in undefined)
    for name in measures:
        if name not in MEASURES:
            raise ValueError(f"measures: must be among {', '.join(MEASURES)}, got {name!r}")
        if name in undefined:
            raise ValueError(f"measures: {name} is not defined here: {undefined[name]}")
    return tuple(measures)


def _undefined(objective: Objective) -> dict[str, str]:
    """Measure -> why the objective has none."""
    inputs, targets = copied_to(objective.chunks.first(1), objective.device)
    reasons: dict[str, str] = {}
    with objective.without_gradients():
        outputs = objective.outputs(objective.theta, inputs)
    if not objective.has_outputs:
        reasons["gauss_newton_trace"] = (
            "it needs outputs and a loss of these, which Objective.of_loss has not"
        )
    if not are_class_scores(outputs, targets):
        reasons["fisher_trace"] = "it needs outputs (samples, classes) and classes as targets"
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        reasons |= dict.fromkeys(OF_INPUTS, "it needs inputs that are one tensor of floating-point numbers")
    return reasons


@contextmanager
def _derivatives_of(objective: Objective) -> Iterator[None]:
    objective.check_that_derivatives_exist()
    with objective.exclusive, full_float32(), torch.enable_grad(), twice_differentiable():
        yield
