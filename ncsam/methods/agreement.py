"""Ranks that train together agree before they wait for each other, so that the failure of one ends all.

Before each operation in which ranks wait for each other, they sum one number: how many of them failed. A rank that
fails between two operations goes to the next sum with its error. Only then do the ranks exchange their causes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.sharded import is_sharded

SETTLED = "_no_other_rank_waits_for_it"
"""Attribute of an error of which the ranks know, or cannot be told."""


@dataclass(frozen=True)
class Agreement:
    """The points at which ranks agree to go on.

    Attributes:
        group: the process group by which the ranks communicate; None for one process.
        device: on which the group can communicate.
        waits_in_passes: whether the ranks wait for each other within each forward and backward pass.
    """

    group: Any = None
    device: torch.device | None = None
    waits_in_passes: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> Agreement:
        """The ranks of a model in DistributedDataParallel, or of one that FSDP2 shards.

        Within `model.join()` a rank counts as one alone: one that has no batch left answers DistributedDataParallel's
        own sums and no other. So too after `join()`, whose mark torch leaves on the model, because no one can tell
        whether another rank is still within. Gradients are summed as ever, and a method that sums by itself is refused.
        What is missing is that a failing rank tells the others, which wait until it ends or the group's timeout is
        over, as with DistributedDataParallel itself; a model that is wrapped anew has it again.
        """
        if isinstance(model, DistributedDataParallel):
            # a rank that has joined answers DistributedDataParallel's own operations alone
            if model._join_config.enable:
                return ALONE
            synchronizes = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
            return cls(model.process_group, next(model.parameters()).device, synchronizes)
        if is_sharded(model):
            return cls(dist.group.WORLD, next(model.parameters()).device, True)
        return ALONE

    def agree(self, error: Exception | None = None) -> None:
        """Goes on if no rank has failed.

        Args:
            error: why this rank cannot go on.

        Raises:
            Exception: this rank's own error.
            RuntimeError: another rank failed; the message has its number and the cause.
        """
        if self.group is None or hasattr(error, SETTLED):
            if error is not None:
                raise error
            return
        try:
            causes = self._causes(error)
        except Exception:
            # a rank that has left cannot be told
            if error is not None:
                raise error from None
            raise
        failures = [RuntimeError(f"rank {rank}: {cause}") for rank, cause in enumerate(causes) if cause]
        for failure in [error] if error is not None else failures[:1]:
            setattr(failure, SETTLED, True)
            raise failure

    @contextmanager
    def announced(self) -> Iterator[None]:
        """An error in this block is reported to the other ranks when they next agree."""
        try:
            yield
        except Exception as error:  # the other ranks must learn of any exception
            self.agree(error)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block at whose end the ranks agree.

        Raises:
            RuntimeError: another rank failed.
        """
        with self.announced():
            yield
        self.agree()

    @contextmanager
    def operation(self) -> Iterator[None]:
        """A block in which the ranks wait for each other. They agree first.

        An error in the block cannot be told, because the others wait already. It is raised on its rank at once. The
        others end when that process ends, as under torchrun, or when the group's timeout is over.
        """
        self.agree()
        try:
            yield
        except Exception as error:
            setattr(error, SETTLED, True)
            raise

    def check_that_all_have(self, samples: int, of_what: str) -> None:
        """Checks that all ranks go on to the same passes, where these wait for each other within passes.

        Raises:
            ValueError: on all ranks, if some have samples and others have none.
        """
        if not self.waits_in_passes:
            return
        self.agree()
        found = torch.tensor([int(samples > 0), int(samples == 0)], device=self.device)
        dist.all_reduce(found, group=self.group)
        if found.all():
            raise ValueError(
                f"inputs: some ranks have {of_what}, others have none, but all ranks of a model under FSDP2 or with "
                "SyncBatchNorm must take the same passes; give larger batches"
            )

    def _causes(self, error: Exception | None) -> list[str | None]:
        """Why each rank failed. If none did, the list is empty, which costs one sum of one number over the ranks."""
        failures = torch.tensor(int(error is not None), device=self.device)
        dist.all_reduce(failures, group=self.group)
        if not failures.item():
            return []
        causes: list[str | None] = [None] * dist.get_world_size(self.group)
        cause = None if error is None else f"{type(error).__name__}: {error}"
        dist.all_gather_object(causes, cause, group=self.group)
        return causes


ALONE = Agreement()
"""One process."""
