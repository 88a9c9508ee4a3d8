"""The noise of stochastic gradients: the spread of the samples' gradients around their mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.data.batches import samples_in
from landscape.data.counts import Counting, check_that_it_is_a_mean
from landscape.data.samples import Chunk, Cut
from landscape.loss.objective import Objective
from landscape.loss.wrapped import of_objective
from landscape.model.precision import full_float32
from landscape.progress import Progress, counted
from landscape.results.fields import described
from landscape.results.registry import result
from landscape.results.shown import Result
from landscape.seeds import generator_for


@result
class GradientNoise(Result):
    """The trace of the covariance of the samples' gradients."""

    value: float = described("trace of the covariance of single samples' gradients")
    standard_error: float = described("standard error of the value, from its spread over the pieces")
    gradient_norm: float = described("norm of the mean gradient")
    noise_scale: float = described(
        "the value by the squared norm of the true gradient (simple noise scale): the batch size at which noise and "
        "gradient are of one size; NaN where the gradient cannot be told from noise",
        unit="samples",
    )
    pieces: int = described("pieces of the data whose gradients were compared")
    samples: int = described("samples in the mean loss")


@of_objective
@full_float32()
def gradient_noise(
    objective: Objective, *, pieces: int = 32, seed: int = 0, progress: Progress | bool | None = None
) -> GradientNoise:
    """The trace of the covariance of the samples' gradients, from the gradients of pieces of the data.

    The covariance of the mean gradient of n samples is 1 / n of that of one sample. Let g_b be the gradients of B
    pieces of n_b samples, and g the gradient of all samples. Then the sum of n_b ||g_b - g||^2 / (B - 1) is unbiased,
    for pieces of any size. If samples have weights, such as those of classes, let a piece's be W_b in all, and w the
    mean over all samples. The mean gradient is then a ratio of sums, and to first order (Cochran 1977, section 6.4) the
    covariance is the sum of (W_b / w)^2 ||g_b - g||^2 / n_b / (B - 1). The noise scale is that of McCandlish et al.
    2018 (arXiv:1812.06162, section 2.2). It divides by an unbiased estimate of the true gradient's squared norm:
    ||g||^2 minus its noise. The regularizer is left out of noise and gradient. The cost is two gradients.

    Samples in memory are cut in random order, because data are often sorted by class. A stream is cut in its own order,
    and should be a random draw.

    Args:
        objective: its loss is measured.
        pieces: about this number of pieces of the data, at least 2. With one piece for each sample, the value is that
            of the samples themselves.
        seed: seed of the random order.
        progress: called with the gradients of pieces that are done, and about how many there will be. True writes a
            line on the terminal.

    Raises:
        ValueError: fewer than 2 pieces, data that cannot be cut into 2, or a loss that is a sum.
    """
    if pieces < 2:
        raise ValueError(f"pieces: must be at least 2, got {pieces}")
    check_that_it_is_a_mean(objective.counting)
    objective.memory.check_room(3, "gradient_noise", in_float64=True)
    parts = objective
    if objective.chunks.is_uniform:
        generator = generator_for("pieces of the data", seed)
        parts = objective.subset(
            samples=torch.randperm(objective.chunks.samples, generator=generator, device="cpu")
        )
    cut = Cut(objective.counting, max(1, objective.chunks.samples // pieces), objective.device)
    mean = torch.zeros(objective.n_parameters, dtype=torch.float64, device=objective.device)
    # the sum of the parts' W^2 ||g_b - g||^2 / n_b, of its squares, of the parts, and of their samples
    sums = torch.zeros(4, dtype=torch.float64, device=objective.device)
    with counted(2 * pieces, progress, "gradient noise", "gradients of pieces") as spend:
        with objective.ranks.together():
            objective.check_that_derivatives_exist()
            for part in _parts(parts, cut):
                mean += _gradient(objective, part) * part.weight
                spend(1)
        mean = objective.ranks.over_samples(mean) / objective.weight
        with objective.ranks.together():
            for part in _parts(parts, cut):
                count = _counted_samples(objective.counting, part)
                squared = (_gradient(objective, part) - mean).square().sum()
                # by one factor after the other: the sum of weights squared may be large
                spread = squared * part.weight * (part.weight / count)
                samples = torch.full_like(spread, count)
                sums += torch.stack([spread, spread.square(), torch.ones_like(spread), samples])
                spend(1)
    objective.gradients += 2
    total, squares, parts_that_count, samples_that_count = objective.ranks.over_samples(sums).tolist()
    if parts_that_count < 2:
        raise ValueError("data: the noise needs 2 pieces with samples that count; these data are one")
    # a loss may count a sample as any number, such as its class weight or the number of its targets
    a_sample = objective.weight / samples_that_count
    value = total / (parts_that_count - 1) / a_sample**2
    mean_square = (total / parts_that_count) ** 2
    variance = max(squares / parts_that_count - mean_square, 0.0) if math.isfinite(squares) else math.nan
    error = math.sqrt(variance / parts_that_count) * parts_that_count / (parts_that_count - 1)
    norm_squared = mean.square().sum().item()
    true_squared = norm_squared - value / samples_that_count
    return GradientNoise(
        value=value,
        standard_error=error / a_sample**2,
        gradient_norm=math.sqrt(norm_squared),
        noise_scale=value / true_squared if true_squared > 0 else math.nan,
        pieces=int(parts_that_count),
        samples=objective.n_samples,
    )


def _parts(objective: Objective, cut: Cut) -> Iterator[Chunk]:
    return (part for chunk in objective.chunks for part in cut(chunk.pair) if part.weight)


def _counted_samples(counting: Counting, part: Chunk) -> int:
    """Samples of a part that have a weight in the mean loss; a batch that cannot be cut is one."""
    return 1 if samples_in(part.pair) is None else int((counting.of_samples(part.pair) > 0).sum())


def _gradient(objective: Objective, part: Chunk) -> Tensor:
    """The gradient (n,) of the mean loss of one part of the data, in float64."""
    with objective.exclusive, torch.enable_grad():
        return objective.loss_and_gradient(objective.theta, *part.read())[1].double()
