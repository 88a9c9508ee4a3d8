"""What becomes of state in a step of several passes: it moves by the pass at w, as in an ordinary step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ncsam.methods.moving_tensors import MovingTensors
from ncsam.methods.perturbation import unmoved_buffers
from ncsam.methods.sharded import is_sharded
from ncsam.methods.state import State


@dataclass(eq=False)
class StepState:
    """The state in one step.

    Attributes:
        before: the state that the pass at w began with; None before that pass.
        tensors: which large tensors passes move, as earlier steps have told.
    """

    before: State | None = None
    tensors: MovingTensors = field(default_factory=MovingTensors)

    def forget(self) -> None:
        """Ends the step."""
        self.before = None

    @contextmanager
    def moving(self, model: nn.Module, others: Sequence[Any]) -> Iterator[None]:
        """A block with the pass at w, by which the state moves.

        Raises:
            ValueError: state moved that is too large to be kept aside.
        """
        self.before = None
        if is_sharded(model):
            yield
            return
        self.tensors.begin_step()
        self.before = State.of(model, others, self.tensors, is_read=True)
        yield
        self.before.note_moves()
        self.tensors.end_look()
        self.before.check_watched()

    @contextmanager
    def unmoved(self, model: nn.Module, others: Sequence[Any]) -> Iterator[State | None]:
        """A block whose passes begin where the pass at w began, and after which the state is as before the block.

        Yields:
            The state before the block; None under FSDP2, where it is that of buffers alone.

        Raises:
            ValueError: state moved that is too large to be kept aside.
        """
        if is_sharded(model):
            # each rank holds parts of the weights, which FSDP moves by itself
            with unmoved_buffers(model):
                yield None
            return
        after = State.of(model, others, self.tensors)
        try:
            if self.before is not None:
                self.before.restore()
            yield after
        finally:
            after.note_moves_of_still()
            after.restore()
        after.check_watched()
