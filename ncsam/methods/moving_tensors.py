"""Which large tensors passes move: only these are copied in each step, and the others are watched."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

LARGE = 1 << 16
"""Numbers from which a tensor is copied only if passes move it."""


class MovingTensors:
    """What is known of the tensors of one training.

    A tensor is looked at in steps 1, 4, 16, 64 and so on, in which it is copied and compared: a write through `.data`
    leaves no other trace. In the steps between, one that stayed is watched by its version and its address.
    """

    def __init__(self) -> None:
        self._moves = WeakIdKeyDictionary()
        self._steps = 0
        self._next_look = 1
        self.looks = True

    def __reduce__(self) -> tuple[type[MovingTensors], tuple[()]]:
        # a copy of a method has other tensors
        return MovingTensors, ()

    def begin_step(self) -> None:
        """Counts a step, whose pass at w follows."""
        self._steps += 1
        self.looks = self._steps == self._next_look
        if self.looks:
            self._next_look *= 4

    def end_look(self) -> None:
        """Ends the look of this step; its pass at w is over."""
        self.looks = False

    def is_still(self, tensor: Tensor) -> bool:
        """Whether a tensor is large and no pass is known to move it, so that it needs no copy now."""
        return tensor.numel() >= LARGE and not self.looks and self._moves.get(tensor, True) is False

    def note(self, tensor: Tensor, *, moved: bool) -> None:
        """Takes down whether a pass moved a tensor. One that has moved once counts as moving."""
        if tensor.numel() >= LARGE:
            self._moves[tensor] = moved or self._moves.get(tensor, False)

    def is_known_to_move(self, tensor: Tensor) -> bool:
        """Whether no look can tell more."""
        return tensor.numel() < LARGE or self._moves.get(tensor, False)
