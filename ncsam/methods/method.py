"""The base of all methods: a method fills `.grad`, and may begin with a warm-up."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from ncsam.methods.arguments import described, with_known_arguments
from ncsam.methods.batches import Batch, Count, Forward, check_batch, samples_in
from ncsam.methods.call_checks import check_is_no_loss, check_model_and_loss, missing_attribute
from ncsam.methods.closures import by_closure
from ncsam.methods.passes import Passes
from ncsam.methods.perturbation import Ascent
from ncsam.methods.positions import checked_positions
from ncsam.methods.rank_means import has_ranks, let_ranks_draw_differently
from ncsam.methods.requirements import Requirements
from ncsam.methods.sharded import is_sharded
from ncsam.methods.training_loss import TrainingLoss, remembers_samples
from ncsam.methods.training_set import TrainingSet
from ncsam.methods.weight_checks import check_that_it_can_be_written, check_that_none_is_cached
from ncsam.options import check_is_tensor, check_share

FORMER_ATTRIBUTES = {
    "needs_peer": "peer",
    "needs_one_process": "one_process",
    "mixes_inputs": "mixable_inputs",
    "needs_classes": "classes",
}
"""Attributes of a method's class up to version 0.2, and the requirement that replaced each."""


class Method(ABC):
    """A way to fill `.grad`: `method.backward(inputs, targets)` takes the place of `loss.backward()`.

    A subclass computes its gradient in `fill_own_gradients`. Any method can have a warm-up: in the share `warmup` of
    the training, at its start, the gradient is the ordinary one.

    Args:
        model: in training mode. It may be wrapped in DistributedDataParallel, sharded by `fully_shard`, or compiled.
        loss_fn: (outputs, targets) -> mean loss over the samples.
        warmup: share of the training with ordinary gradients, 0 to 1; needs `progress`.
        forward: (model, batch) -> outputs, for `backward(batch)`. The loss is then called with (outputs, batch).
        count: batch -> weight of its mean loss among micro-batches: samples, tokens, or a sum of weights.

    Attributes:
        passes: precision, loss scaling, micro-batches and ranks; set them there.
        gradient_count: gradients spent so far, in gradients of a batch.
        ascent: the first half of the last step, where the method perturbs the weights; None otherwise.
        rho: radius of the perturbation in weight space; None for methods without one.
        epoch_share: 1 / epochs, for schedules that count from the first epoch; `fit()` sets it. 0: an epoch counts as
            no share of the training.
        requires: what the method requires of the training: a peer, classes, mixable inputs, a single process, whole
            weights.
        predicts_by_several: several networks predict together, so that no single landscape is the method's.
        takes_classes_of_positions: the targets may be classes of positions, such as tokens or pixels.
        takes_ignored_labels: a method that requires classes leaves out samples whose label the loss ignores. A method
            that takes classes of positions does so too.
        runs_gradient_hooks: hooks that run once a gradient is accumulated find the weights unperturbed.
        arguments: the settings that the method was made with, by name: numbers, words, lists of them, and tensors.

    Raises:
        TypeError: the model is no module, or the loss cannot be called.
        ValueError: the warm-up is not a share, or the model is sharded or runs in several processes, which the method
            does not allow.
    """

    requires: ClassVar[Requirements] = Requirements()
    predicts_by_several: ClassVar[bool] = False
    takes_classes_of_positions: ClassVar[bool] = False
    takes_ignored_labels: ClassVar[bool] = False
    runs_gradient_hooks: ClassVar[bool] = False
    arguments: dict[str, Any]

    def __init_subclass__(cls) -> None:
        """Lets all methods check the numbers among their arguments, and remember their settings.

        Raises:
            TypeError: an attribute that `requires` replaced, so that no requirement is ignored.
        """
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = with_known_arguments(cls.__init__)  # type: ignore[method-assign]
        for former, requirement in FORMER_ATTRIBUTES.items():
            if former in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{former}: declare `requires = Requirements({requirement}=True)` in its place"
                )

    def __repr__(self) -> str:
        """The method with those of its settings that are not the defaults, such as "SAM(rho=0.1)"."""
        return described(self, self.arguments)

    @with_known_arguments
    def __init__(
        self,
        model: nn.Module,
        loss_fn: TrainingLoss,
        *,
        warmup: float = 0.0,
        forward: Forward | None = None,
        count: Count | None = None,
    ) -> None:
        check_model_and_loss(model, loss_fn)
        check_share("warmup", warmup)
        self._check_processes(model)
        let_ranks_draw_differently(loss_fn, model)
        self.passes = Passes(model, loss_fn, run=forward, count=count)
        self.gradient_count = 0.0
        self.ascent: Ascent | None = None
        self.rho: float | None = None
        self.warmup = warmup
        self._progress: float | None = None
        self._follows_progress = False
        self.epoch_share = 0.0

    if not TYPE_CHECKING:  # a type checker would take any attribute for one that a method has

        def __getattr__(self, name: str) -> Any:
            """Says what to do where a method is taken for an optimizer."""
            raise AttributeError(missing_attribute(self, name), name=name, obj=self)

    @property
    def progress(self) -> float | None:
        """Share of the training that is done, 0 to 1. Set it to epoch / epochs, as `fit()` does. None before it is set.

        Raises:
            ValueError: it is set to a number outside [0, 1], such as the number of the epoch.
        """
        self._follows_progress = True
        return self._progress

    @progress.setter
    def progress(self, share: float | None) -> None:
        # a schedule has no meaning beyond 1; that of NCSAM would change its sign
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"progress: must be a share in [0, 1], such as epoch / epochs, got {share}")
        self._progress = share

    def known_progress(self) -> float:
        """The progress, for methods that need it.

        Raises:
            ValueError: it was never set.
        """
        self._follows_progress = True
        if self._progress is None:
            raise ValueError(
                f"progress: the schedule of {type(self).__name__} needs it; set method.progress = epoch / epochs at "
                "each epoch's start"
            )
        return self._progress

    @property
    def follows_progress(self) -> bool:
        """Whether the method looked at its progress, so that its gradient depends on the number of epochs."""
        return self._follows_progress

    @property
    def model(self) -> nn.Module:
        """The model whose gradient is filled."""
        return self.passes.model

    @property
    def loss_fn(self) -> TrainingLoss:
        """The training loss."""
        return self.passes.loss_fn

    def networks(self) -> list[nn.Module]:
        """The networks that are trained: the model, and others that the method trains beside it."""
        return [self.model]

    def parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that an optimizer has to train."""
        return itertools.chain.from_iterable(network.parameters() for network in self.networks())

    def predictors(self) -> list[nn.Module]:
        """The networks whose mean outputs are the prediction: the trained model, or what the method makes of it."""
        return [self.passes.module]

    def before_epoch(self, train: TrainingSet) -> None:  # noqa: B027
        """Called before each epoch, for methods that look at the whole training set. `fit()` does it."""

    def after_step(self) -> None:  # noqa: B027
        """Called after each step of the optimizer, for methods that average weights. `fit()` does it."""

    def known_samples(self) -> int | None:
        """Number of training samples that the method or its loss knows by position; None if it knows none."""
        found: int | None = (
            getattr(self.loss_fn, "known_samples", None) if remembers_samples(self.loss_fn) else None
        )
        return found

    def known_positions(self, indices: Tensor | None, use: str) -> Tensor:
        """The positions of the samples, for methods that need them.

        Args:
            indices: as for `backward`.
            use: what the method does with single samples, for the error.

        Raises:
            ValueError: no positions were passed.
        """
        if indices is None:
            raise ValueError(f"indices: {type(self).__name__} {use}; pass their positions")
        return indices

    def check_whole_batch(self, reason: str) -> None:
        """Raises ValueError with the reason if the batch is to be cut into micro-batches."""
        if self.passes.micro_batch_size is not None:
            raise ValueError(f"micro_batch_size: {type(self).__name__} {reason}")

    def backward(
        self,
        inputs: Batch = None,
        targets: Batch = None,
        indices: Tensor | None = None,
        *,
        closure: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Adds the method's gradient to `.grad`. At the end, weights and modes are as they were before.

        Args:
            inputs: (batch, ...), or tensors in any tree; those of a dict are the model's arguments if it has arguments
                of these names. Without targets, a whole batch: `forward` runs the model on it, or `model(**batch)` for
                a dict, and the loss is called with (outputs, batch).
            targets: int64 (batch,), observed labels; (batch, ...) if the loss takes labels of positions.
            indices: int64 (batch,), positions of the samples in the training set, for methods and losses that
                remember single samples.
            closure: in the place of a batch, a function that returns the batch's loss at the model's current weights.
                It is called once for each gradient, and must compute the same function each time.

        Returns:
            The batch's mean loss at w, detached.

        Raises:
            TypeError: a method that needs classes gets them in a list or a NumPy array.
            ValueError: `progress` is needed and was never set, the method needs classes and got none, or `indices` are
                no positions of the batch's samples.
            RuntimeError: another rank failed; the message has its number and the cause. An error in the middle of an
                operation in which the ranks wait for each other ends its own rank alone.
        """
        with self.passes.ranks.announced():
            try:
                return self._backward(inputs, targets, indices, closure)
            finally:
                self.passes.forget_state()

    def _backward(
        self, inputs: Batch, targets: Batch, indices: Tensor | None, closure: Callable[[], Tensor] | None
    ) -> Tensor:
        if (closure is None) == (inputs is None):
            raise ValueError("inputs: give a batch, or a closure that returns its loss")
        check_is_no_loss(inputs)
        indices = checked_positions(indices, inputs, self.known_samples())
        before = self.passes.sample_gradients
        self.passes.takes_whole_batches = closure is None and targets is None
        if self.passes.takes_whole_batches:
            targets = inputs
        with by_closure(self.passes, closure) if closure is not None else nullcontext():
            try:
                loss = self.fill_gradients(inputs, targets, indices)
            except RuntimeError as error:
                if closure is None or "second time" not in str(error):
                    raise
                raise ValueError(
                    "closure: calls backward() itself; let it return the loss alone, without zero_grad() and backward()"
                ) from error
        self.gradient_count += (self.passes.sample_gradients - before) / (samples_in(inputs) or 1)
        return loss

    def fill_gradients(self, inputs: Batch, targets: Batch, indices: Tensor | None) -> Tensor:
        """Does what `backward` does, without counting gradients."""
        self._check_processes(self.passes.model)
        self._check_weights()
        check_batch(inputs, targets)
        if (self.requires.peer or self.requires.classes) and isinstance(targets, list | np.ndarray):
            check_is_tensor("targets", targets, "of classes, int64 (batch,)")
        if self.requires.peer and self.passes.averages:
            raise ValueError(
                f"average_over_ranks: {type(self).__name__} chooses among the samples of its own rank, and not of the "
                "whole batch; leave it False, so that each rank chooses by itself, or train in one process"
            )
        if self.requires.peer and not isinstance(targets, Tensor):
            raise ValueError(f"targets: {type(self).__name__} needs inputs and targets by themselves")
        if self.requires.classes and not isinstance(targets, Tensor):
            raise ValueError(
                f"targets: {type(self).__name__} needs classes by themselves; call backward(inputs, targets), where "
                "inputs may be a dict of the model's arguments without the labels, and say by "
                "forward=lambda model, inputs: model(**inputs).logits which outputs are the scores"
            )
        if self.requires.classes and (
            targets.is_floating_point() or (targets.ndim != 1 and not self.takes_classes_of_positions)
        ):
            raise ValueError(
                f"targets: {type(self).__name__} needs classes, int64 (batch,), got {targets.dtype} of shape "
                f"{tuple(targets.shape)}; do not mix labels with this method"
            )
        if self.requires.classes:
            targets = targets.long()
        self.ascent = None
        if self.is_warming_up():
            return self.fill_warmup_gradients(inputs, targets, indices)
        return self.fill_own_gradients(inputs, targets, indices)

    def _check_processes(self, model: nn.Module) -> None:
        needs = self.requires
        if needs.one_process and has_ranks(model):
            raise ValueError(
                f"model: runs in several processes (DistributedDataParallel), and {type(self).__name__} remembers "
                "samples or draws, which processes do not share; train in one process"
            )
        if (needs.whole_weights or needs.one_process or needs.peer) and is_sharded(model):
            raise ValueError(
                f"model: FSDP2 (fully_shard) shards it, and {type(self).__name__} needs "
                + ("whole weights" if needs.whole_weights else "a single process and whole weights")
                + "; train it without fully_shard, or take a method such as SAM or NCSAM"
            )

    def _check_weights(self) -> None:
        """Raises ValueError for weights that cannot be moved by a perturbation and put back."""
        if self.runs_gradient_hooks:
            return
        check_that_none_is_cached(self.passes.module)
        for name, parameter in self.passes.module.named_parameters():
            check_that_it_can_be_written(name, parameter)
            # an optimizer that steps in a hook would step from the perturbed weights, and its step be taken back
            if parameter._post_accumulate_grad_hooks:
                raise ValueError(
                    f"model: {name!r} has a hook that runs once its gradient is accumulated, as an optimizer that "
                    f"steps in the backward pass has; {type(self).__name__} computes several gradients at other "
                    "weights; remove the hook and call optimizer.step() after method.backward()"
                )

    def is_warming_up(self) -> bool:
        """Whether the training is in its warm-up."""
        return self.warmup > 0 and self.known_progress() <= self.warmup

    def fill_warmup_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient of the warm-up, the ordinary one, to `.grad`. Returns the mean loss at w, detached."""
        return self.passes.backward(inputs, targets, indices, moves_statistics=True)

    @abstractmethod
    def fill_own_gradients(self, inputs: Tensor, targets: Tensor, indices: Tensor | None) -> Tensor:
        """Adds the gradient after the warm-up to `.grad`. Returns the mean loss at w, detached."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint needs for an exact resume, beside those of model and optimizer."""
        return {"gradient_count": self.gradient_count, "follows_progress": self.follows_progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict()`."""
        self.gradient_count = state["gradient_count"]
        # a checkpoint of an earlier version does not say it
        self._follows_progress |= state.get("follows_progress", False)
