"""Orthonormal vectors in float32 and float64, against dense algebra in float64."""

import pytest
import torch

from landscape.krylov import SymmetricOperator, orthogonal, top_eigenpairs
from landscape.krylov.orthogonal import PIECE, combine, inner, orthogonalize, orthonormal

DTYPES = [torch.float32, torch.float64]
LENGTHS = [7, PIECE - 1, 2 * PIECE + 3]


def columns(n, k, dtype, seed=0):
    """As a search keeps them: each column lies together."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, n, generator=generator, dtype=torch.float64).to(dtype).T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_inner_products_are_those_of_float64(n, dtype):
    left, right = columns(n, 3, dtype), columns(n, 2, dtype, seed=1)
    torch.testing.assert_close(inner(left, right), left.T.double() @ right.double(), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("outside", [1.0, 1e-4])
def test_a_block_is_left_orthogonal_to_the_basis_and_is_made_again_of_its_parts(n, dtype, width, outside):
    basis = orthonormal(columns(n, 3, dtype))[0]
    block = basis @ columns(3, width, dtype, seed=1) + outside * columns(n, width, dtype, seed=2) / n**0.5
    given = block.clone()
    coefficients = orthogonalize(block, basis)
    directions, coupling = orthonormal(block)
    # in float64 the sums are rounded too
    rounding = (20 if dtype == torch.float32 else 200) * torch.finfo(dtype).eps
    whole = torch.cat([basis, directions], 1).double()
    eye = torch.eye(3 + width, dtype=torch.float64)
    torch.testing.assert_close(whole.T @ whole, eye, rtol=0, atol=rounding * (1 if width == 1 else 30))
    made = basis.double() @ coefficients + directions.double() @ coupling
    torch.testing.assert_close(made, given.double(), rtol=0, atol=rounding * given.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearly_dependent_columns_become_orthonormal_ones(dtype):
    block = columns(500, 3, dtype)
    block[:, 2] = block[:, 0] + 1e-3 * block[:, 2]
    given = block.clone()
    directions, coupling = orthonormal(block)
    rounding = 50 * torch.finfo(dtype).eps
    gram = directions.double().T @ directions.double()
    torch.testing.assert_close(gram, torch.eye(3, dtype=torch.float64), rtol=0, atol=rounding)
    torch.testing.assert_close(directions.double() @ coupling, given.double(), rtol=0, atol=10 * rounding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_combinations_take_the_place_of_the_first_columns(n, dtype):
    basis = columns(n, 4, dtype)
    given, combination = basis.clone(), columns(4, 2, torch.float64, seed=1)
    combine(basis, combination)
    torch.testing.assert_close(basis[:, :2], given @ combination.to(dtype))
    assert torch.equal(basis[:, 2:], given[:, 2:])


def test_eigenpairs_in_float32_are_within_their_errors_of_the_true_ones():
    values = torch.cat([torch.tensor([3.0, 2.9, -2.5]), torch.linspace(-1, 1, 3000)]).double()
    operator = SymmetricOperator(lambda block: values.float()[:, None] * block, len(values), torch.float32)
    for k, few in ((1, None), (1, 3), (2, None)):
        generator = torch.Generator().manual_seed(0)
        found = top_eigenpairs(operator, k, tol=1e-5, max_products=300, max_vectors=few, generator=generator)
        truth = values.sort(descending=True).values[:k]
        assert found.vectors.dtype == torch.float32
        assert found.converged.all()
        assert ((found.values - truth).abs() <= found.errors).all()


def test_an_operator_that_returns_what_it_was_given_leaves_the_basis_alone():
    operator = SymmetricOperator(lambda block: block, 30)
    found = top_eigenpairs(operator, 1, generator=torch.Generator().manual_seed(0))
    assert found.values.item() == pytest.approx(1)
    assert found.vectors.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_that_are_no_numbers_are_said_to_be_none(dtype):
    operator = SymmetricOperator(lambda block: torch.full_like(block, torch.nan), 30, dtype)
    found = top_eigenpairs(operator, 1, generator=torch.Generator().manual_seed(0))
    assert found.values.isnan().all()
    assert not found.converged.any()


@pytest.mark.parametrize("inside", [0.5, 100.0])
def test_a_second_pass_is_made_only_where_the_first_left_little(monkeypatch, inside):
    passes = []

    def counted(*arguments, **options):
        passes.append(1)
        return inner(*arguments, **options)

    monkeypatch.setattr(orthogonal, "inner", counted)
    basis = torch.eye(500, 1)
    block = inside * basis + torch.eye(500, 2)[:, 1:]
    orthogonalize(block, basis)
    assert len(passes) == (1 if inside < 1 else 2)


@pytest.mark.parametrize("width", [1, 3])
def test_a_search_goes_through_its_whole_basis_about_once_a_block(monkeypatch, width):
    columns = []

    def counted(basis, block, *arguments, **options):
        columns.append(basis.shape[1])
        return inner(basis, block, *arguments, **options)

    monkeypatch.setattr(orthogonal, "inner", counted)
    # eigenvectors that are found early are large parts of all later products
    eigenvalues = torch.cat([torch.tensor([90.0, 80.0, 70.0]), torch.linspace(0, 10, 40000)]).unsqueeze(1)
    operator = SymmetricOperator(lambda block: eigenvalues * block, len(eigenvalues), torch.float32)
    options = {"tol": 1e-12, "block": width, "max_products": 20 * width}
    found = top_eigenpairs(operator, 3, generator=torch.Generator().manual_seed(0), **options)
    torch.testing.assert_close(found.values, eigenvalues[:3, 0].double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(3), rtol=0, atol=1e-6)
    far = [count for count in columns if count > 2 * width]
    assert len(far) <= 1.3 * 20


@pytest.mark.parametrize(("entry", "length"), [(0.0, 0.0), (torch.nan, torch.nan), (torch.inf, torch.nan)])
def test_a_column_without_a_direction_has_none_afterward(entry, length):
    column = torch.zeros(5, 1)
    column[2] = entry
    directions, coupling = orthonormal(column.clone())
    torch.testing.assert_close(coupling, torch.tensor([[length]], dtype=torch.float64), equal_nan=True)
    torch.testing.assert_close(directions, column, equal_nan=True)
