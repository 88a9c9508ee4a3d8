"""Functions of one objective whose arguments are those of a function of several objectives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from landscape.loss.objective import Objective

P = ParamSpec("P")
One = TypeVar("One")


def with_arguments_of(
    several: Callable[Concatenate[Mapping[str, Objective], P], dict[str, One]],
) -> Callable[[Callable[..., One]], Callable[Concatenate[Objective, P], One]]:
    """A decorator: the function gets the signature of `several`, but takes one objective in the place of the first.

    So each argument and its default stand in one place, and both functions show them.
    """

    def decorate(of_one: Callable[..., One]) -> Callable[Concatenate[Objective, P], One]:
        first = next(iter(inspect.signature(of_one).parameters.values()))
        shared = inspect.signature(several)
        _, *others = shared.parameters.values()
        result = inspect.signature(of_one).return_annotation
        of_one.__signature__ = shared.replace(  # type: ignore[attr-defined]
            parameters=[first, *others], return_annotation=result
        )
        return of_one

    return decorate
