"""What becomes of state in a step of several passes: it moves by the pass at w, as in an ordinary step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ncsam.methods.moving_tensors import MovingTensors
from ncsam.methods.perturbation import unmoved_buffers
from ncsam.methods.sharded import is_sharded
from ncsam.methods.state import State
from ncsam.methods.written_weights import CopiedWeights
from ncsam.random_state import GeneratorStates


@dataclass(eq=False)
class StepState:
    """The state in one step.

    Attributes:
        before: the state that the pass at w began with; None before that pass, and where the following passes begin
            with the state that it left.
        tensors: which large tensors passes move, as earlier steps have told.
        draws: where torch's generators stood when the pass at w began.
        left: the state that the pass at w left, inside a block whose passes must set up as much as that one.
    """

    before: State | None = None
    tensors: MovingTensors = field(default_factory=MovingTensors)
    draws: GeneratorStates | None = None
    left: State | None = None

    def forget(self) -> None:
        """Ends the step."""
        self.before = self.draws = self.left = None

    def check_set_up(self) -> None:
        """Raises ValueError if a pass has not set up in the model what the pass at w did, such as its hooks."""
        if self.left is not None and not self.left.set_up.is_repeated():
            raise ValueError(
                "model: its first pass registers hooks or parts, and remembers that outside of the attributes of its "
                "modules, so that the second pass of the step would compute another function; run the model once "
                "before the first step, model(inputs)"
            )

    @contextmanager
    def moving(self, model: nn.Module, others: Sequence[Any]) -> Iterator[None]:
        """A block with the pass at w, by which the state moves.

        If the pass writes to trained weights, as an initialization by the first batch does, what says so stays with
        them: the following passes begin with the state that it left.

        Raises:
            ValueError: state moved that is too large to be kept aside, or the pass made weights to train.
        """
        self.before = None
        if is_sharded(model):
            yield
            return
        self.tensors.begin_step()
        before = self.before = State.of(model, others, self.tensors, is_read=True)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.draws = GeneratorStates.now(device)
        weights = CopiedWeights.of(model) if self.tensors.looks else None
        yield
        if before.set_up.has_changed():
            before.set_up.check_weights(model)
        before.note_moves()
        self.tensors.end_look()
        before.check_watched()
        if weights is not None and weights.are_written():
            self.before = None

    @contextmanager
    def unmoved(self, model: nn.Module, others: Sequence[Any]) -> Iterator[State | None]:
        """A block whose passes begin where the pass at w began, and after which the state is as before the block.

        If that pass set up something, such as a part with random weights, they set it up with the same random numbers.

        Yields:
            The state before the block; None under FSDP2, where it is that of buffers alone.

        Raises:
            ValueError: state moved that is too large to be kept aside, or a pass made weights to train.
        """
        if is_sharded(model):
            # each rank holds parts of the weights, which FSDP moves by itself
            with unmoved_buffers(model):
                yield None
            return
        after = State.of(model, others, self.tensors)
        sets_up = self.before is not None and self.before.has_been_added_to()
        outer = self.left
        try:
            if self.before is not None:
                self.before.restore()
            self.left = after if sets_up else None
            with self.draws.again() if sets_up and self.draws is not None else nullcontext():
                yield after
            if after.set_up.has_changed():
                after.set_up.check_weights(model)
        finally:
            self.left = outer
            after.note_moves_of_still()
            after.restore()
        after.check_watched()
