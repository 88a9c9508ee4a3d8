"""The gradient of a loss with respect to the trainable parameters of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ncsam.methods.graph_nodes import REENTRANT, check_that_none_is_lost
from ncsam.methods.perturbation import trainable_parameters
from ncsam.methods.sharded import gradients_by_backward, is_sharded

NO_GRADIENT = (
    "loss_fn: the loss depends on no trainable parameter of the model, so that nothing would be learned; call backward "
    "outside of torch.no_grad and inference_mode, leave out detach(), argmax() and item(), and let a closure run this "
    "model"
)


def with_a_gradient(loss: Tensor) -> Tensor:
    """The loss. Raises ValueError if it depends on nothing that torch recorded."""
    if not loss.requires_grad:
        raise ValueError(NO_GRADIENT)
    return loss


@dataclass
class Reached:
    """The trainable parameters that a loss reaches, by their places, and those of them with sparse gradients."""

    places: set[int] = field(default_factory=set)
    sparse: set[int] = field(default_factory=set)

    def add(self, other: Reached) -> None:
        """Adds what another loss reaches."""
        self.places |= other.places
        self.sparse |= other.sparse


def gradient(loss: Tensor, model: nn.Module, *, retain_graph: bool = False) -> list[Tensor]:
    """The gradient of `loss`, zero for parameters that the loss does not reach. `.grad` is not touched."""
    return gradient_and_reached(loss, model, retain_graph=retain_graph)[0]


def gradient_and_reached(
    loss: Tensor, model: nn.Module, *, retain_graph: bool = False
) -> tuple[list[Tensor], Reached]:
    """The gradient of `loss`, and which of the trainable parameters the loss reaches.

    Raises:
        ValueError: the loss reaches no trainable parameter, or some of them within reentrant checkpoints.
    """
    parameters = trainable_parameters(model)
    if not parameters:
        raise ValueError("model: none of its parameters requires a gradient")
    with_a_gradient(loss)
    if is_sharded(model):
        found = gradients_by_backward(loss, parameters, retain_graph=retain_graph)
    else:
        found = gradients_by_grad(loss, parameters, retain_graph=retain_graph)
    # sparse embeddings have sparse ones, which have no norm
    dense = [g.to_dense() if g is not None and g.is_sparse else g for g in found]
    if all(part is None for part in found):
        raise ValueError(NO_GRADIENT)
    whole = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, dense, strict=True)]
    parts = [(place, part) for place, part in enumerate(found) if part is not None]
    return whole, Reached({place for place, _ in parts}, {place for place, part in parts if part.is_sparse})


def gradients_by_grad(
    loss: Tensor, parameters: list[nn.Parameter], *, retain_graph: bool = False, create_graph: bool = False
) -> list[Tensor | None]:
    """The gradient of `loss`; None for parameters that it does not reach. `.grad` is not touched.

    Raises:
        ValueError: some parameters lie within reentrant checkpoints.
    """
    try:
        found = torch.autograd.grad(
            loss,
            parameters,
            retain_graph=retain_graph or create_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ValueError(REENTRANT) from error
    # torch leaves a checkpoint out, instead of an error, where no trainable weight lies before it
    check_that_none_is_lost(loss, found)
    return list(found)
