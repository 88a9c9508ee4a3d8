"""Eigenpairs, traces and spectral measures of any symmetric operator. Nothing here knows a model.

::

    operator = SymmetricOperator.of_matrix(matrix)      # or Hessian(objective), or a function of a block (n, k)
    pairs = top_eigenpairs(operator, 3, generator=generator)
    found = moments(operator, generator=generator)      # trace and squared Frobenius norm
    measure = lanczos_quadrature(operator, steps=30, probes=5, generator=generator)
"""

from landscape.krylov.deflation import Deflation
from landscape.krylov.diagonal import DiagonalEstimate, diagonal_of
from landscape.krylov.eigenpairs import Eigenpairs, top_eigenpairs
from landscape.krylov.quadrature import Quadrature, lanczos_quadrature
from landscape.krylov.traces import Estimate, Moments, block_traces, moments
from landscape.operator import Operator, SymmetricOperator

__all__ = [
    "Deflation",
    "DiagonalEstimate",
    "Eigenpairs",
    "Estimate",
    "Moments",
    "Operator",
    "Quadrature",
    "SymmetricOperator",
    "block_traces",
    "diagonal_of",
    "lanczos_quadrature",
    "moments",
    "top_eigenpairs",
]
