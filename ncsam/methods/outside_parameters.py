"""Parameters outside the model that a loss depends on, such as learned prototypes, or a head that a closure runs."""

from __future__ import annotations

from torch import Tensor, nn

from ncsam.methods.graph_nodes import nodes_of
from ncsam.methods.sharded import is_sharded


def check_that_all_are_the_models(loss: Tensor, model: nn.Module) -> None:
    """Checks that a method which combines gradients of the model alone leaves no parameter untrained.

    Raises:
        ValueError: the loss depends on a parameter that requires a gradient and is none of the model's.
    """
    if is_sharded(model):
        # the graph has the whole weights that FSDP makes of the model's parameters
        return
    own = {id(parameter) for parameter in model.parameters()}
    for node in nodes_of(loss):
        # the backward pass ends at nodes that hold a leaf
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in own:
            raise ValueError(
                f"loss_fn: depends on a parameter of shape {tuple(leaf.shape)} outside the model, such as one of the "
                "loss's own or of a head that a closure runs, and this method combines gradients of the model's "
                "parameters alone, so that this one would get none; give a module that holds both, with forward= or "
                "closure= to run it, freeze the parameter, or take SAM, ASAM or FriendlySAM, which fill its .grad"
            )
