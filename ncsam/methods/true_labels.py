"""What the controls share that know the true label of each training sample."""

from __future__ import annotations

from torch import Tensor, nn

from ncsam.methods.sam import SAM
from ncsam.methods.training_loss import TrainingLoss


class SAMWithTrueLabels(SAM):
    """SAM that can look up true labels. What is done with them is up to its variants.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2; 0 is the ordinary gradient.
        clean_targets: int64 (n,), true labels of the whole training set.
        warmup: share of the training with ordinary gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho: float,
        clean_targets: Tensor,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, loss_fn, rho=rho, warmup=warmup)
        self.clean_targets = clean_targets.to(next(model.parameters()).device)

    def known_samples(self) -> int | None:
        """The number of true labels."""
        return len(self.clean_targets)

    def positions_of_labels(self, indices: Tensor | None) -> Tensor:
        """The positions of the samples, by which `clean_targets` is read.

        Raises:
            ValueError: no positions were passed.
        """
        return self.known_positions(indices, "looks up the true labels of single samples")
