"""Refuses a model in the place of an Objective, and names the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from landscape.loss.objective import Objective
from landscape.loss.precision import full_float32

P = ParamSpec("P")
Result = TypeVar("Result")


def of_objective(function: Callable[P, Result]) -> Callable[P, Result]:
    """A function that raises TypeError unless its first argument is an Objective, or several by name.

    The function computes in all of float32, its own sums as well as the model.
    """

    @wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> Result:
        subject: Any = arguments[0] if arguments else options.get("objective", options.get("objectives"))
        for one in subject.values() if isinstance(subject, Mapping) else [subject]:
            if not isinstance(one, Objective):
                raise TypeError(
                    f"objective: must be an Objective, got {type(one).__name__}; wrap it: "
                    "Objective(model, loss_fn, data)"
                )
        with full_float32():
            return function(*arguments, **options)

    return checked
