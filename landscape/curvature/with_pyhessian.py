"""Second opinions of PyHessian on the curvature of an Objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from landscape.curvature.plain_mean import check_that_it_is_a_plain_mean
from landscape.data.random_state import borrowed_generators
from landscape.loss.objective import Objective
from landscape.model.precision import full_float32


@full_float32()
def ask_pyhessian(objective: Objective, seed: int, ask: Callable[[Any], Any]) -> tuple[Any, int]:
    """Asks PyHessian about a copy of the model; returns its answer and the number of products that it spent.

    PyHessian draws from the global random state, which is restored afterward.
    """
    from pyhessian import hessian

    if objective.process_group is not None:
        raise ValueError("method: PyHessian sees this rank's data only; leave it out, or the process group")
    check_that_it_is_a_plain_mean(objective, "method", "PyHessian")
    if objective.dtype != torch.float32:
        raise ValueError(f"method: PyHessian draws float32 vectors and cannot measure in {objective.dtype}")
    spent = 0

    def count(_: Tensor) -> None:
        nonlocal spent
        spent += 1

    cuda = objective.device.type == "cuda"
    with (
        # PyHessian uses no GPU but the current one
        torch.cuda.device(objective.device) if cuda else nullcontext(),
        borrowed_generators(objective.device),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        torch.random.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        data = (objective.inputs.to(objective.device), objective.targets.to(objective.device))
        estimator = hessian(objective.independent_model(), objective.loss_fn, data=data, cuda=cuda)
        if not all(isinstance(part, Tensor) and part.requires_grad for part in estimator.gradsH):
            raise ValueError(
                "method: PyHessian cannot measure a model with parameters that the loss does not reach"
            )
        # each product is one backward pass through the kept graph of the gradient
        estimator.gradsH[0].register_hook(count)
        answer = ask(estimator)
        # the gradients hold the graph, and the graph holds the model: this cycle would keep the memory
        estimator.model.zero_grad(set_to_none=True)
    return answer, spent
