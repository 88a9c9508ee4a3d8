"""Training dynamics: loss, margin and prediction of each training sample, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

NO_CLASS = -1
"""The prediction from outputs with a NaN."""


@dataclass(frozen=True)
class TrainingDynamics:
    """The losses, margins and predictions of the training samples at the end of each epoch, in evaluation mode.

    Attributes:
        losses: float32 (epochs, n), cross-entropy with the observed label, in nat. It is infinite for a label of
            probability 0, and NaN if an output is NaN or several outputs are +inf.
        margins: float32 (epochs, n), the observed label's logit minus the largest of the other logits (Pleiss et al.
            2020, equation 1).
        predictions: int16 (epochs, n), int32 for more classes than int16 can number: the predicted class; -1 if an
            output is NaN.

    Raises:
        ValueError: predictions of a class below -1, as earlier versions recorded them for more than 32,767 classes.
    """

    losses: Tensor
    margins: Tensor
    predictions: Tensor

    def __post_init__(self) -> None:
        if bool((self.predictions < NO_CLASS).any()):
            raise ValueError(
                f"predictions: hold the class {int(self.predictions.min())}; earlier versions recorded classes above "
                "32,767 so; record them anew"
            )

    @property
    def epochs(self) -> int:
        """The number of recorded epochs."""
        return len(self.losses)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.losses.shape[1]


class Recorder:
    """Collects the dynamics of a training, one epoch after the other.

    Args:
        labels: int64 (n,), the observed ones.

    Raises:
        ValueError: samples without a class, or with several.
    """

    def __init__(self, labels: Tensor) -> None:
        if labels.ndim != 1 or bool((labels < 0).any()):
            raise ValueError(
                "record_samples: needs one class for each sample, and has labels of positions or ignored ones; leave "
                "record_samples out"
            )
        self._labels = labels
        empty = torch.empty(0, len(labels), device="cpu")
        self.dynamics = TrainingDynamics(empty, empty.clone(), empty.to(torch.int16))

    def record(self, outputs: Tensor) -> None:
        """Adds an epoch: outputs (n, classes) of the training samples.

        Raises:
            ValueError: outputs that are no class scores.
        """
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ValueError(
                f"record_samples: needs outputs (samples, classes) of two classes or more, got {tuple(outputs.shape)}"
            )
        outputs = outputs.detach().float()
        columns = self._labels.unsqueeze(1)
        margins = outputs.gather(1, columns).squeeze(1) - outputs.scatter(1, columns, -torch.inf).amax(1)
        losses = functional.cross_entropy(outputs, self._labels, reduction="none")
        # torch returns NaN for an output of +inf, although the loss has a limit
        losses = losses.masked_fill(margins == -torch.inf, torch.inf).masked_fill(margins == torch.inf, 0)
        # scores with a NaN among them have no largest one
        predictions = torch.where(outputs.isnan().any(1), NO_CLASS, outputs.argmax(1)).to(_dtype_for(outputs))
        old = self.dynamics
        self.dynamics = TrainingDynamics(
            torch.cat([old.losses, losses.cpu()[None]]),
            torch.cat([old.margins, margins.cpu()[None]]),
            torch.cat([old.predictions, predictions.cpu()[None]]),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The dynamics of the epochs so far."""
        return dict(vars(self.dynamics))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continues after the epochs of an earlier process."""
        self.dynamics = TrainingDynamics(**{name: tensor.cpu() for name, tensor in state.items()})


def _dtype_for(outputs: Tensor) -> torch.dtype:
    """The shortest dtype, from int16 on, that numbers all classes of outputs (n, classes)."""
    return torch.int16 if outputs.shape[1] - 1 <= torch.iinfo(torch.int16).max else torch.int32
