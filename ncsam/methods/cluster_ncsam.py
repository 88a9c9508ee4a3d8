"""NCSAM with cluster-based noise inversion (CBNI), as in later code of the paper's authors."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.batches import Batch, samples_in
from ncsam.methods.last_features import LastFeatures
from ncsam.methods.ncsam import NCSAM, CompensationOptions
from ncsam.methods.perturbation import Ascent
from ncsam.methods.simulated_noise import confidence_gaps
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_at_least, check_names

ITERATIONS = 10
"""Iterations of k-means; after these the clusters of a batch no longer change."""


def cluster(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Clusters the rows by k-means (Lloyd's iteration), starting from `count` rows drawn at random.

    On a GPU the number of operations is the cost. So few batched operations run on the features' device, without
    synchronization. A cluster that loses all its rows keeps its center. All is computed in float32; in
    float64 if the features are.

    Returns:
        int64 (rows,), the cluster of each row.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    with torch.autocast(features.device.type, enabled=False):
        order = torch.randperm(len(features), generator=generator, device=features.device)
        centers = features[order[:count]]
        units = torch.eye(len(centers), dtype=features.dtype, device=features.device)
        # the column of ones counts the members
        extended = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        for _ in range(ITERATIONS):
            sums = units[_nearest(features, centers)].T @ extended
            sizes = sums[:, -1:]
            centers = torch.where(sizes > 0, sums[:, :-1] / sizes.clamp(min=1), centers)
        return _nearest(features, centers)


def _nearest(features: Tensor, centers: Tensor) -> Tensor:
    """The nearest center of each row. ||row||^2 is left out, because it is the same for all centers."""
    return torch.addmm(centers.square().sum(1), features, centers.T, alpha=-2).argmin(1)


def cluster_flip_rates(gaps: Tensor, clusters: Tensor, count: int, largest: float) -> Tensor:
    """The rate of each sample's cluster, r_k = r_max (1 - mean gap / largest gap). -> (batch,).

    The rate is 0 where all gaps of the cluster are 0.
    """
    sums = gaps.new_zeros(count).scatter_add(0, clusters, gaps)
    sizes = gaps.new_zeros(count).scatter_add(0, clusters, torch.ones_like(gaps))
    maxima = gaps.new_zeros(count).scatter_reduce(0, clusters, gaps, "amax")
    rates = largest * (1 - sums / sizes.clamp(min=1) / maxima)
    return rates.where(maxima > 0, torch.zeros_like(rates))[clusters]


class ClusterNCSAM(NCSAM):
    """NCSAM that simulates noise cluster by cluster: labels of uncertain clusters are redrawn more often.

    Features are the inputs of the `torch.nn.Linear` that runs last, scaled to length 1. The features of the batch are
    clustered by k-means. Each label of cluster k is redrawn uniformly over all classes with probability
    r_k = r_max (1 - mean(gap) / max(gap)). g* is the gradient over the samples whose label changed. Samples whose label
    the loss ignores are left out. Classes of positions are refused, because a sample has one vector of features.

    Args:
        model: with a linear last layer, which may be registered anywhere.
        loss_fn: (outputs, targets) -> mean loss.
        clusters: number of clusters.
        project: whether the perturbation is projected on the ball; the authors' code does not.
        label_smoothing: of the loss of g*; 0.1 in the authors' code.
        shared: the options of `NCSAM` without `draw` and `labels`, because the clusters decide both. Here `flip_ratio`
            is r_max, the largest rate at which labels are redrawn. `strength` is 0.1 to 1.5 in the authors' code under
            instance-dependent noise.
    """

    takes_classes_of_positions = False
    takes_ignored_labels = True

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        clusters: int = 5,
        project: bool = False,
        label_smoothing: float = 0.1,
        **shared: Unpack[CompensationOptions],
    ) -> None:
        # an option of `NCSAM` that is not shared is refused here, because `NCSAM` takes it
        check_names("cluster-ncsam", shared, CompensationOptions.__annotations__)
        super().__init__(model, loss_fn, project=project, label_smoothing=label_smoothing, **shared)
        check_at_least("clusters", clusters, 1)
        self.clusters = clusters
        self._with_label: Tensor | None = None
        self._inputs: Batch = None
        self._features = LastFeatures(self.passes.module)

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:
        """The first half of NCSAM; the features of the pass at w are kept for it."""
        self._inputs = inputs
        try:
            with self._features.noted():
                return super().ascend(inputs, targets, indices)
        finally:
            self._inputs = None

    def _labeled(self, targets: Tensor, classes: int) -> Tensor | None:
        """The samples whose labels the loss does not ignore, None for all; the others are not clustered."""
        self._with_label = super()._labeled(targets, classes)
        return self._with_label

    def simulated_labels(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the samples whose label changed when it was redrawn, and the new labels."""
        if len(targets) == 0:
            return targets, targets
        of_batch = self._features.of_batch(
            self.passes, self._inputs, samples_in(self._inputs) or len(targets)
        ).flatten(1)
        of_labeled = of_batch if self._with_label is None else of_batch[self._with_label]
        features = nn.functional.normalize(of_labeled.to(logits), dim=1)
        clusters = cluster(features, self.clusters, self.generator)
        rates = cluster_flip_rates(confidence_gaps(logits), clusters, self.clusters, self.flip_ratio)
        chance = torch.rand(targets.shape, generator=self.generator, device=targets.device)
        redrawn = torch.randint(
            logits.shape[1], targets.shape, generator=self.generator, device=targets.device
        )
        labels = torch.where(chance < rates, redrawn, targets)
        drawn = torch.nonzero(labels != targets).flatten()
        return drawn, labels[drawn]
