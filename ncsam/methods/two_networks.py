"""The base of the methods that train a second network beside the model."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ncsam.methods.batches import Batch
from ncsam.methods.method import Method
from ncsam.methods.passes import Passes
from ncsam.methods.training_loss import LossFunction, remembers_samples


class TwoNetworks(Method):
    """Trains a model and its peer, of the same architecture with other initial weights.

    The optimizer must be over `method.parameters()`, which holds both networks.

    Args:
        model: in training mode.
        loss_fn: (outputs, targets) -> mean loss. Both networks share the loss.
        peer: the second network.
        warmup: share of the training with ordinary gradients.

    Attributes:
        peer: precision and ranks of the peer, as `passes` holds those of the model.
        equal_peer: what the first step does about a peer with the weights of the model, as a copy of it has: "refused",
            because both learn the same and stay one network; "warned of", because they differ by draws alone; or
            "taken", because they do not learn side by side.

    Raises:
        ValueError: the peer is the model itself.
    """

    equal_peer: ClassVar[str] = "taken"
    _has_begun = False

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, *, peer: nn.Module, warmup: float = 0.0
    ) -> None:
        super().__init__(model, loss_fn, warmup=warmup)
        if peer is model:
            raise ValueError("peer: must be another network than the model")
        self.peer = Passes(peer, loss_fn)

    def fill_gradients(self, inputs: Batch, targets: Batch, indices: Tensor | None) -> Tensor:
        """Looks at the weights before the first step, when those of a checkpoint are loaded."""
        if not self._has_begun and self.equal_peer != "taken":
            self._check_that_they_begin_apart()
        self._has_begun = True
        return super().fill_gradients(inputs, targets, indices)

    def _check_that_they_begin_apart(self) -> None:
        first, second = (list(passes.module.parameters()) for passes in (self.passes, self.peer))
        if len(first) != len(second) or not all(map(torch.equal, first, second)):
            return
        is_refused = self.equal_peer == "refused"
        message = (
            f"peer: begins with the weights of the model, as a copy has, so that the two networks of "
            f"{type(self).__name__} "
            + ("would learn the same and stay one" if is_refused else "differ by their mixtures alone")
            + "; build it with another seed, such as build_model(..., seed=1), or draw its weights anew by "
            "reset_parameters()"
        )
        if is_refused:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)

    def check_that_nothing_is_remembered(self) -> None:
        """Raises ValueError for a loss that remembers samples."""
        if remembers_samples(self.loss_fn):
            raise ValueError(
                f"loss_fn: {type(self.loss_fn).__name__} remembers one network's predictions; "
                f"{type(self).__name__} has two"
            )

    def networks(self) -> list[nn.Module]:
        """The model and its peer."""
        return [self.model, self.peer.model]

    def share_precision(self) -> None:
        """Lets the peer compute in the precision of the model."""
        self.peer.autocast_dtype, self.peer.scaler = self.passes.autocast_dtype, self.passes.scaler

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the second network included."""
        return {**super().state_dict(), "peer": self.peer.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        self.peer.module.load_state_dict(state["peer"])
