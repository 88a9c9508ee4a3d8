"""One mean loss for PyHessian, hessian-eigenthings and curvlinops, as one batch or in chunks."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import curvlinops
import hessian_eigenthings
import pyhessian
import torch
from cases import LOSS, Case
from hessian_eigenthings.loss_fns import supervised_loss
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peers:
    """Makes the operator of each peer anew, so that its set-up is measured too."""

    case: Case
    chunk: int

    def pyhessian(self) -> Any:
        """PyHessian with the kept graph of one batch of all samples."""
        model, inputs, targets = self._copied()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pyhessian.hessian(model, LOSS, data=(inputs, targets), cuda=inputs.is_cuda)

    def eigenthings(self) -> Any:
        """An operator of hessian-eigenthings."""
        model, inputs, targets = self._copied()
        return hessian_eigenthings.HessianOperator(
            model, self._batches(inputs, targets), supervised_loss(LOSS)
        )

    def curvlinops(self) -> Any:
        """A linear operator of curvlinops."""
        model, inputs, targets = self._copied()
        parameters = [p for p in model.parameters() if p.requires_grad]
        batches = self._batches(inputs, targets)
        return curvlinops.HessianLinearOperator(model, LOSS, parameters, batches, check_deterministic=False)

    def products(self) -> dict[str, Callable[[], Product]]:
        """For each peer, a function that makes its product with a vector (n,)."""
        return {
            "PyHessian (graph kept)": self._pyhessian_product,
            "hessian-eigenthings": lambda: self.eigenthings().matvec,
            "curvlinops": self._curvlinops_product,
        }

    def _pyhessian_product(self) -> Product:
        from pyhessian.utils import hessian_vector_product

        kept = self.pyhessian()
        sizes = [p.numel() for p in kept.params]

        def product(vector: Tensor) -> Tensor:
            parts = [v.view_as(p) for v, p in zip(vector.split(sizes), kept.params, strict=True)]
            result = hessian_vector_product(kept.gradsH, kept.params, parts)
            return torch.cat([part.flatten() for part in result])

        return product

    def _curvlinops_product(self) -> Product:
        operator = self.curvlinops()
        return lambda vector: operator @ vector

    def _copied(self) -> Case:
        """A copy of the model. PyHessian adds its gradient to that of the model, and would measure the sum."""
        model, inputs, targets = self.case
        model = copy.deepcopy(model).requires_grad_()
        model.zero_grad(set_to_none=True)
        return model, inputs, targets

    def _batches(self, inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(inputs.split(self.chunk), targets.split(self.chunk), strict=True))
