"""The dense matrices of the small networks. They are read only, and each is computed once."""

from functools import cache

from tests.conftest import build, dense_gauss_newton, dense_hessian


@cache
def hessian_of(name):
    return dense_hessian(*build(name))


@cache
def gauss_newton_of(name):
    return dense_gauss_newton(*build(name))
