"""A method's gradient of a loss that another library's training loop computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ncsam.methods.method import Method
from ncsam.methods.passes import Passes
from ncsam.methods.perturbation import trainable_parameters


def computed_by_the_loop(*_: object) -> Tensor:
    """The `loss_fn` of a method whose loss is computed by the training loop.

    Raises:
        RuntimeError: always. `method.backward(inputs, targets)` calls it.
    """
    raise RuntimeError(
        "loss_fn: the training loop computes the loss; this method cannot be called with a batch"
    )


def fill_gradients(
    method: Method, first: Callable[[], Tensor], again: Callable[[], Tensor], *, hooks: bool
) -> Tensor:
    """Adds the method's gradient to `.grad`. Returns the loss at the unperturbed weights, detached.

    Args:
        method: a method with the loss `computed_by_the_loop`, of the model without wrappers.
        first: the loop's loss at the current weights, for the method's first pass.
        again: computes the same loss at the model's weights of that moment, for each further pass.
        hooks: whether DistributedDataParallel has prepared a backward pass, which its hooks on `.grad` finish.
    """
    passes = iter([first])

    def closure() -> Tensor:
        return next(passes, again)()

    with _finished_by_hooks(method.passes) if hooks else nullcontext():
        return method.backward(closure=closure)


@contextmanager
def _finished_by_hooks(passes: Passes) -> Iterator[None]:
    """A context in which gradients that a method sums by hand pass through autograd, and so through DDP's hooks."""

    def accumulate(gradients: list[Tensor]) -> None:
        parameters: list[nn.Parameter] = trainable_parameters(passes.module)
        torch.autograd.backward(parameters, gradients)

    passes.accumulate = accumulate  # type: ignore[method-assign]
    try:
        yield
    finally:
        del passes.accumulate
