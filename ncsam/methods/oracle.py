"""SAM with the perturbation that the true labels give, as a perfect compensation of the noise would."""

from __future__ import annotations

import torch
from torch import Tensor

from ncsam.methods.known_losses import has_label
from ncsam.methods.perturbation import Ascent
from ncsam.methods.requirements import Requirements
from ncsam.methods.true_labels import SAMWithTrueLabels


class OracleSAM(SAMWithTrueLabels):
    """The perturbation is computed from the true labels, and the gradient of the descent from the observed ones.

    Samples whose observed label the loss ignores count in neither, so that the perturbation is SAM's where no label is
    wrong. This is a control and no method for use, because it knows which labels are wrong. `fit()` hands over the
    indices.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.
        clean_targets: int64 (n,), true labels of the whole training set.
        warmup: share of the training with ordinary gradients.
    """

    requires = Requirements(classes=True)
    takes_ignored_labels = True

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:
        """The perturbation of this batch at w, from its true labels."""
        indices = self.positions_of_labels(indices)
        is_counted = has_label(self.loss_fn, targets)
        true = torch.where(is_counted, self.clean_targets[indices], targets)
        _, outputs, with_true_labels = self.passes.gradient(inputs, true, indices, moves_statistics=True)
        with self.passes.unmoved():
            loss = self.passes.loss(outputs, targets, indices)
        return Ascent(loss, with_true_labels, self.perturbation(with_true_labels))
