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
    with objective.ranks.together():
        own = _weights_of_samples(objective)
    # the samples of one rank may all be of one class
    of_ranks = objective.ranks.gathered(own)
    if all(of_ranks) and len(set().union(*of_ranks)) == 1:
        return
    raise ValueError(
        f"{field}: {measure} needs a plain mean over samples; make the Objective of tensors (inputs, targets), of a "
        "model that returns one tensor, without class weights, ignored classes or a regularizer"
    )


def _weights_of_samples(objective: Objective) -> set[float]:
    """The weights that samples of this rank have; none if the loss is no mean over samples of tensors."""
    if not objective.is_supervised or objective.penalty is not None or objective.counting.is_sum:
        return set()
    return set(objective.counting.of_samples((objective.inputs, objective.targets)).unique().tolist())
