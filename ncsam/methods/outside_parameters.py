"""Parameters outside the model that a loss depends on, such as learned prototypes, or a head that a closure runs."""

from __future__ import annotations

from torch import Tensor, nn

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
    for leaf in _leaves(loss):
        if isinstance(leaf, nn.Parameter) and id(leaf) not in own:
            raise ValueError(
                f"loss_fn: depends on a parameter of shape {tuple(leaf.shape)} outside the model, such as one of the "
                "loss's own or of a head that a closure runs, and this method combines gradients of the model's "
                "parameters alone, so that this one would get none; give a module that holds both, with forward= or "
                "closure= to run it, freeze the parameter, or take SAM, ASAM or FriendlySAM, which fill its .grad"
            )


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors at which the backward pass of a loss ends."""
    waiting = [loss.grad_fn]
    seen = set(waiting)
    leaves = []
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if type(node).__name__ == "AccumulateGrad":
            leaves.append(node.variable)  # type: ignore[attr-defined]
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        waiting += following
    return leaves
