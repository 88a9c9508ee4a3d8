"""What a method requires of the training in which it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirements:
    """The requirements of a method, declared on its class.

    Attributes:
        peer: a second network, which is given as `peer`.
        one_process: a single process, because what the method remembers of samples cannot be shared among processes.
        mixable_inputs: inputs that are numbers and can be mixed, such as images, and no tokens.
        classes: targets that are classes, not probabilities of classes.
        second_derivatives: a model that can be differentiated twice, which a compiled one cannot.
        whole_weights: weights that lie whole on each rank, which those of a model under FSDP2 do not.
    """

    peer: bool = False
    one_process: bool = False
    mixable_inputs: bool = False
    classes: bool = False
    second_derivatives: bool = False
    whole_weights: bool = False
