"""Objective: the mean loss of a model over a whole data set, as a function of one vector of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from landscape.fx.threads import ThreadLock
from landscape.loss.checks import (
    are_class_scores,
    check_settings,
    check_that_classes_count_alike,
    check_that_loss_is_a_mean,
    check_that_ranks_agree,
    checked_outputs,
    telling_rows,
)
from landscape.loss.copies import constant_copy, copied
from landscape.loss.derivatives import check_that_gradients_are_recorded, derivative
from landscape.loss.matrices_by_name import matrix_named
from landscape.loss.memory import Memory
from landscape.loss.model_checks import (
    NO_DERIVATIVES,
    check_that_the_copy_stands_alone,
    check_that_the_loss_reads_no_weights,
    check_that_weights_are_real,
    writes_to_its_weights,
)
from landscape.loss.precision import full_float32
from landscape.loss.recurrent_layers import avoid_cudnn_recurrence
from landscape.loss.samples import Chunks, Data, collected, held
from landscape.loss.weights import ParameterLayout, Weights, outputs_at, tensors_of, with_weights

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""


class Releasable(Protocol):
    """Something that keeps memory and can give it back."""

    def release(self) -> None:
        """Gives back the memory."""


R = TypeVar("R", bound=Releasable)
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point; the accuracy is NaN where targets are not classes."""

    loss: float
    accuracy: float


def _one_thread_at_a_time(
    method: Callable[Concatenate[Objective, P], Result],
) -> Callable[Concatenate[Objective, P], Result]:
    """A method of Objective for which other threads wait: the model's weights are swapped while it runs."""

    @wraps(method)
    def alone(self: Objective, *arguments: P.args, **options: P.kwargs) -> Result:
        with self.exclusive:
            return method(self, *arguments, **options)

    return alone


class Objective:
    """The exact mean loss over a data set, its gradient, and products with its Hessian and Gauss-Newton matrix.

    The Objective copies the model, and the loss if the loss is a module. It never touches the caller's model, and later
    training does not move the Objective. The model is measured in evaluation mode: BatchNorm with its stored
    statistics, no Dropout. Chunks bound the memory; they change no result beyond rounding.

    Args:
        model: any module that maps a batch of inputs to outputs.
        loss_fn: (outputs, targets) -> mean over the samples. A few samples are checked, because a sum, class weights
            and the like would make the mean over chunks wrong.
        data: (inputs, targets), or an iterable of such batches, which is read once and kept.
        chunk_size: samples evaluated at a time.
        parameters: says by name which parameters are the variables; all that require a gradient if not given.
            Parameters that the loss does not reach are zero rows and columns of the Hessian.
        dtype: of weights and floating-point data; the model's own if not given.
        memory_budget: bytes that may be kept between products at the same weights. Whatever does not fit is
            computed again at each product.
        linearize: whether products at the same weights are traced. A traced product costs a third to a half of double
            backward, and tracing takes some seconds. None traces once the products, so far or expected, cost about as
            much as tracing, and stays with direct products where a model cannot be traced. True raises there.
        compile_mode: of `torch.compile` for the traced product: `"default"`, or `"reduce-overhead"` for CUDA
            graphs; not compiled if not given.
        process_group: of `torch.distributed`: every rank holds the same model and its own share of the data,
            and all get the mean over all of it, for one all-reduce a product.

    Attributes:
        theta: (n,), the chosen parameters as one vector in `named_parameters` order.
        layout: names and shapes of the chosen parameters.
        forward: (theta, inputs) -> the model's outputs; holds no reference to the Objective.
        chunks: the samples, cut as they are read.
        memory: what is kept for further products at the same weights.
        n_samples: samples in the data set, those of all ranks.
        writes_weights: whether a forward pass writes to its weights. Only losses can be had then.
        verified: matrices of which a product was compared with a difference of gradients.
        gradients: gradients over the data set computed so far.
        products: Hessian- and Gauss-Newton-vector products over the data set computed so far.
        exclusive: a lock that is held while the weights of `model` are swapped. Threads that share an Objective
            wait for each other; those with an Objective each run side by side.

    Raises:
        ValueError: no data, sizes that do not match, no parameter chosen, complex weights, a loss that is not a mean
            or depends on weights otherwise than through the outputs, a model whose outputs for a sample are random or
            depend on the other samples (a few are looked at) or on weights outside of the copy, or ranks with
            different weights or buffers.
        TypeError: a model or loss that cannot be copied, or an argument of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: Data,
        *,
        chunk_size: int = 512,
        parameters: Callable[[str], bool] | None = None,
        dtype: torch.dtype | None = None,
        memory_budget: int = 2 * 1024**3,
        linearize: bool | None = None,
        compile_mode: str | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        check_settings(chunk_size, memory_budget, dtype, parameters)
        check_that_weights_are_real(model)
        self.model = copied("model", model).eval()
        self.exclusive = ThreadLock()
        avoid_cudnn_recurrence(self.model)
        trainable = [name for name, p in self.model.named_parameters() if p.requires_grad]
        if dtype is not None:
            self.model.to(dtype)
        self.model.requires_grad_(False)
        self.loss_fn = constant_copy(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
        self.chunk_size = chunk_size
        self.memory_budget = memory_budget
        self.linearize = linearize
        self.compile_mode = compile_mode
        self.process_group = process_group
        self._choose([name for name in trainable if parameters is None or parameters(name)])
        self.writes_weights = False
        self.verified: set[type] = set()
        self._hold(*collected(data, self.dtype))
        self._check_dependence(model)

    def subset(
        self, *, samples: Tensor | None = None, parameters: Callable[[str], bool] | None = None
    ) -> Objective:
        """The Objective of some of the samples, such as the wrongly labeled ones, or of some of the parameters.

        Args:
            samples: indices or a mask of those to keep; with a process group, of this rank's. All if not given.
            parameters: says by name which of the parameters to keep as variables. All if not given.

        Raises:
            ValueError: no sample or no parameter left.
        """
        part = copy.copy(self)
        if parameters is not None:
            part._choose([name for name in self.names if parameters(name)])
            part.verified = set()
        rows = slice(None) if samples is None else samples.to(self.inputs.device)
        part._hold(self.inputs[rows], self.targets[rows])
        return part

    @property
    def n_parameters(self) -> int:
        """Length of theta."""
        return len(self.theta)

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
            model = copy.deepcopy(self.model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.names)
        return model

    def tensors(self) -> dict[str, Tensor]:
        """The measured model's parameters and buffers, also those that are not variables."""
        with self.exclusive:
            return tensors_of(self.model)

    def outputs(self, theta: Tensor, inputs: Tensor, buffers: Mapping[str, Tensor] | None = None) -> Tensor:
        """The model's outputs for `inputs` with the weights `theta`, and with other buffers if given."""
        with self.exclusive:
            if self.writes_weights:
                theta = theta.clone()
            if buffers is None:
                return self.forward(theta, inputs)
            result: Tensor = functional_call(self.model, {**self.unflatten(theta), **buffers}, (inputs,))
            return result

    def value(self, theta: Tensor | None = None) -> float:
        """The mean loss at `theta`, or at the model's own weights."""
        return self.evaluate(theta).loss

    @_one_thread_at_a_time
    @full_float32()
    @torch.no_grad()
    def evaluate(self, theta: Tensor | None = None) -> Evaluation:
        """Mean loss and accuracy at `theta`, or at the model's own weights, in one pass."""
        # a copy, as some models change their weights in place, such as an Embedding with max_norm
        theta = self.point(theta).clone()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        hits = torch.zeros((), dtype=torch.float64, device=self.device)
        classifies = True
        for inputs, targets in self.chunks:
            outputs = self.outputs(theta, inputs)
            loss += self.loss_fn(outputs, targets).double() * len(inputs)
            classifies = are_class_scores(outputs, targets)
            if classifies:
                # the largest of scores with a NaN among them is no prediction
                hits += ((outputs.argmax(1) == targets) & ~outputs.isnan().any(1)).sum()
        mean_loss, accuracy = (self.summed(torch.stack([loss, hits])) / self.n_samples).tolist()
        return Evaluation(mean_loss, accuracy if classifies else float("nan"))

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """The gradient (n,) of the mean loss at `theta`, or at the model's own weights."""
        return self.value_and_gradient(theta)[1]

    @_one_thread_at_a_time
    @full_float32()
    @torch.enable_grad()
    def value_and_gradient(self, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean loss, a scalar in float64 on the device, and its gradient (n,), in one pass.

        Raises:
            RuntimeError: in `torch.inference_mode()`, where no gradient can be had.
        """
        self.check_that_derivatives_exist()
        theta = self.point(theta).clone()
        # the loss in the last place
        total = theta.new_zeros(len(theta) + 1, dtype=torch.float64)
        for inputs, targets in self.chunks:
            loss, gradient = self._loss_and_gradient(theta, inputs, targets)
            total[:-1] += gradient * len(inputs)
            total[-1] += loss * len(inputs)
        self.gradients += 1
        mean = self.summed(total) / self.n_samples
        return mean[-1], mean[:-1].to(self.dtype)

    def _loss_and_gradient(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        variable = theta.detach().requires_grad_()

        def differentiated(model: nn.Module) -> tuple[Tensor, Tensor]:
            loss = self.loss_fn(model(inputs), targets)
            return loss.detach(), derivative(loss, variable)

        return with_weights(self.model, self.unflatten(variable), differentiated)

    def check_that_derivatives_exist(self) -> None:
        """Raises RuntimeError in `torch.inference_mode()`, ValueError for a model that writes to its weights."""
        check_that_gradients_are_recorded(self.theta, self.inputs)
        if self.writes_weights:
            raise ValueError(NO_DERIVATIVES)

    def hvp(self, vectors: Tensor, theta: Tensor | None = None) -> Tensor:
        """The Hessian of the mean loss times a vector (n,) or a block of vectors (n, k)."""
        return matrix_named("hessian", self, theta) @ vectors

    def ggnvp(self, vectors: Tensor, theta: Tensor | None = None) -> Tensor:
        """The Gauss-Newton matrix of the mean loss times a vector (n,) or a block of vectors (n, k).

        The mean of J^T (Hessian of the loss in the outputs) J over the samples, J the outputs' Jacobian: the
        Hessian without the outputs' own curvature. For cross-entropy on logits it is the Fisher matrix.
        """
        return matrix_named("gauss-newton", self, theta) @ vectors

    @_one_thread_at_a_time
    def shared(self, key: type, make: Callable[[], R]) -> R:
        """What is kept for this objective under a key, such as a matrix's class; made when first asked for.

        What is made must not hold the objective. A cycle would keep its memory after the last use.
        """
        if key not in self._shared:
            self._shared[key] = make()
        found: R = self._shared[key]
        return found

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept for further products at the same weights."""
        return self.memory.used

    @_one_thread_at_a_time
    def release(self) -> None:
        """Gives back the memory that is kept for further products."""
        for kept in self._shared.values():
            kept.release()

    def summed(self, total: Tensor) -> Tensor:
        """The sum of each rank's `total`, in place; itself without a process group."""
        if self.process_group is not None:
            dist.all_reduce(total, group=self.process_group)
        return total

    def point(self, theta: Tensor | None) -> Tensor:
        """Weights (n,) on the objective's device; the objective's own for None.

        Raises:
            ValueError: theta has another length.
        """
        if theta is None:
            return self.theta
        if theta.shape != self.theta.shape:
            raise ValueError(f"theta: must be ({self.n_parameters},), got {tuple(theta.shape)}")
        return theta.detach().to(self.theta)

    def _choose(self, names: list[str]) -> None:
        """Makes the parameters of these names the variables."""
        if not names:
            raise ValueError("parameters: none of the model's trainable parameters is chosen")
        chosen = [self.model.get_parameter(name).detach() for name in names]
        self.device, self.dtype = chosen[0].device, chosen[0].dtype
        self.layout = ParameterLayout(tuple(names), tuple(parameter.shape for parameter in chosen))
        self.theta = torch.cat([parameter.flatten() for parameter in chosen])
        # no method of the objective: what matrices keep must not hold it
        self.forward = partial(outputs_at, self.model, self.layout)

    def _hold(self, inputs: Tensor, targets: Tensor) -> None:
        """Makes these the data, with nothing computed yet."""
        if len(inputs) == 0:
            raise ValueError("data: holds no samples")
        self.inputs, self.targets = held(inputs, targets, self.device, self.memory_budget)
        self.gradients = 0
        self.products = 0
        self._check_a_few()
        self.chunks = Chunks(self.inputs, self.targets, self.chunk_size, self.device)
        self.memory = Memory(self.memory_budget)
        self._shared: dict[type, Any] = {}
        self.n_samples = len(inputs)
        if self.process_group is not None:
            self.n_samples = int(self.summed(torch.tensor(len(inputs), device=self.device)).item())
            check_that_ranks_agree(tensors_of(self.model), self.process_group)

    @full_float32()
    def _check_dependence(self, original: nn.Module) -> None:
        """Looks at which weights the outputs and the loss of a few samples are computed with."""
        if self.theta.is_inference() or self.inputs.is_inference():
            return
        inputs, targets = (part[:4].to(self.device, copy=True) for part in (self.inputs, self.targets))
        self.writes_weights = writes_to_its_weights(
            lambda theta: self.forward(theta, inputs.clone()), self.theta
        )
        with torch.inference_mode(False), torch.enable_grad():
            outputs = self.outputs(self.theta, inputs)
            check_that_the_copy_stands_alone(outputs, original)
            check_that_the_loss_reads_no_weights(self.loss_fn(outputs.detach(), targets), original)

    @full_float32()
    @torch.no_grad()
    def _check_a_few(self) -> None:
        """Looks at the outputs and losses of a few samples."""
        rows = telling_rows(self.targets)
        outputs = checked_outputs(
            lambda rows: self.outputs(self.theta.clone(), self.inputs[rows].to(self.device)),
            rows,
            self.device,
        )
        check_that_loss_is_a_mean(self.loss_fn, outputs, self.targets[rows].to(self.device), self.dtype)
        check_that_classes_count_alike(self.loss_fn, outputs[:1], self.targets, self.dtype)
