"""Co-teaching: two networks choose each other's samples (Han et al. 2018, arXiv:1804.06872, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncsam.methods.known_losses import has_label
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.two_networks import TwoNetworks


class CoTeaching(TwoNetworks):
    """Each network learns from the samples of the batch on which the other's loss is smallest.

    Samples whose label the loss ignores are not chosen, and not counted. A batch of such samples alone has a gradient
    of zero.

    The share of samples that are kept is 1 in the first epoch and falls to 1 - forget_rate over the first `gradual` of
    the training. The optimizer must be over `method.parameters()`, which holds both networks. `model` is the network
    that is evaluated.

    Set `method.epoch_share = 1 / epochs` once, and `method.progress = epoch / epochs` at the start of each epoch;
    `fit()` does both.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: (outputs, targets) -> mean loss of the samples that are kept; cross-entropy decides which are.
        peer: the second network, of the same architecture with other initial weights.
        forget_rate: the share of samples that is left out in the end. The paper takes the noise rate.
        gradual: the share of the training in which the kept share falls; 10 of 200 epochs in the paper.
        warmup: share of the training in which both networks learn from all samples.

    Raises:
        ValueError: `forget_rate`, `gradual` or `warmup` is out of range, the loss remembers samples, or the peer is the
            model.
    """

    requires = Requirements(peer=True)
    equal_peer = "refused"

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        peer: nn.Module,
        forget_rate: float,
        gradual: float = 0.05,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, loss_fn, peer=peer, warmup=warmup)
        self.check_that_nothing_is_remembered()
        if not 0 <= forget_rate < 1:
            raise ValueError(f"forget_rate: must be a share of at least 0 and below 1, got {forget_rate}")
        if not 0 < gradual <= 1:
            raise ValueError(f"gradual: must be a share above 0 and at most 1, got {gradual}")
        self.forget_rate = forget_rate
        self.gradual = gradual

    def kept_share(self) -> float:
        """The share of samples that each network learns from in this epoch.

        It is 1 in the first epoch, and falls by equal steps to 1 - forget_rate in the last epoch of `gradual`, as in
        the authors' code.
        """
        progress = self.known_progress()
        first = self.epoch_share
        if progress <= first:
            return 1.0
        if self.gradual <= first:
            return 1 - self.forget_rate
        return 1 - self.forget_rate * min((progress - first) / (self.gradual - first), 1)

    def fill_warmup_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the ordinary gradient of all samples to the `.grad` of both networks."""
        return self._fill_from(1.0, inputs, targets, indices)

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the samples that the other network chose to the `.grad` of each network."""
        return self._fill_from(self.kept_share(), inputs, targets, indices)

    def _fill_from(
        self, kept_share: float, inputs: Tensor, targets: Tensor, indices: Tensor | None
    ) -> Tensor:
        self.check_whole_batch("compares the samples of a batch and takes it whole")
        self.share_precision()
        labeled = self._labeled(targets)
        both = (self.passes, self.peer)
        outputs = [passes.outputs(passes.model, inputs, indices, first=True) for passes in both]
        self.passes.sample_gradients += len(targets)
        if len(labeled) == 0:
            # a gradient of zero, for which other ranks may wait
            for passes, output in zip(both, outputs, strict=True):
                passes.backward_of(output.sum() * 0)
            return torch.zeros((), device=targets.device)
        # the small number keeps 0.2 of 100 samples from becoming 19.999..., which would be cut to 19
        count = max(1, int(kept_share * len(labeled) + 1e-9))
        kept = [
            labeled[
                nn.functional.cross_entropy(output.detach()[labeled], targets[labeled], reduction="none")
                .topk(count, largest=False)
                .indices
            ]
            for output in outputs
        ]
        for passes, output, chosen in zip(both, outputs, reversed(kept), strict=True):
            of_chosen = indices[chosen] if indices is not None else None
            passes.backward_of(passes.loss(output[chosen], targets[chosen], of_chosen))
        return self.passes.loss(outputs[0].detach(), targets, indices)

    def _labeled(self, targets: Tensor) -> Tensor:
        """The positions in the batch of the samples whose label the loss does not ignore.

        Raises:
            ValueError: the targets are classes of positions.
        """
        is_mixed = targets.is_floating_point() and targets.ndim == 2
        if targets.ndim != 1 and not is_mixed:
            raise ValueError(
                f"targets: CoTeaching chooses samples, and needs a class of each, int64 (batch,), or probabilities "
                f"(batch, classes); got {targets.dtype} of shape {tuple(targets.shape)}"
            )
        if is_mixed:
            return torch.arange(len(targets), device=targets.device)
        # cross-entropy, which chooses, has a loss of 0 for -100
        return has_label(self.loss_fn, targets).nonzero().flatten()
