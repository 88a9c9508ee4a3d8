"""How a model is run on a batch, of which each pass gets a copy."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ncsam.methods.as_given import as_given
from ncsam.methods.batches import Batch, Forward, remedy_of_no_tensors
from ncsam.methods.call_checks import takes_by_name
from ncsam.methods.loss_checks import check_that_inputs_fit


def run_as_given(run: Forward | None, model: nn.Module, inputs: Batch, *, is_whole: bool = False) -> Any:
    """The outputs of the model, by `run` or as `run_on_batch` says, for the inputs as the caller gave them."""
    own = as_given(inputs, model)
    return run_on_batch(model, own, is_whole=is_whole) if run is None else run(model, own)


def run_on_batch(model: nn.Module, inputs: Batch, *, is_whole: bool = False) -> Any:
    """The outputs of the model.

    Args:
        model: may be wrapped in DistributedDataParallel.
        inputs: the model's only argument; those of a dict are its arguments if it has arguments of these names.
        is_whole: whether the inputs are a whole batch, whose names must be those of the model's arguments.

    Raises:
        ValueError: the inputs have another dtype or device than the weights, or the model cannot be run on such a tree.
    """
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    try:
        by_name = isinstance(inputs, dict) and takes_by_name(bare, inputs)
        return model(**inputs) if by_name or is_whole else model(inputs)
    except (TypeError, AttributeError, RuntimeError) as error:
        check_that_inputs_fit(model, inputs, error)
        if isinstance(inputs, Tensor) or isinstance(error, RuntimeError):
            raise
        remedy = remedy_of_no_tensors("inputs", inputs) or "; say by forward= how it is run"
        raise ValueError(
            f"inputs: the model cannot be run on a {type(inputs).__name__}: {error}{remedy}"
        ) from error
