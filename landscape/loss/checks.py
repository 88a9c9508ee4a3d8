"""Checks of the data, the model and the loss of an Objective, on a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from landscape.loss.complex_numbers import as_real, is_whole
from landscape.loss.counts import Counting
from landscape.loss.loss_failures import broadcasts
from landscape.loss.random_state import borrowed_generators
from landscape.loss.repeated_runs import HALF, changes, share_apart

RANDOM = (
    "model: its outputs for a sample differ from one run of the same batch to the next, and so would every "
    "number; take the noise out of evaluation mode (if self.training:), or let it be a part of the inputs; where sums "
    "without a fixed order differ so much, give dtype=torch.float64"
)

RANDOM_LOSS = (
    "loss_fn: the loss of the same outputs depends on random numbers that it draws, and so would every number; take "
    "noise and Dropout out of the loss, or draw once, before the loss is made"
)

Linearize = bool | Literal["measured", "counted"]
"""Whether products are traced; `Objective` says what the words mean."""

MOST_CLASSES = 1000
"""Most classes that are checked. Each takes three losses of one or two samples; all take some tenths of a second."""

LOOKED_AT = 128
"""Number of samples that are checked, beside those with rare values."""


def check_settings(
    chunk_size: int,
    memory_budget: int,
    dtype: torch.dtype | None,
    parameters: Callable[[str], bool] | None,
    linearize: Linearize,
) -> None:
    """Checks the settings of an Objective.

    Raises:
        ValueError: a number is out of range.
        TypeError: an argument has another type.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size: must be at least 1, got {chunk_size}")
    if memory_budget < 0:
        raise ValueError(f"memory_budget: must not be negative, got {memory_budget}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: must be a torch.dtype such as torch.float64, got {dtype!r}")
    if not isinstance(linearize, bool) and linearize not in ("measured", "counted"):
        raise ValueError(f'linearize: must be True, False, "measured" or "counted", got {linearize!r}')
    if parameters is not None and not callable(parameters):
        raise TypeError(
            f"parameters: must be a function from a name to whether it is chosen, got {type(parameters).__name__}; "
            "for names in a set, its __contains__"
        )


def check_that_it_is_a_batch(batch: object) -> None:
    """Checks that a batch is inputs and targets. If both are tensors, they must have equally many samples.

    Raises:
        ValueError: the batch has another form.
    """
    remedy = (
        "give a tuple (inputs, targets), or an iterable of such batches, as a DataLoader is; for other batches, say "
        "by forward= how the model is run on one"
    )
    if isinstance(batch, np.ndarray) or (
        isinstance(batch, tuple | list) and any(isinstance(part, np.ndarray) for part in batch)
    ):
        raise ValueError("data: holds NumPy arrays; make tensors of them by torch.from_numpy")
    if isinstance(batch, Tensor):
        raise ValueError(
            "data: a batch is a Tensor, not inputs and targets (each part of a list is a batch: give inputs and "
            f"targets as a tuple); {remedy}"
        )
    if not isinstance(batch, tuple | list):
        raise ValueError(f"data: a batch is a {type(batch).__name__}, not inputs and targets; {remedy}")
    if len(batch) != 2:
        raise ValueError(f"data: a batch holds {len(batch)} parts, of which only two would be used; {remedy}")
    for name, part in zip(("inputs", "targets"), batch, strict=True):
        if isinstance(part, list) and part and isinstance(part[0], int | float):
            raise ValueError(f"data: the {name} of a batch are a list of numbers; give torch.tensor({name})")
    if not all(isinstance(part, Tensor) and not part.is_nested for part in batch):
        return
    shapes = [tuple(part.shape) for part in batch]
    if () in shapes or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"data: the inputs of a batch are {shapes[0]} but its targets {shapes[1]}, not as many; {remedy}; put a "
            "Dataset, which holds single samples, into a DataLoader"
        )


def telling_rows(targets: Tensor) -> Tensor:
    """Indices of a hundred samples, which reveal a loss that is no mean and a model that mixes samples."""
    rows = torch.linspace(0, len(targets) - 1, min(len(targets), LOOKED_AT), device="cpu").long()
    # only samples of a class show that the class has a weight or is ignored; so it is with masks and missing values
    return torch.cat([rows, _rows_of_rare_values(targets.cpu())]).unique()


def checked_outputs(
    outputs_of: Callable[[Tensor], Tensor],
    rows: Tensor,
    device: torch.device,
    mixes: Callable[[int], bool],
    in_float64: Callable[[], float | None],
) -> Tensor:
    """The outputs of some samples, after a check: the last few of the samples alone must have the same outputs.

    Args:
        outputs_of: indices of samples -> outputs, of a model on `device`.
        rows: indices of the samples.
        device: device of the model.
        mixes: whether the outputs of so many of the last samples depend on the others, in float64. It is asked where
            the outputs differ by more than some roundings, and in half precision where they differ at all.
        in_float64: as for `changes`.

    Raises:
        ValueError: the outputs are no tensor, have not a row for each sample, are random, or depend on the other
            samples.
    """
    # the last ones, because alone they have other places in the batch
    few = rows[-min((len(rows) + 1) // 2, 4) :]
    # a model that draws is refused, but must not move the caller's random state
    with borrowed_generators(device):
        outputs = outputs_of(rows)
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"model: must return a tensor, got {type(outputs).__name__}; wrap it in a module that returns the "
                "outputs alone, or say by forward= which are wanted"
            )
        if outputs.ndim == 0 or len(outputs) != len(rows):
            raise ValueError(
                f"model: must return a row of outputs for each sample, got shape {tuple(outputs.shape)} for "
                f"{len(rows)} samples; leave it to loss_fn to reshape them"
            )
        try:
            again = outputs_of(few)
            repeated = outputs_of(few)
        except (RuntimeError, ValueError):
            # some models cannot take a single sample, or take only one size of batch
            again, repeated = outputs_of(rows)[-len(few) :], outputs[-len(few) :]
    if changes(share_apart(repeated, again), again, in_float64):
        raise ValueError(RANDOM)
    alone = outputs[-len(few) :]
    # outputs that are mixed a little differ by less than 20 roundings of half precision
    alike = _equal(again, alone) if alone.dtype in HALF else agree_within(again, alone, 0.0)
    if not agree_but_for_rounding(again, alone) or (not alike and mixes(len(few))):
        raise ValueError(
            "model: its outputs for a sample differ from one run to the next, or with the other samples of the "
            "batch, or with its place in the batch, so that the loss is no mean over samples; give BatchNorm running "
            "statistics (track_running_stats=True), functional dropout training=self.training, and sequences the axis "
            "that the model takes for the batch (batch_first)"
        )
    return outputs


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
    together = loss_fn(outputs, targets)
    rows = [(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(outputs))]
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
        remedy = f"{column}; else give" if column else "give"
        raise ValueError(
            f"loss_fn: is not the mean over the samples: {len(outputs)} samples together give "
            f"{together.item():.6g}, apart their mean is {mean.item():.6g}; {remedy} count=, a function from a batch "
            "to what its mean loss divides by (samples, tokens, the sum of weights), or one of torch's own losses, "
            "whose class weights and ignored classes are known"
        )


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


def are_class_scores(outputs: object, targets: object) -> bool:
    """Whether outputs are (n, at least 2 classes) and targets (n,) classes. One column is a binary model's logit."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    are_scores = outputs.ndim == 2 and outputs.shape[1] > 1 and not outputs.is_complex()
    return are_scores and targets.ndim == 1 and is_whole(targets)


def check_that_ranks_agree(tensors: Mapping[str, Tensor], process_group: dist.ProcessGroup) -> None:
    """Checks that all ranks hold the same parameters and buffers.

    Raises:
        ValueError: some differ; the message names them.
    """
    differing = []
    for name, tensor in tensors.items():
        # NaN is neither the least nor the largest number, and equals no number
        value = torch.nan_to_num(as_real(tensor).double(), nan=-1e300, posinf=math.inf, neginf=-math.inf)
        extremes = torch.stack([value, -value])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=process_group)
        if not torch.equal(extremes[0], -extremes[1]):
            differing.append(name)
    if differing:
        raise ValueError(
            f"process_group: the ranks hold different models, in {', '.join(differing)}; broadcast parameters and "
            "buffers first (torch.distributed.broadcast): DistributedDataParallel leaves each rank its own buffers "
            "after its last step"
        )


def _rows_of_rare_values(targets: Tensor) -> Tensor:
    """For each of the 100 rarest values, and for the smallest and the largest one, the first row that holds it.

    Floating-point values count if they occur more than once, like values of masks and values for missing data.
    If there are very many targets, such as the labels of pixels, only the smallest and the largest one of each row
    count: the values that losses ignore are -100 and 255 by convention.
    """
    rows = as_real(targets).reshape(len(targets), -1)
    if rows.numel() > 1_000_000:
        rows = torch.stack([rows.amin(1), rows.amax(1)], 1)
    if rows.is_floating_point():
        # each NaN would be a value of its own
        rows = rows.nan_to_num(torch.finfo(rows.dtype).max)
    _, values, counts = rows.unique(return_inverse=True, return_counts=True)
    row = torch.arange(len(rows), device="cpu").repeat_interleave(rows.shape[1])
    first = torch.full_like(counts, len(rows)).scatter_reduce(0, values.flatten(), row, "amin")
    extremes = torch.stack([first[0], first[-1]])
    if rows.is_floating_point():
        first, counts = first[counts > 1], counts[counts > 1]
    return torch.cat([first[counts.argsort()[:100]], extremes])


def agree_but_for_rounding(again: Tensor, outputs: Tensor) -> bool:
    """Whether outputs of the same samples in different batches are the same. NaN equals NaN.

    Rounding depends on the batch, and parts of a model may compute with less precision than its outputs have (bfloat16,
    TF32). Dropout and BatchNorm change outputs by about the size of the outputs. The tolerance of 5% lies between both.
    """
    is_precise = outputs.dtype in (torch.float64, torch.complex128)
    return agree_within(again, outputs, 1e-4 if is_precise else 0.05)


def _equal(again: Tensor, outputs: Tensor) -> bool:
    """Whether two tensors have the same entries. NaN equals NaN."""
    return differ_by_at_most(again, outputs, 0.0)


def agree_within(again: Tensor, outputs: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ by at most a share of the largest value, or by 20 roundings in their dtype."""
    if again.shape != outputs.shape or is_whole(outputs):
        return torch.equal(again, outputs)
    return differ_by_at_most(again, outputs, max(tolerance, 20 * torch.finfo(outputs.dtype).eps))


def differ_by_at_most(again: Tensor, outputs: Tensor, share: float) -> bool:
    """Whether two tensors of one shape differ by at most a share of the largest value. NaN equals NaN."""
    if again.shape != outputs.shape:
        return False
    again, outputs = as_real(again).double(), as_real(outputs).double()
    largest = outputs.abs().nan_to_num(0, 0, 0).amax() if outputs.numel() else 0
    return torch.allclose(again, outputs, rtol=0, atol=share * float(largest), equal_nan=True)
