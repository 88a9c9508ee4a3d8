"""NCSAM with cluster-based noise inversion (CBNI), as in later code of the paper's authors."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.ncsam import NCSAM, CompensationOptions
from ncsam.methods.passes import TrainingLoss
from ncsam.methods.perturbation import Ascent
from ncsam.methods.simulated_noise import confidence_gaps
from ncsam.options import check_names

ITERATIONS = 10
"""Of k-means; a batch's clusters have settled by then."""


def cluster(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means of the rows by Lloyd's iteration, started from `count` rows drawn at random.

    Batched tensor operations on the features' device, with no synchronization and few of them: on a GPU their number
    is the cost. A cluster that loses all its rows keeps its center. Computed in float32, or float64 for such features.

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
    """The nearest center of each row; ||row||^2 is the same for all centers and is left out."""
    return torch.addmm(centers.square().sum(1), features, centers.T, alpha=-2).argmin(1)


def cluster_flip_rates(gaps: Tensor, clusters: Tensor, count: int, largest: float) -> Tensor:
    """r_k = r_max (1 - mean gap of the cluster / largest gap in it), per sample. -> (batch,).

    0 where all gaps of a cluster are 0.
    """
    sums = gaps.new_zeros(count).scatter_add(0, clusters, gaps)
    sizes = gaps.new_zeros(count).scatter_add(0, clusters, torch.ones_like(gaps))
    maxima = gaps.new_zeros(count).scatter_reduce(0, clusters, gaps, "amax")
    rates = largest * (1 - sums / sizes.clamp(min=1) / maxima)
    return rates.where(maxima > 0, torch.zeros_like(rates))[clusters]


class _Features:
    """Keeps a layer's inputs, as its hook, while they are wanted; copied with the model, without the method."""

    def __init__(self) -> None:
        self.wanted = False
        self.batches: list[Tensor] = []

    def __call__(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """The hook."""
        if self.wanted:
            self.batches.append(arguments[0].detach())


class ClusterNCSAM(NCSAM):
    """NCSAM that simulates noise cluster by cluster: labels of uncertain clusters are redrawn more often.

    The batch's penultimate features, each of length 1, are clustered by k-means; every label of cluster k is
    redrawn uniformly over all classes with probability r_k = r_max (1 - mean(gap) / max(gap)), and g* is the
    gradient over the samples whose label changed.

    Features are the inputs of the model's last `torch.nn.Linear`.

    Args:
        model: with a linear last layer.
        loss_fn: (outputs, targets) -> mean loss.
        clusters: how many clusters.
        project: whether the perturbation is projected on the ball; the authors' code does not.
        label_smoothing: of the loss of g*; 0.1 in the authors' code.
        shared: the options of `NCSAM` but for `draw` and `labels`, which the clusters decide. Here `flip_ratio` is
            r_max, the largest rate at which labels are redrawn; `strength` is 0.1 to 1.5 in the authors' code under
            instance-dependent noise.
    """

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
        # an option that is not among the shared ones would not be refused by `NCSAM` itself
        check_names("cluster-ncsam", shared, CompensationOptions.__annotations__)
        super().__init__(model, loss_fn, project=project, label_smoothing=label_smoothing, **shared)
        if clusters < 1:
            raise ValueError(f"clusters: must be at least 1, got {clusters}")
        linear = [module for module in self.passes.module.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ValueError(
                "model: ClusterNCSAM clusters the inputs of the last linear layer, and there is none"
            )
        self.clusters = clusters
        self._features = _Features()
        # from the beginning: a compiled model does not see hooks that come later
        linear[-1].register_forward_pre_hook(self._features)

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:
        """NCSAM's first half, with the features of the pass at w at hand."""
        self._features.wanted = True
        try:
            return super().ascend(inputs, targets, indices)
        finally:
            self._features.wanted = False
            self._features.batches.clear()

    def simulated_labels(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the samples whose label changed when it was redrawn, and the new labels."""
        features = nn.functional.normalize(torch.cat(self._features.batches).flatten(1).to(logits), dim=1)
        clusters = cluster(features, self.clusters, self.generator)
        rates = cluster_flip_rates(confidence_gaps(logits), clusters, self.clusters, self.flip_ratio)
        chance = torch.rand(targets.shape, generator=self.generator, device=targets.device)
        redrawn = torch.randint(
            logits.shape[1], targets.shape, generator=self.generator, device=targets.device
        )
        labels = torch.where(chance < rates, redrawn, targets)
        drawn = torch.nonzero(labels != targets).flatten()
        return drawn, labels[drawn]
