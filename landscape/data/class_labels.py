"""Checks that all labels are classes of the model, before a loss meets one that is none in the middle of the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.data.complex_numbers import is_whole
from landscape.data.counts import Pair


@dataclass
class LabelBounds:
    """The least and the largest label that counts, of the data that were noted, and the sample that holds each.

    Attributes:
        ignored: the label that the loss leaves out; None for a loss without classes, whose targets are not noted.
    """

    ignored: int | None
    _samples: int = 0
    _found: list[tuple[int, int]] = field(default_factory=list)

    def note(self, pair: Pair) -> None:
        """Notes the labels of some more samples."""
        targets = pair[1]
        if (
            self.ignored is None
            or not isinstance(targets, Tensor)
            or not is_whole(targets)
            or not targets.ndim
        ):
            return
        start, self._samples = self._samples, self._samples + len(targets)
        places = targets.numel() // max(1, len(targets))
        counted = targets.flatten()
        kept = (counted != self.ignored).nonzero().flatten()
        if not len(kept) or counted.dtype == torch.bool:
            return
        labels = counted[kept]
        for place in (labels.argmin(), labels.argmax()):
            self._found.append((int(labels[place]), start + int(kept[place]) // places))

    def check(self, outputs: Tensor) -> None:
        """Checks that the noted labels are classes of these outputs (samples, classes, ...).

        Raises:
            ValueError: one is none. The message names the sample and the remedy.
        """
        if not self._found or outputs.ndim < 2:
            return
        classes = outputs.shape[1]
        for label, sample in (min(self._found), max(self._found)):
            if not 0 <= label < classes:
                raise ValueError(
                    f"data: the target of sample {sample} is {label}, and the model has {classes} classes, 0 to "
                    f"{classes - 1}; number the labels from 0, or, if {label} marks what has no label, let the loss "
                    f"leave it out: ignore_index={label}"
                )
