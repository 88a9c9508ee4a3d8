"""CORES2: a sample sieve with a confidence regularizer (Cheng et al. 2021, arXiv:2010.02347)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from ncsam.counted_mean import mean_over
from ncsam.methods.known_losses import has_label
from ncsam.methods.method import Method
from ncsam.methods.plain_loss import check_plain_cross_entropy
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.weighing import part_of_rank
from ncsam.options import check_share


class CORES2(Method):
    """Cross-entropy less beta times its mean over all labels, of the samples that pass the sieve.

    Let l_j be the cross-entropy of a sample as if its label were j, and y its label. The loss is l_y - beta mean_j l_j,
    whose second part makes predictions confident. beta is 0 first and then grows by equal steps. From `sieve_from` of
    the training on, a sample counts only if l_y <= mean_j l_j: its label is at least as probable as labels are in
    geometric mean. Labels are taken as equally frequent. The second phase of the paper (CORES2*, consistency training)
    is not part of the method. Samples whose label the loss ignores do not count.

    Set `method.epoch_share = 1 / epochs` once, and `method.progress = epoch / epochs` at the start of each epoch;
    `fit()` does both. The defaults are those of the authors' code for CIFAR-10, in shares of its 100 epochs.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: plain cross-entropy; the method makes its own losses of the outputs.
        beta: final weight of the confidence regularizer.
        ramp_from: share of the training in which beta is 0.
        ramp_to: share of the training at which beta is whole.
        sieve_from: share of the training in which all samples count.
        warmup: share of the training with ordinary gradients; beta = 0 and no sieve mean the same.

    Raises:
        ValueError: the loss is not plain cross-entropy, `ramp_to` is below `ramp_from`, or a setting is out of range.
    """

    requires = Requirements(classes=True)
    takes_ignored_labels = True

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        beta: float = 2.0,
        ramp_from: float = 0.1,
        ramp_to: float = 0.4,
        sieve_from: float = 0.3,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, loss_fn, warmup=warmup)
        if not 0 <= beta < float("inf"):
            raise ValueError(f"beta: must be at least 0 and finite, got {beta}")
        for name, share in (("ramp_from", ramp_from), ("ramp_to", ramp_to), ("sieve_from", sieve_from)):
            check_share(name, share)
        if ramp_to < ramp_from:
            raise ValueError(f"ramp_to: must be at least ramp_from ({ramp_from}), got {ramp_to}")
        check_plain_cross_entropy(loss_fn, "CORES2")
        self.beta = beta
        self.ramp_from = ramp_from
        self.ramp_to = ramp_to
        self.sieve_from = sieve_from

    def regularizer_weight(self) -> float:
        """beta in this epoch."""
        done = self.known_progress() - self.epoch_share
        steps = self.ramp_to - self.ramp_from - self.epoch_share
        if steps <= 0:
            return self.beta if done >= self.ramp_from else 0.0
        return self.beta * min(max((done - self.ramp_from) / steps, 0.0), 1.0)

    def is_sieving(self) -> bool:
        """Whether samples are left out in this epoch."""
        # the guard keeps a share such as 0.31 - 0.01 from being more than 0.3
        return self.known_progress() - self.epoch_share > self.sieve_from + 1e-9

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the mean loss of the samples that count; none if no sample does."""
        self.check_whole_batch("divides by the samples that it keeps of a whole batch")
        outputs = self.passes.outputs(self.passes.model, inputs, indices, first=True)
        losses = -log_softmax(outputs, 1)
        labeled = has_label(self.loss_fn, targets)
        own, mean = losses.gather(1, targets.where(labeled, 0).unsqueeze(1)).squeeze(1), losses.mean(1)
        kept = (labeled & (own <= mean) if self.is_sieving() else labeled).to(own)
        regularized = own - self.regularizer_weight() * mean
        # half precision rounds counts above 2048, and bfloat16 above 256
        count = kept.sum(dtype=torch.float32)
        loss = (kept * regularized).sum() / count.clamp(min=1)
        # ranks that share a batch divide by the samples that all of them keep
        self.passes.backward_of(part_of_rank(loss, outputs, self.passes.factor_by(count)))
        return mean_over(own.detach(), labeled)
