"""Which way a model is run that takes derivatives by itself, in a pass or in its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from landscape.data.batches import tensors_in
from landscape.data.complex_numbers import is_whole
from landscape.guards.first_look import FirstLook
from landscape.guards.generators import borrowed_for_checks
from landscape.model.own_derivatives import run_in_variables
from landscape.model.precision import full_float32
from landscape.model.without_gradients import without_gradients


@full_float32()
@torch.no_grad()
def with_own_derivatives(look: FirstLook, names: Sequence[str]) -> FirstLook:
    """The look at a model that takes derivatives by itself, in a pass or in the loss; the same look at another one.

    Torch must record such a pass. If it differentiates in the weights, they are variables in each pass.

    Args:
        look: at the model as it is.
        names: of the weights that are trained.

    Raises:
        ValueError: the model cannot be run on a batch.
    """
    recorded = replace(look, differentiates=True)
    ways = (look, recorded, replace(recorded, run=partial(run_in_variables, look.run, frozenset(names))))
    failures = []
    # a model that draws is refused, but must not move the caller's random state
    with borrowed_for_checks(look.theta.device):
        for way in ways:
            try:
                with (
                    without_gradients(way.differentiates),
                    torch.inference_mode(not way.differentiates),
                ):
                    if _can_run(way):
                        return way
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                failures.append(error)
            except Exception as error:
                raise _fails(look, error) from error
    if len(failures) < 2:
        # a loss that fails in each way is refused by its own check
        return look
    raise _fails(look, failures[1]) from failures[1]


def _can_run(look: FirstLook) -> bool:
    """Whether the loss of a few samples can be had. Raises what a forward pass raises."""
    inputs, targets = look.few()
    outputs = look.at_its_weights(inputs)
    try:
        look.loss_fn(outputs, targets)
    except RuntimeError:
        return False
    except Exception:
        # a loss that fails in another way takes no such outputs, of which its own check says more
        return True
    return True


def _fails(look: FirstLook, error: Exception) -> ValueError:
    inputs = look.chunks.first(4)[0]
    tensors = ", ".join(f"{tuple(each.shape)} {each.dtype}" for each in tensors_in(inputs)[:3])
    if "does not require grad" in str(error) or "not have been used in the graph" in str(error):
        return ValueError(
            f"data: the model's own derivatives cannot be taken on some of the samples ({tensors}): {error}; take "
            "derivatives in the weights by torch.func.grad, and those in inputs of inputs.requires_grad_()"
        )
    remedy = "say by forward= how the model is run on a batch, and let it take batches of any size"
    if "dtype" in str(error) and isinstance(inputs, Tensor) and is_whole(inputs):
        remedy = "give inputs.float(), for images of bytes normalized, such as inputs.float() / 255"
    return ValueError(
        f"data: the model cannot be run on {type(inputs).__name__} inputs of some of the samples ({tensors}): "
        f"{error}; {remedy}"
    )
