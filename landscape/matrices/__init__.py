"""The matrices of a mean loss, each a symmetric operator: `Hessian(objective) @ block`.

A new matrix that is a mean over the samples is one file: a subclass of `MeanOverSamples` with its `rule`, registered
by `@matrix_of_loss("name")`. Any other matrix is a class with the members of `landscape.krylov.Operator`.
"""

from landscape.matrices.empirical_fisher import EmpiricalFisher
from landscape.matrices.functional_hessian import FunctionalHessian
from landscape.matrices.gauss_newton import GaussNewton
from landscape.matrices.hessian import Hessian

__all__ = ["EmpiricalFisher", "FunctionalHessian", "GaussNewton", "Hessian"]
