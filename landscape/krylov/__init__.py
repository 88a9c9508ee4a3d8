"""Eigenpairs, traces and spectral measures of any symmetric operator. Nothing here knows a model.

::

    operator = SymmetricOperator.of_matrix(matrix)      # or Hessian(objective), or a function of a block (n, k)
    pairs = top_eigenpairs(operator, 3, generator=generator)
    found = trace_and_squared_norm(operator, generator=generator)     # .trace .square
    measure = lanczos_quadrature(operator, steps=30, probes=5, generator=generator)
"""

from landscape.krylov.deflation import Deflation
from landscape.krylov.diagonal import DiagonalEstimate, diagonal_of
from landscape.krylov.eigenpairs import Eigenpairs, top_eigenpairs
from landscape.krylov.quadrature import Quadrature, lanczos_quadrature
from landscape.krylov.traces import Estimate, TraceAndSquaredNorm, block_traces, trace_and_squared_norm
from landscape.krylov.two_levels import two_level_trace
from landscape.operator import Operator, SymmetricOperator

__all__ = [
    "Deflation",
    "DiagonalEstimate",
    "Eigenpairs",
    "Estimate",
    "Operator",
    "Quadrature",
    "SymmetricOperator",
    "TraceAndSquaredNorm",
    "block_traces",
    "diagonal_of",
    "lanczos_quadrature",
    "top_eigenpairs",
    "trace_and_squared_norm",
    "two_level_trace",
]
