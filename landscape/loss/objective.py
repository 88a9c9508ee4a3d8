"""Objective: the mean loss of a model over a whole data set, as a function of one vector of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from landscape.data.batch_form import check_that_none_is_another_array
from landscape.data.batches import Batch, copied_to, tensors_in
from landscape.data.complex_numbers import cast
from landscape.data.counts import Count, Pair
from landscape.data.reading import Chunks, Source, read
from landscape.data.samples import Cut, held
from landscape.data.task import Forward, LossFunction, Regularizer, Task, by_inputs, in_one_line, loss_itself
from landscape.fx.threads import ThreadLock, one_thread_at_a_time
from landscape.guards.first_derivatives import check_first_derivatives
from landscape.guards.first_look import FirstLook
from landscape.guards.halves import Halves
from landscape.guards.in_float64 import InFloat64
from landscape.guards.kept_state import KeptState
from landscape.guards.mixed_samples import Precisely
from landscape.guards.model_and_loss import NO_DERIVATIVES, check_model_and_loss, check_variables
from landscape.guards.no_numbers import names_what_is_no_number
from landscape.guards.own_derivatives import with_own_derivatives
from landscape.guards.ranks_of_model import check_that_ranks_fit, ranks_that_measure, seen_by_all
from landscape.guards.settings import Linearize, check_settings
from landscape.guards.shares_of_ranks import warn_of_ranks_left_out
from landscape.loss.gradients import Gradients
from landscape.loss.loss_and_accuracy import Evaluation, loss_and_hits
from landscape.loss.matrices_by_name import matrix_named
from landscape.model.copies import constant_copy, copied, measured_copy, unwrapped
from landscape.model.derivatives import check_that_gradients_are_recorded
from landscape.model.given_vectors import whole_vector
from landscape.model.memory import Memory
from landscape.model.penalty import Penalty
from landscape.model.precision import full_float32
from landscape.model.weights import ParameterLayout, Weights, outputs_at, share_memory, tensors_of
from landscape.model.without_gradients import without_gradients
from landscape.plain_numbers import with_plain_numbers


class Objective:
    """The exact mean loss over a data set, its gradient, and products with its Hessian and Gauss-Newton matrix.

    The mean loss is sum_b count_b loss_b / sum_b count_b over the batches b: the loss of all data as one batch. A
    regularizer is added to the mean loss.

    The Objective copies the model, and the loss if the loss is a module. It never touches the caller's model, and later
    training does not move the Objective. Make a new Objective after a change of a constant in the loss, or of data: a
    change of data by torch is refused, and one by NumPy or another process if it meets one of some 4,096 evenly spaced
    entries. The model is in evaluation mode: BatchNorm with its stored statistics, no Dropout. Chunks bound the memory.

    Args:
        model: any module. Wrappers (`torch.compile`, DataParallel, DistributedDataParallel) are taken off.
        loss_fn: (outputs, targets) -> mean loss; (outputs, batch) -> mean loss with `forward`, or for dicts.
        data: a batch, or an iterable of batches. A batch is (inputs, targets), a dict of the model's arguments, or,
            with `forward`, of any form. If all its tensors have one first size, their rows are samples, which are
            cut into chunks; any other batch stays whole.
        forward: (model, batch) -> outputs of any form. If not given: `model(inputs)`, or `model(**batch)` for dicts.
        count: batch -> the weight of the batch's mean loss: samples, tokens, pixels, a sum of weights. If not given:
            samples; for torch's own losses their divisor (class weights, `ignore_index`, `reduction="sum"`). The
            first pass compares the loss of each chunk with the counted mean over its halves.
        regularizer: {name: parameter} -> a scalar, added to the mean: a part of the loss that no sample enters.
        keep: `"all"`: the data are read once and kept; `"none"`: the data are read again for each pass, in any order;
            `"auto"`: the data are kept if they fit into the memory budget, or if they can be read only once.
        chunk_size: samples evaluated at a time.
        parameters: name -> whether the parameter is a variable, one of several names by any of them. If not given: all
            that require a gradient. What the loss does not reach has zero rows and columns in the Hessian.
        dtype: of weights, floating-point data and a loss module's tensors; the model's own if not given.
        memory_budget: most bytes that the Objective and a measure keep: vectors as long as the weights, and results
            that products share, or else compute anew. A measure whose fewest vectors do not fit is refused at once.
        linearize: whether products are traced, which takes seconds, and often makes them two or three times faster.
            `"counted"` traces once the products to come should save as much: each time the same bits. `"measured"` then
            keeps the faster way. If a model cannot be traced, only True raises an error.
        compile_mode: of `torch.compile` for the traced product: `"default"`, `"reduce-overhead"` (CUDA graphs), None.
        process_group: of `torch.distributed`. Every rank holds the same model and its own share of the data. All
            ranks get the mean over all data. A product costs one all-reduce. A model under FSDP2 (`fully_shard`) brings
            its own group: each rank then holds a part of the weights and of all vectors (docs/scale.md).

    Attributes:
        theta: (n,), the chosen parameters as one vector in `named_parameters` order; under FSDP2 this rank's part.
        n_parameters: length of theta, on all ranks together. layout: names and shapes of the chosen parameters.
        ranks: the processes that measure together. penalty: the regularizer of theta. memory: what products share.
        forward: (theta, inputs) -> the model's outputs; holds no reference to the Objective.
        chunks: the data, cut as they are read. weight: divisor of the weighted sum of the chunks' losses.
        run: (model, inputs) -> outputs, with the model's own weights. counting: the weights of batches.
        n_samples: samples of all ranks; a batch that cannot be cut is one. is_shuffled: whether their order is drawn.
        differentiates: whether a forward pass or the loss takes derivatives by itself, as that of a PINN does.
        has_rows: False if the targets are a tensor, and the outputs none with a row for each sample.
        writes_weights: whether a pass writes to its weights, so that there are losses and no derivatives.
        has_right_gradient, verified: whether the gradient was compared with differences of losses, and which matrices.
        gradients, products: how many were computed so far. exclusive: a lock while `model` holds other weights.

    Raises:
        ValueError: no data, sizes that do not match, no parameter, complex weights, a loss that is not the counted mean
            or depends on weights otherwise than through the outputs, outputs that are random or depend on other samples
            or on other weights, or ranks with different weights or buffers.
        TypeError: a model or loss that cannot be copied, or an argument of another type.
    """

    @with_plain_numbers
    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: Any,
        *,
        forward: Forward | None = None,
        count: Count | None = None,
        regularizer: Regularizer | None = None,
        keep: str = "auto",
        chunk_size: int = 512,
        parameters: Callable[[str], bool] | None = None,
        dtype: torch.dtype | None = None,
        memory_budget: int = 2 * 1024**3,
        linearize: Linearize = "measured",
        compile_mode: str | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        check_settings(chunk_size, memory_budget, dtype, parameters, linearize)
        warn_of_ranks_left_out(model, process_group)
        model = unwrapped(model)
        check_model_and_loss(model, loss_fn)
        self.model, self.exclusive = measured_copy(model), ThreadLock()
        trainable = [name for name, p in self.model.named_parameters() if p.requires_grad]
        cast(self.model, dtype).requires_grad_(False)
        state = KeptState.of(self.model)
        self.loss_fn = cast(constant_copy(loss_fn), dtype) if isinstance(loss_fn, nn.Module) else loss_fn
        self.chunk_size, self.memory_budget = chunk_size, memory_budget
        self.linearize, self.compile_mode, self.regularizer = linearize, compile_mode, regularizer
        self.ranks = ranks_that_measure(model, process_group, regularizer, linearize)
        self.process_group, self.verified = self.ranks.group, frozenset[type]()
        self.writes_weights, self.has_right_gradient, self.has_rows = False, False, True
        self.task = Task(forward or by_inputs, count, takes_whole_batches=forward is not None)
        self.run: Forward = self.task.forward
        self._choose(trainable, parameters)
        share_memory(self.model, self.layout, self.theta)
        self.counting = self.task.counting(self.loss_fn)
        if forward is None:
            check_that_none_is_another_array(data)
        source = Source(data, partial(self.task.as_pair, dtype=self.dtype))
        cut = Cut(self.counting, chunk_size, self.device)
        with self.ranks.together():
            with_others = self.ranks.count > 1
            chunks = read(source, cut, keep=keep, budget=memory_budget, with_others=with_others)
        self._hold(chunks)
        self.run, self.is_shuffled = self.task.run, source.is_shuffled
        self.loss_fn = self.task.loss(self.loss_fn)
        measured = self.model, self.layout, self.theta, self.loss_fn, self.counting
        seen = seen_by_all(self.chunks, cut, self.ranks), self.chunks.labels, Precisely(self.in_float64)
        look = FirstLook(*measured, *seen, state, self.run)
        with self.ranks.together():
            look = with_own_derivatives(look, trainable)
            self.run, self.differentiates = look.run, look.differentiates
            self.forward = partial(outputs_at, self.model, self.layout, self.run)
            self.has_rows = look.check_samples(self.is_supervised, chunk_size)
            self.writes_weights = look.writes_weights(model, self.penalty)
        self.chunks.first_pass.look = Halves.of(self)

    @classmethod
    def of_loss(
        cls, loss: Callable[[nn.Module, Batch], Tensor], model: nn.Module, data: Any, **options: Any
    ) -> Objective:
        """The Objective of a loss that runs the model by itself, as those of PINNs do. It has no Gauss-Newton matrix.

        Args:
            loss: (model, batch) -> the mean loss of the batch.
            model: any module.
            data: a batch, or an iterable of batches, of any form.
            options: those of `Objective`, without `forward`.
        """
        return cls(model, loss_itself, data, forward=loss, **options)

    def subset(
        self, *, samples: Tensor | None = None, parameters: Callable[[str], bool] | None = None
    ) -> Objective:
        """The Objective of some of the samples, such as the wrongly labeled ones, or of some of the parameters.

        Args:
            samples: indices or a mask of the samples to keep; with a process group, of this rank's. All if not given.
            parameters: name -> whether the parameter stays a variable. All if not given.

        Raises:
            ValueError: no sample or parameter left; samples of a stream, or of batches that cannot be cut.
        """
        part = copy.copy(self)
        if parameters is not None:
            part._choose(self.names, parameters)
            part.verified = frozenset()
        if samples is not None:
            cut = Cut(self.counting, self.chunk_size, self.device)
            with self.ranks.together():
                part.chunks = held(self.chunks.rows(samples), cut, self.memory_budget)
            is_checked = self.chunks.first_pass.is_done(len(self.chunks))
            part.chunks.first_pass.look = None if is_checked else Halves.of(self)
        part._hold(part.chunks)
        return part

    @property
    def inputs(self) -> Any:
        """The inputs of all samples, where they are kept; the whole batch where the caller runs the model."""
        return self.chunks.rows(slice(None))[0][0]

    @property
    def targets(self) -> Any:
        """The targets of all samples, where they are kept; the whole batch where the caller runs the model."""
        return self.chunks.rows(slice(None))[0][1]

    @property
    def is_supervised(self) -> bool:
        """Whether `inputs` and `targets` hold tensors, and the outputs are one with a row for each sample."""
        are_pairs = self.has_rows and self.chunks.is_uniform and not self.task.takes_whole_batches
        return are_pairs and isinstance(self.inputs, Tensor) and isinstance(self.targets, Tensor)

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is one of outputs, so that there is a Gauss-Newton matrix."""
        return self.loss_fn is not loss_itself

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the chosen parameters."""
        return self.layout.names

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Shapes of the chosen parameters."""
        return self.layout.shapes

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (n,) as tensors by parameter name; views, not copies."""
        return self.layout.unflatten(vector)

    def flatten(self, weights: Weights) -> Tensor:
        """Weights in any form (a vector, tensors, a mapping, a model) as one vector (n,) on the objective's device.

        Raises:
            ValueError: tensors are missing, or have other sizes.
        """
        return self.layout.flatten(weights, self.theta)

    def independent_model(self) -> nn.Module:
        """A copy of the measured model in which just the chosen parameters require a gradient."""
        with self.exclusive:
            model = copied("model", self.model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.names)
        return model

    def tensors(self) -> dict[str, Tensor]:
        """The measured model's parameters and buffers, also those that are not variables."""
        with self.exclusive:
            return tensors_of(self.model)

    def outputs(self, theta: Tensor, inputs: Batch, buffers: Mapping[str, Tensor] | None = None) -> Any:
        """The model's outputs for `inputs` with the weights `theta`, and with other buffers if given."""
        with self.exclusive:
            return self.forward(theta.clone() if self.writes_weights else theta, inputs, buffers)

    def without_gradients(self) -> AbstractContextManager[None]:
        """A context for forward passes without a gradient."""
        return without_gradients(self.differentiates)

    def value(self, theta: Tensor | None = None) -> float:
        """The mean loss at `theta`, or at the model's own weights."""
        return self.evaluate(theta).loss

    @names_what_is_no_number
    @one_thread_at_a_time
    @full_float32()
    def evaluate(self, theta: Tensor | None = None) -> Evaluation:
        """Mean loss and accuracy at `theta`, or at the model's own weights, in one pass."""
        # a copy, because some models change their weights in place, such as an Embedding with max_norm
        theta = self.point(theta).clone()
        outputs = partial(self.outputs, theta)
        with self.ranks.together(), self.without_gradients():
            sums = loss_and_hits(self.chunks, outputs, self.loss_fn, self.counting, self.device)
        total_loss, total_hits = self.ranks.over_samples(sums).tolist()
        mean_loss = total_loss / self.weight + (float(self.penalty(theta)) if self.penalty else 0.0)
        # labels are counted only where there are classes, because counting reads the data
        return Evaluation(mean_loss, total_hits if math.isnan(total_hits) else total_hits / self.labeled)

    @cached_property
    def labeled(self) -> float:
        """The number of samples, over all ranks, whose label is not ignored; NaN if the data have no accuracy."""
        with self.ranks.together():
            count = self.has_rows * float(sum(self.counting.labeled(chunk.pair) for chunk in self.chunks))
        total = torch.tensor(count, dtype=torch.float64, device=self.device)
        return self.ranks.over_samples(total).item() or float("nan")

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """The gradient (n,) of the mean loss at `theta`, or at the model's own weights."""
        return self.value_and_gradient(theta)[1]

    @names_what_is_no_number
    @one_thread_at_a_time
    @full_float32()
    @torch.enable_grad()
    def value_and_gradient(self, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean loss, a scalar in float64 on the device, and its gradient (n,), in one pass.

        Raises:
            RuntimeError: in `torch.inference_mode()`, where torch computes no gradient.
        """
        sums, theta = self._sums(), self.point(theta)
        # under FSDP2 gradients are those of all ranks' samples, whose weights must be in the loss
        apart = self.memory.has_room_for_sums_of(self.n_parameters) and not self.ranks.share_vectors
        with self.ranks.together():
            self.check_that_derivatives_exist()
            loss, gradient = sums.in_float64(theta) if apart else sums.in_place(theta)
        loss, gradient = self.ranks.over_samples(loss), self.ranks.vector_over_samples(gradient)
        self.gradients += 1
        loss /= self.weight
        gradient /= self.weight
        if self.penalty:
            gradient += self.penalty.gradient(theta)
            loss += self.penalty(theta).detach()
        return loss, gradient.to(self.dtype)

    def loss_and_gradient(self, theta: Tensor, inputs: Batch, targets: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch at `theta`, and its gradient (n,), without the regularizer."""
        return self._sums().of_batch(theta, inputs, targets)

    def _sums(self) -> Gradients:
        return Gradients(self.model, self.layout, self.run, self.loss_fn, self.chunks)

    def check_that_derivatives_exist(self) -> None:
        """Raises RuntimeError in `torch.inference_mode()`, ValueError where the gradient is not that of the loss."""
        check_that_gradients_are_recorded(self.theta, *tensors_in(self.chunks.first(1)))
        if self.writes_weights:
            raise ValueError(NO_DERIVATIVES)
        if not self.has_right_gradient:
            check_first_derivatives(self.in_float64, self.chunks.all_or_first(), self.chunk_size)
            self.has_right_gradient = True

    def in_float64(self, pair: Pair) -> InFloat64:
        """The loss of some samples as a function of the weights, in float64."""
        here = copied_to(pair, self.device)
        return InFloat64(self.model, self.run, self.layout, self.theta, here, self.loss_fn, self.ranks)

    def hvp(self, vectors: Tensor, theta: Tensor | None = None) -> Tensor:
        """The Hessian of the mean loss times a vector (n,) or a block of vectors (n, k)."""
        return matrix_named("hessian", self, theta) @ vectors

    def ggnvp(self, vectors: Tensor, theta: Tensor | None = None) -> Tensor:
        """The Gauss-Newton matrix of the mean loss times a vector (n,) or a block of vectors (n, k).

        It is the mean over the samples of J^T H J. J is the outputs' Jacobian, H the Hessian of the loss in them. The
        outputs' own curvature is left out. For cross-entropy on logits it is Fisher's matrix.
        """
        return matrix_named("gauss-newton", self, theta) @ vectors

    @one_thread_at_a_time
    def release(self) -> None:
        """Gives back the memory that is kept for further products."""
        self.memory.release()

    def __repr__(self) -> str:
        """Model, parameters, samples and loss in one line."""
        return in_one_line(self.model, self.n_parameters, self.n_samples, self.loss_fn, self.dtype)

    def point(self, theta: Tensor | None) -> Tensor:
        """Weights (n,) on the objective's device; the objective's own for None.

        Raises:
            TypeError, ValueError: theta is no vector, or has another length.
        """
        return self.theta if theta is None else whole_vector("theta", theta, self.theta)

    def _choose(self, trainable: Sequence[str], is_chosen: Callable[[str], bool] | None) -> None:
        """Makes the chosen parameters the variables."""
        names = ParameterLayout.chosen(self.model, trainable, is_chosen)
        chosen = [self.model.get_parameter(name).detach() for name in names]
        check_variables(dict(zip(names, chosen, strict=True)), trainable)
        self.device, self.dtype = chosen[0].device, chosen[0].dtype
        self.layout = ParameterLayout(tuple(names), tuple(parameter.shape for parameter in chosen))
        self.theta = torch.cat([parameter.flatten() for parameter in chosen])
        self.ranks, self.n_parameters = self.ranks.with_entries(len(self.theta))
        # no method of the objective, because a matrix keeps this function and must not hold the objective
        self.forward = partial(outputs_at, self.model, self.layout, self.run)
        self.penalty = Penalty(self.regularizer, self.model, self.layout) if self.regularizer else None

    def _hold(self, chunks: Chunks) -> None:
        """Makes these batches the data, and forgets all that was computed."""
        self.chunks, self.gradients, self.products = chunks, 0, 0
        vector = len(self.theta) * torch.promote_types(self.dtype, torch.float32).itemsize
        self.memory = Memory(self.memory_budget, len(self.theta), vector, self.ranks)
        totals = torch.tensor([chunks.samples, chunks.weight], dtype=torch.float64, device=self.device)
        samples, weights = self.ranks.over_samples(totals).tolist()
        self.n_samples, self.weight = int(samples), self.counting.whole(weights)
        self.__dict__.pop("labeled", None)
        check_that_ranks_fit(self.model, chunks, self.ranks)
