"""Checks that a copy of a model, and a loss, compute with their own weights and with no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from landscape.model.derivatives import nodes_below

ALTERED = 2.0
"""Weights of twice their size lie outside the bounds that trained weights keep, such as an Embedding's `max_norm`."""

PIECE = 2**20
"""Weights that are compared at a time."""

NO_DERIVATIVES = (
    "model: its forward writes to its weights (as an Embedding with max_norm does), so that torch's derivatives are "
    "not those of the loss; losses and surfaces can still be computed; for derivatives, bound the weights once before "
    "the Objective is made, and take the bound out of forward (max_norm=None)"
)


def check_model_and_loss(model: object, loss_fn: object) -> None:
    """Checks that the model is a module whose weights can be measured, and that the loss is a function.

    Raises:
        TypeError: no module, a ScriptModule, no function, a class in place of its instance, or both swapped.
        ValueError: a parameter is complex or has no values. The message names it.
    """
    if _has_weights(loss_fn) and not _has_weights(model) and callable(model):
        raise TypeError(
            f"model, loss_fn: {type(model).__name__} has no weights, and {type(loss_fn).__name__} has some: they are "
            "swapped; give the model first, then the loss"
        )
    check_weights(model)
    if isinstance(loss_fn, type):
        raise TypeError(
            f"loss_fn: got the class {loss_fn.__name__}, which makes losses; give one of them, {loss_fn.__name__}()"
        )
    if not callable(loss_fn):
        raise TypeError(
            f"loss_fn: must be called with (outputs, targets), got {loss_fn!r}; give a module such as "
            "nn.CrossEntropyLoss(), or a function"
        )


def _has_weights(part: object) -> bool:
    return isinstance(part, nn.Module) and any(True for _ in part.parameters())


def check_weights(model: object) -> None:
    """Checks that one vector of real numbers can hold the weights, and stand in their place.

    Raises:
        TypeError: no module, or a ScriptModule.
        ValueError: a parameter is complex or has no values. The message names it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                "model: a ScriptModule (torch.jit.script, torch.jit.trace) takes no other weights; give the module "
                "that it was made of"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"model: its parameter {name!r} has no values yet; run a lazy module once on a batch first"
            )
        if parameter.is_meta:
            raise ValueError(
                f"model: its parameter {name!r} lies on the meta device and has no values; load the weights first "
                "(model.to_empty, model.load_state_dict)"
            )
        if parameter.is_complex():
            raise ValueError(
                f"model: its parameter {name!r} is complex ({parameter.dtype}), and one vector of real weights cannot "
                "hold it; keep a real parameter of shape (..., 2), and make it complex in forward by "
                "torch.view_as_complex"
            )


def check_variables(variables: Mapping[str, Tensor], trainable: Sequence[str]) -> None:
    """Checks that there are variables, and that they have one dtype. The measured numbers have the same one.

    Args:
        variables: by name.
        trainable: names of the parameters that they were chosen of.

    Raises:
        ValueError: there is no variable, or there are several dtypes. The message names a variable of each.
    """
    if not trainable:
        raise ValueError(
            "model: none of its parameters requires a gradient, so that the loss has no variables; unfreeze some "
            "(requires_grad_(True)); a quantized model has none left: measure the model that it was made of"
        )
    if not variables:
        more = f" and {len(trainable) - 5} more" if len(trainable) > 5 else ""
        raise ValueError(
            f"parameters: none of the trainable parameters is chosen, of {', '.join(map(repr, trainable[:5]))}{more}"
        )
    if not any(variable.numel() for variable in variables.values()):
        raise ValueError(
            f"parameters: {', '.join(map(repr, list(variables)[:5]))} hold no number, so that the loss has no "
            "variables; choose parameters with entries"
        )
    first_of: dict[torch.dtype, str] = {}
    for name, variable in variables.items():
        first_of.setdefault(variable.dtype, name)
    if len(first_of) > 1:
        found = ", ".join(f"{name!r} in {dtype}" for dtype, name in first_of.items())
        raise ValueError(
            f"model: its parameters have several dtypes ({found}), and are measured in one; give dtype=, such as "
            "torch.float32, and let forward cast by the dtype of its weights; or choose some by parameters="
        )


@torch.inference_mode(False)
@torch.no_grad()
def writes_to_its_weights(outputs_of: Callable[[Tensor], object], theta: Tensor) -> bool:
    """Whether a forward pass writes to the weights that it is given.

    Args:
        outputs_of: runs the model with weights (n,).
        theta: weights (n,).
    """
    return any(_writes_to(theta * factor, outputs_of) for factor in (1.0, ALTERED))


def _writes_to(weights: Tensor, outputs_of: Callable[[Tensor], object]) -> bool:
    # a write of equal values changes the version only, a write through `.data` changes the values only
    version, before = weights._version, weights.clone()
    outputs_of(weights)
    pieces = zip(weights.split(PIECE), before.split(PIECE), strict=True)
    return weights._version != version or not all(
        torch.equal(after.nan_to_num(), as_given.nan_to_num()) for after, as_given in pieces
    )


OUTPUTS_OF_THE_CALLER = (
    "model: the forward of its copy still runs with {named}, so that derivatives in the copy's weights would be 0; a "
    "forward that is replaced on an instance, a hook, or an attribute holds on to the model by a closure, or weights "
    "or layers lie where torch puts no others, such as in a list, a dict or an object; define forward in the class, "
    "give hooks the module that they are called with, put layers into a ModuleList or ModuleDict, and take weights "
    "from their module in each pass"
)
LOSS_WITH_WEIGHTS = (
    "loss_fn: depends on {named}, not through the outputs alone, and would be measured as if they were constants; "
    "leave a penalty on the weights out of the loss, put parameters that the loss learns into the model, or freeze "
    "them by requires_grad_(False)"
)
REGULARIZER_OF_OTHERS = (
    "regularizer: depends on {named}, not on the parameters that it is given alone; compute it from the mapping of "
    "names to parameters"
)


def check_that_no_parameter_enters(
    results: object, original: nn.Module, says: str, copied: nn.Module | None = None
) -> None:
    """Checks that results depend on no parameter that requires a gradient.

    Other weights stand in place of a copy's parameters. Those that require a gradient during the pass are found if
    forward reaches them otherwise, such as in a list.

    Args:
        results: tensors in any form, recorded for differentiation.
        original: the model whose parameters are named.
        says: the error, with a place for the parameters: one of the three above.
        copied: the copy, whose parameters are named too.

    Raises:
        ValueError: the results depend on such a parameter.
    """
    leaves = _leaves_below([leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)])
    if foreign := [leaf for leaf in leaves if isinstance(leaf, nn.Parameter)]:
        raise ValueError(says.format(named=_named(foreign, original, copied)))


def _named(parameters: Sequence[Tensor], original: nn.Module, copied: nn.Module | None) -> str:
    found = {id(each) for each in parameters}
    for whose, model in (("the caller's own parameters", original), ("the copy's first parameters", copied)):
        known = [name for name, each in model.named_parameters() if id(each) in found] if model else []
        if known:
            more = f" and {len(known) - 3} more" if len(known) > 3 else ""
            return f"{whose} {', '.join(map(repr, known[:3]))}{more}"
    return f"a parameter of shape {tuple(parameters[0].shape)} that is none of the model's"


def _leaves_below(results: Sequence[Tensor]) -> Iterator[Tensor]:
    yield from (result for result in results if result.is_leaf and result.requires_grad)
    for node in nodes_below(result.grad_fn for result in results if result.grad_fn is not None):
        if hasattr(node, "variable"):
            yield node.variable
