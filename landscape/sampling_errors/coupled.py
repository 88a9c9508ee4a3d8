"""The eigenvalues to which draws of the samples couple an eigenvector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.operator import Operator

STEPS = 4
"""Most products that locate them."""

NEAR_ZERO = 0.1
"""One product suffices if the eigenvalues are smaller than this share of that of the vector, in root mean square."""

ROUNDING = 1e-6
"""A vector of a smaller relative length is only rounding."""


@dataclass(frozen=True)
class Coupled:
    """A measure over eigenvalues, as a Gauss quadrature.

    Attributes:
        nodes: eigenvalues, (m,).
        shares: of the coupling with each, (m,); they sum to 1.
        products: products that were spent.
    """

    nodes: Tensor
    shares: Tensor
    products: int


def coupled_eigenvalues(operator: Operator, known: Tensor, change: Tensor, value: float) -> Coupled:
    """The eigenvalues of an operator that a vector is made of: Lanczos' quadrature (Golub and Meurant 2010).

    Args:
        operator: the operator.
        known: orthonormal eigenvectors (n, k) in float64, which are left out.
        change: the vector (n,) in float64, outside of their span.
        value: the eigenvalue from which the distances to the others matter.
    """
    length = torch.linalg.vector_norm(change)
    steps = min(STEPS, known.shape[0] - known.shape[1]) if length > 0 else 0
    if not steps:
        nothing, whole = (torch.tensor([share], dtype=torch.float64, device="cpu") for share in (0.0, 1.0))
        return Coupled(nothing, whole, 0)
    basis = torch.zeros(len(change), steps, dtype=torch.float64, device=change.device)
    matrix = torch.zeros(steps, steps, dtype=torch.float64, device="cpu")
    vector, size = change / length, 0
    while size < steps:
        basis[:, size] = vector
        image = (operator @ vector.unsqueeze(1)).double().squeeze(1)
        found = torch.zeros(size + 1, dtype=torch.float64, device=change.device)
        for _ in range(2):
            image = image - known @ (known.T @ image)
            part = basis[:, : size + 1].T @ image
            image, found = image - basis[:, : size + 1] @ part, found + part
        matrix[: size + 1, size] = matrix[size, : size + 1] = found.cpu()
        size += 1
        left, all_of_it = float(torch.linalg.vector_norm(image)), float(torch.linalg.vector_norm(matrix))
        is_near_zero = size == 1 and (matrix[0, 0] ** 2 + left**2) ** 0.5 <= NEAR_ZERO * abs(value)
        if is_near_zero or left <= ROUNDING * max(all_of_it, abs(value)):
            break
        vector = image / left
    nodes, vectors = torch.linalg.eigh(matrix[:size, :size])
    return Coupled(nodes, vectors[0].square(), size)
