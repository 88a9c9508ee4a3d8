"""Checks that the loss of some samples is the counted mean of the losses of single samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.data.complex_numbers import is_whole
from landscape.data.counts import Counting
from landscape.guards.loss_failures import SHARED, broadcasts, remedy_of_sum

RANDOM_LOSS = (
    "loss_fn: the loss of the same outputs depends on random numbers that it draws, and so would every number; take "
    "noise and Dropout out of the loss, or draw once, before the loss is made"
)
MOST_CLASSES = 1000
"""Most classes that are checked. Each takes three losses of one or two samples; all take some tenths of a second."""


def check_that_loss_is_a_mean(
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    counting: Counting,
    outputs: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
) -> None:
    """Checks that the loss of these samples is the counted mean of their losses, to the rounding of `dtype`.

    Raises:
        ValueError: the loss is no counted mean.
    """
    together = loss_fn(outputs, targets.clone())
    rows = [(outputs[i : i + 1], targets[i : i + 1].clone()) for i in range(len(outputs))]
    if counting.of_batch is None:
        weights = counting.of_samples((outputs, targets)).to(outputs.device)
    else:
        each = [counting.of_batch(row) for row in rows]
        weights = torch.tensor(each, dtype=torch.float64, device=outputs.device)
    counted = weights > 0
    if not counted.any():
        return
    apart = torch.stack([loss_fn(*row) for row, counts in zip(rows, counted, strict=True) if counts])
    mean = (apart.double() @ weights[counted]) / counting.whole(float(weights.sum()))
    # a loss in half precision is rounded once, because its sums are computed in float32
    rounding = max(torch.finfo(dtype).eps, torch.finfo(together.dtype).eps)
    tolerance = (8 if rounding > 1e-4 else 100) * rounding * apart.abs().max()
    undefined = torch.isfinite(outputs).all() and torch.isfinite(together) and not torch.isfinite(mean)
    if undefined or (torch.isfinite(mean) and (together - mean).abs() > tolerance):
        column = broadcasts(outputs, targets)
        if column and not _is_mean_of(loss_fn, outputs, targets.view_as(outputs).to(outputs)):
            # a loss that compares samples is no mean with such targets either
            column = None
        total = remedy_of_sum(together.item(), apart.sum().item(), float(tolerance / apart.abs().max()))
        remedy = f"{column}; else give" if column else f"{total}give"
        raise ValueError(
            f"loss_fn: is not the mean over the samples: {len(outputs)} samples together give "
            f"{together.item():.6g}, apart their mean is {mean.item():.6g}; {remedy} count=, a function from a batch "
            "to what its mean loss divides by (samples, tokens, the sum of weights), or one of torch's own losses, "
            f"whose class weights and ignored classes are known; {SHARED}"
        )


def _is_mean_of(loss_fn: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> bool:
    """Whether the loss of samples is the mean of the losses of each; False if the loss does not take them."""
    try:
        together = loss_fn(outputs, targets)
        apart = torch.stack([loss_fn(*row) for row in zip(outputs.split(1), targets.split(1), strict=True)])
    except Exception:  # a loss may fail in any way
        return False
    return bool((together - apart.mean()).abs() <= 1e-3 * apart.abs().max())


def check_that_classes_count_alike(
    check: Callable[[Tensor, Tensor], None], outputs: Tensor, targets: Tensor
) -> None:
    """Checks that the loss of two samples is the mean of their losses, for each class of the second sample.

    A class with a weight, or an ignored class, may be one of hundreds of classes, none of which is rare.

    Args:
        check: `check_that_loss_is_a_mean` as a function of outputs and targets.
        outputs: outputs of some samples. Those of the sample with the most different scores are used.
        targets: targets of all samples. They are checked if each is a class, and for at most `MOST_CLASSES` classes.

    Raises:
        ValueError: the loss is no mean.
    """
    if targets.ndim != 1 or not is_whole(targets) or outputs.ndim < 2:
        return
    classes = targets.unique()
    if len(classes) > MOST_CLASSES:
        classes = classes[torch.linspace(0, len(classes) - 1, MOST_CLASSES, device="cpu").long()]
    classes = classes.to(outputs.device)
    scores = outputs.flatten(1).double().nan_to_num(0, 0, 0)
    telling = outputs[(scores.amax(1) - scores.amin(1)).argmax()]
    for index in range(1, len(classes)):
        check(torch.stack([telling] * 2), classes[[0, index]])
