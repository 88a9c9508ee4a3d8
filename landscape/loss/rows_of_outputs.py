"""Whether outputs have a row for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_flatten

from landscape.data.batches import Batch, copied_to, rows_of, samples_in
from landscape.guards.agreement import agree_but_for_rounding
from landscape.loss.objective import Objective


def have_rows(objective: Objective, outputs: Any, inputs: Batch, outputs_of: Callable[[Batch], Any]) -> bool:
    """Whether outputs have a row for each sample of the inputs.

    Where the caller runs the model, the first size of the outputs may be another one that happens to be the number of
    samples, such as that of classes. So the first sample alone must have the first row.

    Args:
        objective: of which these are outputs.
        outputs: for all of the inputs.
        inputs: as they are stored, samples that can be cut.
        outputs_of: inputs on the objective's device -> outputs.
    """
    if not objective.has_outputs or samples_in(outputs) is None or samples_in(outputs) != samples_in(inputs):
        return False
    if objective.is_supervised:
        # looked at when the Objective was made
        return True
    with objective.without_gradients():
        alone, form = tree_flatten(outputs_of(copied_to(rows_of(inputs, slice(0, 1)), objective.device)))
    first, form_of_first = tree_flatten(rows_of(outputs, slice(0, 1)))
    return form == form_of_first and all(
        one.shape == other.shape and agree_but_for_rounding(one, other.detach())
        for one, other in zip(alone, first, strict=True)
    )
