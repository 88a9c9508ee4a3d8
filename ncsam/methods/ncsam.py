"""NCSAM: Noise-Compensated SAM, Algorithm 1 of arXiv:2601.19947 (equation numbers are those of version 3)."""

from __future__ import annotations

import math
import zlib
from contextlib import nullcontext
from typing import Any, Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ncsam.methods.batches import Batch, OfBatch, rows_of
from ncsam.methods.known_losses import ignored_label
from ncsam.methods.perturbation import Ascent, Compensation, stored_batch_norm_statistics
from ncsam.methods.requirements import Requirements
from ncsam.methods.sam import SAM
from ncsam.methods.sharded import own_parts
from ncsam.methods.simulated_noise import (
    confidence_gaps,
    draw_probabilities,
    draw_without_replacement,
    temporary_labels,
    uniform_other_labels,
)
from ncsam.methods.tensor_lists import norm, project_onto_ball, scaled_to
from ncsam.methods.training_loss import TrainingLoss
from ncsam.options import check_share

CHOICES = {
    "draw": ("low-margin", "uniform", "whole-batch"),
    "labels": ("runner-up", "uniform"),
    "direction": ("simulated", "random"),
    "schedule": ("progressive", "constant"),
    "warmup_with": ("plain", "sam"),
}


class CompensationOptions(TypedDict, total=False):
    """The options of `NCSAM` that it shares with methods that simulate the noise in another way."""

    rho: Required[float]
    flip_ratio: Required[float]
    strength: Required[float]
    compensation: int
    warmup: float
    warmup_with: str
    schedule: str
    direction: str
    seed: int


def progressive_scale(progress: float) -> float:
    """Eq. 15 without kappa: min(1, r(t)) with r(t) = 2 (3 - 2 t) t^2, where t is the share of the training done."""
    return min(1.0, 2 * (3 - 2 * progress) * progress**2)


class NCSAM(SAM):
    """SAM whose perturbation is shifted along a simulated label-noise gradient and projected on the rho-ball.

    A share `flip_ratio` of each batch is drawn and gets temporary labels; samples with a small margin are drawn more
    often. g* is the gradient of these samples' loss. The perturbation is Proj(rho g / ||g|| + s(t) g*) (Eq. 12, 13). In
    the warm-up the gradient is the ordinary one.

    Set `method.progress = epoch / epochs` (epochs counted from 1) at the start of each epoch, as `fit()` does.

    g* takes a pass of its own over the drawn samples. So a step costs 2 + flip_ratio gradients, as in the paper; a
    second backward pass of the whole batch would cost more. In this pass BatchNorm normalizes by the drawn samples, or
    by its stored statistics if only one sample is drawn.

    Args:
        model: in training mode, with outputs (batch, classes).
        loss_fn: (outputs, targets) -> mean loss.
        rho: radius of the perturbation in weight space, l2.
        flip_ratio: share of the batch that is drawn, rounded down to whole samples; 0 to 1. 0 is SAM.
        strength: kappa, in weight units per gradient unit; at least 0. 0 is SAM.
        compensation: +1, the paper's sign; -1, the ablation that moves against g*.
        warmup: share of the training with plain gradients; the paper has 50 of 200 epochs.
        warmup_with: `"plain"` or `"sam"` gradients in the warm-up.
        schedule: `"progressive"`, Eq. 15; `"constant"`, s(t) = kappa (ablation of Table VII).
        project: whether the perturbation is projected onto the ball of Eq. 13. The authors' later code does not
            project.
        draw: `"low-margin"`, Eq. 17; `"uniform"`, a control. `"whole-batch"`: g* is the gradient of all samples. Each
            has a temporary label with probability `flip_ratio`, and its observed label otherwise. With
            `labels="uniform"` this is symmetric label noise that is drawn anew at each step, a control.
        labels: `"runner-up"`, Eq. 18; `"uniform"` over the other classes, a control.
        direction: `"simulated"`, g*; `"random"`, a control: a Gaussian direction with the norm of g*.
        label_smoothing: if above 0, g* is the gradient of a cross-entropy with this smoothing; if 0, of the training
            loss. The authors' later code has 0.1.
        seed: seed of the draws. Several ranks need different seeds, or all draw the same positions.
        of_batch: `forward` and `count`, see `Method`.
    """

    requires = Requirements(classes=True)
    takes_classes_of_positions = True

    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        rho: float,
        flip_ratio: float,
        strength: float,
        compensation: int = 1,
        warmup: float = 0.25,
        warmup_with: str = "plain",
        schedule: str = "progressive",
        project: bool = True,
        draw: str = "low-margin",
        labels: str = "runner-up",
        direction: str = "simulated",
        label_smoothing: float = 0.0,
        seed: int = 0,
        **of_batch: Unpack[OfBatch],
    ) -> None:
        super().__init__(model, loss_fn, rho=rho, warmup=warmup, **of_batch)
        check_share("flip_ratio", flip_ratio)
        check_share("label_smoothing", label_smoothing)
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength: kappa must be at least 0 and finite, got {strength}")
        if compensation not in (1, -1):
            raise ValueError(f"compensation: the sign must be +1 or -1, got {compensation}")
        chosen = {
            "draw": draw,
            "labels": labels,
            "direction": direction,
            "schedule": schedule,
            "warmup_with": warmup_with,
        }
        for name, value in chosen.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: must be one of {', '.join(CHOICES[name])}, got {value!r}")
        self.flip_ratio = flip_ratio
        self.strength = strength
        self.compensation = compensation
        self.warmup_with = warmup_with
        self.schedule = schedule
        self.project = project
        self.draw = draw
        self.labels = labels
        self.direction = direction
        self.label_smoothing = label_smoothing
        device = next(model.parameters()).device
        self.generator = torch.Generator(device).manual_seed(seed)

    def scale(self) -> float:
        """s(t) of Eq. 15, times the sign of the compensation."""
        share = 1.0 if self.schedule == "constant" else progressive_scale(self.known_progress())
        return self.compensation * self.strength * share

    def fill_warmup_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the warm-up to `.grad`: the ordinary gradient, or that of SAM."""
        if self.warmup_with == "plain" or self.rho == 0:
            return super().fill_warmup_gradients(inputs, targets, indices)
        self.ascent = super().ascend(inputs, targets, indices)
        self.descend(self.ascent, inputs, targets, indices)
        return self.ascent.loss

    @property
    def stays_at_w(self) -> bool:
        """Whether the ball has only one point. Without the projection, s(t) g* leaves it."""
        return self.rho == 0 and self.project

    def ascend(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Ascent:
        """Steps 1 to 6 of Algorithm 1. The forward pass of g_B also gives the logits from which samples are drawn."""
        loss, logits, at_w = self.passes.gradient(inputs, targets, indices, moves_statistics=True)
        self._check_scores(logits, targets)
        to_rho = scaled_to(at_w, self.rho)
        drawn, labels = self._drawn(logits.movedim(1, -1).flatten(0, -2), targets.flatten())
        scale = self.scale()
        self.passes.ranks.check_that_all_have(len(drawn), "samples to relabel")
        if scale == 0 or (len(drawn) == 0 and not self.passes.averages):
            return Ascent(loss, at_w, to_rho)
        simulated = self._simulated_gradient(inputs, targets, indices, drawn, labels)
        # in place, because each list as long as the weights costs a small network as much as a layer
        torch._foreach_add_(to_rho, simulated, alpha=scale)
        projected = torch.zeros((), dtype=torch.bool, device=loss.device)
        if self.project:
            projected = project_onto_ball(to_rho, self.rho)
        return Ascent(loss, at_w, to_rho, Compensation(drawn, labels, simulated, scale, projected))

    def _check_scores(self, logits: Any, targets: Tensor) -> None:
        is_tensor = isinstance(logits, Tensor)
        fits = is_tensor and logits.ndim > 1 and logits.movedim(1, -1).shape[:-1] == targets.shape
        if not fits or logits.shape[1] < 2:
            found = tuple(logits.shape) if is_tensor else type(logits).__name__
            raise ValueError(
                f"model: NCSAM needs outputs (batch, at least 2 classes), got shape {found} for targets of shape "
                f"{tuple(targets.shape)}; for classes of positions, (batch, classes, ...) as cross-entropy takes them, "
                "to which forward= can bring them"
            )

    def _drawn(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`simulated_labels` of the positions whose labels the loss does not ignore."""
        kept = self._labeled(targets, logits.shape[1])
        if kept is None:
            return self.simulated_labels(logits, targets)
        drawn, labels = self.simulated_labels(logits[kept], targets[kept])
        return kept[drawn], labels

    def _labeled(self, labels: Tensor, classes: int) -> Tensor | None:
        """The positions whose labels (m,) the loss does not ignore; None where these are all.

        Raises:
            ValueError: one of these labels is no class, or the ignored label is one.
        """
        ignored = ignored_label(self.loss_fn)
        if ignored is not None and 0 <= ignored < classes:
            raise ValueError(
                f"loss_fn: ignores the label {ignored}, which is one of the {classes} classes, so that temporary "
                "labels may be it; mark positions without a label by another number, such as -100"
            )
        # two numbers tell that no label is outside, which is so in nearly all batches
        if (
            len(labels)
            and min(bounds := torch.stack(labels.aminmax()).tolist()) >= 0
            and max(bounds) < classes
        ):
            return None
        kept = torch.arange(len(labels), device=labels.device)
        if ignored is not None:
            kept = kept[labels != ignored]
        outside = labels[kept][(labels[kept] < 0) | (labels[kept] >= classes)]
        if len(outside):
            raise ValueError(
                f"targets: has the label {int(outside[0])}, which is none of the {classes} classes; a loss that "
                "ignores a label must say which, as nn.CrossEntropyLoss does by its attribute ignore_index"
            )
        return kept

    def simulated_labels(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the samples to relabel, int64 (m,), and their temporary labels, int64 (m,)."""
        if self.draw == "whole-batch":
            return self._labels_of_all(logits, targets)
        # the small number keeps 0.29 of 100 samples from becoming 28.999..., which would be cut to 28
        count = math.floor(self.flip_ratio * len(targets) + 1e-9)
        if self.draw == "uniform":
            probabilities = torch.full_like(logits[:, 0], 1 / len(targets))
        else:
            probabilities = draw_probabilities(confidence_gaps(logits))
        drawn = draw_without_replacement(probabilities, count, self.generator)
        return drawn, self._other_labels(logits.index_select(0, drawn), targets.index_select(0, drawn))

    def _labels_of_all(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        chance = torch.rand(targets.shape, generator=self.generator, device=targets.device)
        labels = torch.where(chance < self.flip_ratio, self._other_labels(logits, targets), targets)
        return torch.arange(len(targets), device=targets.device), labels

    def _other_labels(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.labels == "uniform":
            return uniform_other_labels(targets, logits.shape[1], self.generator)
        return temporary_labels(logits, targets)

    def _simulated_gradient(
        self, inputs: Batch, targets: Tensor, indices: Tensor | None, drawn: Tensor, labels: Tensor
    ) -> list[Tensor]:
        """g*, or the random direction that a control puts in its place."""
        smoothed = nn.CrossEntropyLoss(label_smoothing=self.label_smoothing) if self.label_smoothing else None
        if len(drawn) == 0:
            # this rank drew no sample, but the other ranks wait for it
            return self._directed(self.passes.gradient_without_samples(smoothed))
        if targets.ndim > 1:
            drawn, labels = self._relabeled(targets, drawn, labels, smoothed)
        of_drawn = indices[drawn] if indices is not None else None
        # BatchNorm has no statistics of a single sample
        with stored_batch_norm_statistics(self.passes.module) if len(drawn) == 1 else nullcontext():
            part = rows_of(inputs, drawn)
            return self._directed(self.passes.gradient(part, labels, of_drawn, loss_fn=smoothed)[2])

    def _relabeled(
        self, targets: Tensor, drawn: Tensor, labels: Tensor, smoothed: nn.Module | None
    ) -> tuple[Tensor, Tensor]:
        """The samples with a drawn position, and labels: temporary ones at drawn positions, ignored ones elsewhere."""
        ignored = ignored_label(smoothed or self.loss_fn)
        if ignored is None:
            raise ValueError(
                "loss_fn: NCSAM relabels single positions, and so needs a loss that ignores the others; use "
                "nn.CrossEntropyLoss, or a loss with an attribute ignore_index"
            )
        temporary = torch.full_like(targets, ignored).flatten()
        temporary[drawn] = labels
        rows = (drawn // targets[0].numel()).unique()
        return rows, temporary.view_as(targets)[rows]

    def _directed(self, found: list[Tensor]) -> list[Tensor]:
        """g*, or a random direction with the norm of g*, which ranks that average have in common."""
        if self.direction == "simulated":
            return found
        noise = [torch.empty_like(tensor) for tensor in found]
        for part in own_parts(noise):
            part.normal_(generator=self.generator)
        if self.passes.averages:
            # the mean of Gaussian directions is one, and each rank still draws from its own generator
            self.passes.average(noise)
        return scaled_to(noise, norm(found))

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, the random state of the draws included."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        super().load_state_dict(state)
        drawn_with = state["generator"].cpu()
        if drawn_with.shape == self.generator.get_state().shape:
            self.generator.set_state(drawn_with)
        else:
            # the state comes from another kind of device, whose draws this device cannot continue
            self.generator.manual_seed(zlib.crc32(drawn_with.numpy()))
