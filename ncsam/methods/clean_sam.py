"""SAM on the rightly labeled samples only, as if somebody had removed the wrong labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncsam.methods.batches import can_learn_from, rows_of
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import TrainingLoss
from ncsam.methods.true_labels import SAMWithTrueLabels

DESCENTS = ("clean", "all")


class CleanSAM(SAMWithTrueLabels):
    """The perturbation is that of the batch's rightly labeled samples. The gradient is theirs, or that of all.

    With `descent="clean"` the method is SAM on the clean part of the training set, and with rho = 0 too ordinary
    training on it: the ceiling for methods that select samples. With `"all"` only the perturbation is free of wrong
    labels (g_clean of Eq. 3 of arXiv:2601.19947). This is a control and no method for use, because it knows which
    labels are wrong. A batch without clean samples has no gradient. A batch with a single clean sample has none if the
    model has BatchNorm. `fit()` hands over the indices.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0 is the ordinary gradient.
        clean_targets: int64 (n,), true labels of the whole training set.
        descent: `"clean"` or `"all"`, of which samples the gradient is.
        warmup: share of the training with ordinary gradients of the samples of the descent.

    Raises:
        ValueError: settings out of range.
    """

    requires = Requirements(classes=True, one_process=True)

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho: float,
        clean_targets: Tensor,
        descent: str = "clean",
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, loss_fn, rho=rho, clean_targets=clean_targets, warmup=warmup)
        if descent not in DESCENTS:
            raise ValueError(f"descent: must be one of {', '.join(DESCENTS)}, got {descent!r}")
        self.descent = descent

    def fill_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Leaves the wrongly labeled samples out, and does what `SAM` does."""
        if self.descent == "all":
            return super().fill_gradients(inputs, targets, indices)
        part = self._clean_part(inputs, targets, indices)
        if can_learn_from(self.model, part[1]):
            return super().fill_gradients(*part)
        self.ascent = None
        return torch.zeros((), device=targets.device)

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Ascends on the clean samples, then descends at w + perturbation."""
        if self.descent == "clean" or self.stays_at_w:
            return super().fill_own_gradients(inputs, targets, indices)
        part = self._clean_part(inputs, targets, indices)
        if not can_learn_from(self.model, part[1]):
            return self.passes.backward(inputs, targets, indices, moves_statistics=True)
        self.ascent = self.ascend(*part)
        self.descend(self.ascent, inputs, targets, indices)
        return self.ascent.loss

    def _clean_part(
        self, inputs: Tensor, targets: Tensor, indices: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        indices = self.positions_of_labels(indices)
        rows = (targets == self.clean_targets[indices]).nonzero().flatten()
        return rows_of(inputs, rows), targets[rows], indices[rows]
