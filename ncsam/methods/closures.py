"""A closure in the place of a batch. All passes of a step must find the inputs as the first one did."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ncsam.methods.passes import Passes


@contextmanager
def by_closure(passes: Passes, closure: Callable[[], Tensor]) -> Iterator[None]:
    """Inside the block, which is one step, each pass calls the closure, which returns the loss.

    A model that writes to its inputs would change those of the next pass, because a closure gives the same tensors
    again. Tensors that the closure itself holds or names, such as targets that its loss writes to, are put back.

    Raises:
        ValueError: from the second pass on, if a tensor that the model got in the first one was written to.
    """
    inputs = _Inputs()

    def run(*_: object) -> Tensor:
        inputs.check()
        return closure()

    kept = passes.run, passes.loss_fn, passes.count
    passes.run, passes.loss_fn, passes.count = run, lambda loss, _: loss, None
    # a compiled model would be compiled again for a hook
    is_compiled = hasattr(passes.module, "_orig_mod")
    hook = None if is_compiled else passes.module.register_forward_pre_hook(inputs, with_kwargs=True)
    try:
        yield
    finally:
        passes.run, passes.loss_fn, passes.count = kept
        if hook is not None:
            hook.remove()


class _Inputs:
    """The tensors that the model got in the first pass, and how often each had been written to by then."""

    def __init__(self) -> None:
        self.passes = 0
        self.seen: list[tuple[weakref.ref[Tensor], int]] = []

    def __call__(self, _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.passes == 1:
            leaves = tree_leaves((arguments, options))
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_inference()]
            self.seen += [(weakref.ref(tensor), tensor._version) for tensor in tensors]

    def check(self) -> None:
        """Begins a pass; raises ValueError if an input of the first one was written to."""
        self.passes += 1
        held = ((reference(), version) for reference, version in self.seen)
        if any(tensor is not None and tensor._version != version for tensor, version in held):
            raise ValueError(
                "closure: the model writes to its inputs, such as by nn.ReLU(inplace=True) as its first layer, so that "
                "the next pass of the step would see other inputs; let the closure give the model a clone, "
                "model(inputs.clone()), or call backward(inputs, targets)"
            )
