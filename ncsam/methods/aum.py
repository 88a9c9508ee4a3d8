"""Filtering by the area under the margin, then training on what is left (Pleiss et al. 2020, arXiv:2001.10528)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ncsam.methods.batches import can_learn_from, rows_of
from ncsam.methods.plain_loss import check_that_all_have_labels
from ncsam.methods.requirements import Requirements
from ncsam.methods.training_loss import LossFunction
from ncsam.methods.two_networks import TwoNetworks
from ncsam.options import check_at_least, check_below_1


class AUMFilter(TwoNetworks):
    """A first network learns all labels; the samples with the smallest area under the margin are left out of a second.

    The margin of a sample is the logit of its label less the largest other one, in the batch with which it is trained.
    The area under the margin is the mean of the margin over the epochs (section 3, Eq. 1 and 2). The first network is
    trained in the share `ranking` of the epochs, the second in the rest.

    The paper finds the threshold by samples of an additional class, and trains twice for that. Here the caller gives
    the share `removed`, as for Co-teaching the rate `forget_rate`. The paper also trains the second network for the
    whole schedule; here both share the epochs, so that the cost is that of one training.

    The optimizer must be over `method.parameters()`, which holds both networks. `fit()` sets `progress`.

    Args:
        model: in training mode, with outputs (batch, classes): the second network.
        loss_fn: (outputs, targets) -> mean loss.
        peer: the first network, of the same architecture with other initial weights.
        samples: size of the training set.
        removed: share of the samples that is left out, at least 0 and below 1; the noise rate, or an estimate of it.
        ranking: share of the training in which the first network learns.

    Raises:
        ValueError: `removed` or `ranking` is out of range, the loss remembers samples, or the peer is the model.
    """

    requires = Requirements(peer=True, classes=True, one_process=True)

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        *,
        peer: nn.Module,
        samples: int,
        removed: float,
        ranking: float = 0.5,
    ) -> None:
        super().__init__(model, loss_fn, peer=peer)
        self.check_that_nothing_is_remembered()
        check_at_least("samples", samples, 1)
        check_below_1("removed", removed)
        if not 0 < ranking < 1:
            raise ValueError(f"ranking: must be a share above 0 and below 1, got {ranking}")
        self.removed = removed
        self.ranking = ranking
        self.margins = torch.zeros(samples, dtype=torch.float64, device="cpu")
        self.seen = torch.zeros(samples, dtype=torch.int64, device="cpu")
        self._kept: Tensor | None = None

    def known_samples(self) -> int | None:
        """The size of the training set."""
        return len(self.margins)

    def is_ranking(self) -> bool:
        """Whether the first network learns."""
        return self.known_progress() <= self.ranking + 1e-9

    def predictors(self) -> list[nn.Module]:
        """The network that learns now."""
        return [self.peer.module if self.is_ranking() else self.passes.module]

    def kept(self) -> Tensor:
        """bool (n,): which samples the second network learns from; a sample that was never ranked is kept."""
        if self._kept is None:
            self._kept = self._chosen()
        return self._kept

    def _chosen(self) -> Tensor:
        if not self.seen.any():
            return torch.ones(len(self.margins), dtype=torch.bool, device="cpu")
        count = int(self.removed * len(self.margins) + 1e-9)
        areas = torch.where(self.seen > 0, self.margins / self.seen, torch.inf)
        kept = torch.ones(len(areas), dtype=torch.bool, device="cpu")
        kept[areas.argsort(stable=True)[:count]] = False
        return kept

    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the network that learns now; none if too few of its samples are kept."""
        indices = self.known_positions(indices, "ranks single samples")
        if self.is_ranking():
            return self._rank(inputs, targets, indices)
        rows = self.kept()[indices.cpu()].nonzero().flatten().to(targets.device)
        if not can_learn_from(self.model, rows):
            return torch.zeros((), device=targets.device)
        return self.passes.backward(
            rows_of(inputs, rows), targets[rows], indices[rows], moves_statistics=True
        )

    def _rank(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        check_that_all_have_labels(self.loss_fn, targets, "AUMFilter")
        self.check_whole_batch("takes a batch whole")
        self.share_precision()
        outputs = self.peer.outputs(self.peer.model, inputs, indices, first=True)
        self.passes.sample_gradients += len(targets)
        loss = self.peer.loss(outputs, targets, indices)
        self.peer.backward_of(loss)
        margins = margins_of(outputs.detach(), targets).double().cpu()
        # a pass that overflowed says nothing of its samples, and its step is skipped
        finite = margins.isfinite()
        places = indices.cpu()[finite]
        # added one by one, because a batch may hold a sample twice
        self.margins.index_add_(0, places, margins[finite])
        self.seen.index_add_(0, places, torch.ones_like(places))
        self._kept = None
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume: margins and the first network."""
        return {**super().state_dict(), "margins": self.margins, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.margins, self.seen = state["margins"].cpu(), state["seen"].cpu()
        self._kept = None


def margins_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """(batch,): the logit of the label less the largest other one."""
    own = outputs.gather(1, targets.unsqueeze(1))
    others = outputs.scatter(1, targets.unsqueeze(1), -torch.inf)
    return (own.squeeze(1) - others.amax(1)).to(outputs.dtype)
