"""Objective: the mean loss of a model over a whole data set, as a function of one vector of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the mean loss over the samples, a scalar."""

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at one point; the accuracy is NaN where targets are not classes."""

    loss: float
    accuracy: float


class Objective:
    """The exact mean loss over a data set, its gradient and its Hessian-vector products.

    The model is copied when the Objective is made and measured in evaluation mode (BatchNorm with its stored
    statistics, no Dropout), so the caller's model is never touched and later training does not move the
    Objective. Chunks bound the memory; they change no result beyond rounding.

    Args:
        model: any module that maps a batch of inputs to outputs.
        loss_fn: (outputs, targets) -> mean over the samples. That it is one is checked on a few samples:
            sums, class weights and the like would make the mean over chunks wrong.
        data: (inputs, targets), or an iterable of such batches, which is read once and kept.
        chunk_size: samples evaluated at a time.
        parameters: says by name which parameters are the variables; all that require a gradient if not given.
            Parameters that the loss does not reach are zero rows and columns of the Hessian.
        dtype: of weights and floating-point data; the model's own if not given.

    Attributes:
        theta: (n,), the chosen parameters as one vector in `named_parameters` order.
        names: of the chosen parameters.
        shapes: of the chosen parameters.
        gradients: gradients over the data set computed so far.
        products: Hessian-vector products over the data set computed so far.

    Raises:
        ValueError: no data, sizes that do not match, no parameter chosen, or a loss that is not a mean.
        TypeError: a model that cannot be copied.
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
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size: must be at least 1, got {chunk_size}")
        try:
            self.model = copy.deepcopy(model).eval()
        except (RuntimeError, TypeError) as error:
            raise TypeError(f"model: Objective keeps a copy, but it cannot be copied: {error}") from error
        chosen = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and (parameters is None or parameters(name))
        }
        if not chosen:
            raise ValueError("parameters: none of the model's trainable parameters is chosen")
        if dtype is not None:
            self.model.to(dtype)
        first = next(iter(chosen.values()))
        self.device, self.dtype = first.device, first.dtype
        self.loss_fn = loss_fn
        self.chunk_size = chunk_size
        self.names = tuple(chosen)
        self.shapes = tuple(parameter.shape for parameter in chosen.values())
        self._sizes = [shape.numel() for shape in self.shapes]
        self.theta = torch.cat([parameter.detach().flatten() for parameter in chosen.values()])
        self.model.requires_grad_(False)
        self.inputs, self.targets = self._collected(data)
        self.gradients = 0
        self.products = 0
        self._check_that_loss_is_a_mean()

    @property
    def n_parameters(self) -> int:
        """Length of theta."""
        return len(self.theta)

    @property
    def n_samples(self) -> int:
        """Samples in the data set."""
        return len(self.inputs)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (n,) as tensors by parameter name; views, not copies."""
        parts = vector.split(self._sizes)
        return {n: part.view(s) for n, part, s in zip(self.names, parts, self.shapes, strict=True)}

    def independent_model(self) -> nn.Module:
        """A copy of the measured model in which just the chosen parameters require a gradient."""
        model = copy.deepcopy(self.model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.names)
        return model

    def outputs(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """The model's outputs for `inputs` with the weights `theta`."""
        result: Tensor = functional_call(self.model, self.unflatten(theta), (inputs,))
        return result

    def value(self, theta: Tensor | None = None) -> float:
        """The mean loss at `theta`, or at the model's own weights."""
        return self.evaluate(theta).loss

    @torch.no_grad()
    def evaluate(self, theta: Tensor | None = None) -> Evaluation:
        """Mean loss and accuracy at `theta`, or at the model's own weights, in one pass."""
        theta = self._point(theta)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        hits = torch.zeros((), dtype=torch.float64, device=self.device)
        classifies = True
        for inputs, targets in self._chunks():
            outputs = self.outputs(theta, inputs)
            loss += self.loss_fn(outputs, targets).double() * len(inputs)
            classifies = _are_class_scores(outputs, targets)
            if classifies:
                # the largest of scores with a NaN among them is no prediction
                hits += ((outputs.argmax(1) == targets) & ~outputs.isnan().any(1)).sum()
        accuracy = (hits / self.n_samples).item() if classifies else float("nan")
        return Evaluation((loss / self.n_samples).item(), accuracy)

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """The gradient (n,) of the mean loss at `theta`, or at the model's own weights."""
        theta = self._point(theta)
        total = torch.zeros_like(theta, dtype=torch.float64)
        for inputs, targets in self._chunks():
            variable, loss = self._loss_of_chunk(theta, inputs, targets)
            total += _derivative(loss, variable) * (len(inputs) / self.n_samples)
        self.gradients += 1
        return total.to(self.dtype)

    def hvp(self, vectors: Tensor, theta: Tensor | None = None) -> Tensor:
        """The Hessian of the mean loss times a vector (n,) or a block of vectors (n, k).

        Double backward; within a chunk the gradient's graph is built once for the whole block.
        """
        theta = self._point(theta)
        if vectors.shape[0] != self.n_parameters or vectors.ndim > 2:
            raise ValueError(
                f"vectors: must be ({self.n_parameters},) or ({self.n_parameters}, k), got {tuple(vectors.shape)}"
            )
        block = vectors.to(theta).reshape(self.n_parameters, -1)
        total = torch.zeros_like(block, dtype=torch.float64)
        for inputs, targets in self._chunks():
            # only the plain formula of attention can be differentiated twice
            with sdpa_kernel(SDPBackend.MATH):
                variable, loss = self._loss_of_chunk(theta, inputs, targets)
                gradient = _derivative(loss, variable, create_graph=True)
            for column in range(block.shape[1]):
                product = _derivative(gradient @ block[:, column], variable, retain_graph=True)
                total[:, column] += product * (len(inputs) / self.n_samples)
        self.products += block.shape[1]
        return total.to(self.dtype).view(vectors.shape)

    def _point(self, theta: Tensor | None) -> Tensor:
        if theta is None:
            return self.theta
        if theta.shape != self.theta.shape:
            raise ValueError(f"theta: must be ({self.n_parameters},), got {tuple(theta.shape)}")
        return theta.detach().to(self.theta)

    def _loss_of_chunk(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        variable = theta.detach().requires_grad_()
        return variable, self.loss_fn(self.outputs(variable, inputs), targets)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = zip(self.inputs.split(self.chunk_size), self.targets.split(self.chunk_size), strict=True)
        for inputs, targets in pairs:
            # copies, as a model may change its inputs in place
            yield inputs.to(self.device, copy=True), targets.to(self.device, copy=True)

    def _collected(self, data: Data) -> tuple[Tensor, Tensor]:
        if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
            batches = [data]
        else:
            # a DataLoader draws from the global random state, even without shuffling
            with torch.random.fork_rng(devices=[]):
                batches = list(data)
        if not batches or sum(len(batch[0]) for batch in batches) == 0:
            raise ValueError("data: holds no samples")
        inputs = torch.cat([batch[0] for batch in batches])
        targets = torch.cat([batch[1] for batch in batches])
        if len(inputs) != len(targets):
            raise ValueError(f"data: {len(inputs)} inputs but {len(targets)} targets")
        return self._cast(inputs.detach()), self._cast(targets.detach())

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    @torch.no_grad()
    def _check_that_loss_is_a_mean(self) -> None:
        some = torch.linspace(0, self.n_samples - 1, min(self.n_samples, 8)).long()
        if self.targets.ndim == 1 and not self.targets.is_floating_point():
            # a class weight, or an ignored class, shows only on samples of that class
            _, classes = self.targets.cpu().unique(return_inverse=True)
            first = torch.full((int(classes.max()) + 1,), len(classes)).scatter_reduce(
                0, classes, torch.arange(len(classes)), "amin"
            )
            some = torch.cat([some, first[:100]]).unique()
        targets = self.targets[some].to(self.device)
        outputs = self.outputs(self.theta, self.inputs[some].to(self.device))
        together = self.loss_fn(outputs, targets)
        if together.numel() != 1:
            raise ValueError(f"loss_fn: must return a scalar, got shape {tuple(together.shape)}")
        apart = [self.loss_fn(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(some))]
        mean = torch.stack(apart).mean()
        tolerance = 100 * torch.finfo(self.dtype).eps * torch.stack(apart).abs().max()
        undefined = torch.isfinite(outputs).all() and torch.isfinite(together) and not torch.isfinite(mean)
        if undefined or (torch.isfinite(mean) and (together - mean).abs() > tolerance):
            raise ValueError(
                f"loss_fn: is not the mean over the samples: {len(some)} samples together give "
                f"{together.item():.6g}, apart their mean is {mean.item():.6g}; use reduction='mean' without class "
                "weights or ignored classes"
            )


def _are_class_scores(outputs: Tensor, targets: Tensor) -> bool:
    """(n, at least 2 classes) and (n,) of classes: one column is a binary model's single logit."""
    return (
        outputs.ndim == 2 and outputs.shape[1] > 1 and targets.ndim == 1 and not targets.is_floating_point()
    )


def _derivative(
    of: Tensor, by: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """d of / d by, zero where `of` does not depend on `by`."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (result,) = torch.autograd.grad(
        of,
        by,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return result
