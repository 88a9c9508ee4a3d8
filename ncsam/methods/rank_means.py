"""Means over ranks that hold parts of one batch."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.agreement import Agreement
from ncsam.methods.sharded import is_sharded


def has_ranks(model: nn.Module) -> TypeGuard[DistributedDataParallel]:
    """Whether DistributedDataParallel trains the model in more than one process."""
    return isinstance(model, DistributedDataParallel) and dist.get_world_size(model.process_group) > 1


def let_ranks_draw_differently(loss_fn: object, model: nn.Module) -> None:
    """Tells a loss that draws, such as stochastic label noise, the number of its rank."""
    if has_ranks(model) and hasattr(loss_fn, "draw_as_rank"):
        loss_fn.draw_as_rank(dist.get_rank(model.process_group))
    elif is_sharded(model) and hasattr(loss_fn, "draw_as_rank"):
        loss_fn.draw_as_rank(dist.get_rank())


def factor_of_rank(weight: float, ranks: Agreement) -> float:
    """The factor of this rank's loss with which the plain mean over the ranks is the mean by weight.

    All ranks wait for each other in one sum of one number. The factor is 0 where no rank has a weight.
    """
    ranks.agree()
    total = torch.tensor(weight, dtype=torch.float64, device=ranks.device)
    dist.all_reduce(total, group=ranks.group)
    return weight * dist.get_world_size(ranks.group) / total.item() if total > 0 else 0.0


def mean_over_ranks(tensors: list[Tensor], group: Any) -> None:
    """The plain mean over the ranks, in place, with one all-reduce."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat, group=group)
    means = flat.div_(dist.get_world_size(group)).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [mean.view_as(t) for mean, t in zip(means, tensors, strict=True)])


def check_that_none_joins(model: DistributedDataParallel) -> None:
    """Raises ValueError within `model.join()`: a rank that has joined answers DistributedDataParallel's sums alone.

    After `join()` too, because torch leaves its mark on the model for good.
    """
    if model._join_config.enable:
        raise ValueError(
            "model: runs, or ran, within join(), and this method sums gradients over the ranks itself, for which it "
            "would wait in vain once a rank has no batch left; give all ranks equally many batches, leave join() out "
            "and wrap the model in DistributedDataParallel anew, or take a method such as Plain or SAM with "
            "passes.average_over_ranks = False"
        )
