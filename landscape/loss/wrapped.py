"""Refuses a model in the place of an Objective, and a sharded one where vectors must be whole, and names the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from landscape.loss.objective import Objective
from landscape.loss.same_function import same_function
from landscape.model.precision import full_float32
from landscape.plain_numbers import with_plain_numbers

P = ParamSpec("P")
Result = TypeVar("Result")


def of_objective(function: Callable[P, Result]) -> Callable[P, Result]:
    """A function that raises TypeError unless its first argument is an Objective, or several by name.

    It raises ValueError for an Objective of a model under FSDP2, because it computes with whole vectors. Arguments that
    should be numbers, and are none, are refused too. TF32 and autocast are off, in the model and in the function's own
    sums. The function raises ValueError if the model changes meanwhile.
    """
    return _of_whole_vectors(of_whole_or_sharded(function))


def of_whole_or_sharded(function: Callable[P, Result]) -> Callable[P, Result]:
    """The same for a function that takes models under FSDP2 too."""

    @wraps(function)
    def watched(*arguments: P.args, **options: P.kwargs) -> Result:
        with same_function(_objectives(arguments, options)):
            return function(*arguments, **options)

    return _of_objectives(watched)


def of_weights(function: Callable[P, Result]) -> Callable[P, Result]:
    """The same as `of_objective` for a function of the weights alone, which runs no pass that the model could count."""
    return _of_whole_vectors(_of_objectives(function))


def _of_whole_vectors(function: Callable[P, Result]) -> Callable[P, Result]:
    @wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> Result:
        for one in _objectives(arguments, options):
            check_whole_vectors(one, function.__name__)
        return function(*arguments, **options)

    return checked


def _of_objectives(function: Callable[P, Result]) -> Callable[P, Result]:
    computes = with_plain_numbers(function)

    @wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> Result:
        for one in _objectives(arguments, options):
            if not isinstance(one, Objective):
                raise TypeError(
                    f"objective: must be an Objective, got {type(one).__name__}; wrap it: "
                    "Objective(model, loss_fn, data)"
                )
        with full_float32():
            return computes(*arguments, **options)

    return checked


def check_whole_vectors(objective: object, what: str) -> None:
    """Raises ValueError if each rank holds only a part of the vectors that something computes with."""
    if isinstance(objective, Objective) and objective.ranks.share_vectors:
        raise ValueError(
            f"objective: {what} computes with whole vectors, of which each rank has only a part under FSDP2 "
            "(fully_shard); losses, gradients, products, top_eigenvalues, trace and line take such a model; for others "
            "measure a model without it, loaded from a full state dict"
        )


def _objectives(arguments: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    subject: Any = arguments[0] if arguments else options.get("objective", options.get("objectives"))
    return list(subject.values()) if isinstance(subject, Mapping) else [subject]
