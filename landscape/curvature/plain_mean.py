"""A check that a loss is the plain mean over samples, which some measures need."""

from __future__ import annotations

from landscape.loss.objective import Objective


def check_that_it_is_a_plain_mean(objective: Objective, field: str, measure: str) -> None:
    """Checks that the loss is the mean over samples of tensors (inputs, targets), and that each sample counts for one.

    Args:
        objective: its loss is checked.
        field: the argument that an error names.
        measure: name of the measure that needs a plain mean.

    Raises:
        ValueError: the loss is no plain mean.
    """
    if objective.is_supervised and objective.penalty is None and not objective.counting.is_sum:
        weights = objective.counting.of_samples((objective.inputs, objective.targets))
        if len(weights.unique()) == 1:
            return
    raise ValueError(
        f"{field}: {measure} needs a plain mean over samples; make the Objective of tensors (inputs, targets), without "
        "class weights, ignored classes or a regularizer"
    )
