import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from landscape.krylov import SymmetricOperator, top_eigenpairs
from landscape.krylov.eigenpairs import RESIDUALS


def symmetric(eigenvalues, seed=0):
    """A dense symmetric matrix with the given eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q
    return q @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ q.T


def ask(matrix, k, **options):
    generator = torch.Generator().manual_seed(options.pop("seed", 0))
    return top_eigenpairs(SymmetricOperator.of_matrix(matrix), k, generator=generator, **options)


SPECTRA = {
    "decaying": np.linspace(0, 1, 60) ** 2 * 100 + 1,
    "indefinite, |smallest| > largest": np.concatenate([[-50, -20], np.linspace(-1, 0.9, 60), [10, 30]]),
    "repeated top": np.concatenate([[7.0, 7.0, 7.0], np.linspace(0, 3, 60)]),
    "clustered top": np.concatenate([5 - 1e-5 * np.arange(6), np.linspace(-1, 1, 60)]),
    "low rank": np.concatenate([[9.0, 4.0, 1.0], np.zeros(60)]),
    "zero": np.zeros(20),
    "two": np.array([3.0, -5.0]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_extreme_eigenvalues_are_those_of_the_dense_matrix(name, which, k):
    spectrum = SPECTRA[name]
    k = min(k, len(spectrum))
    key = {"largest": spectrum, "smallest": -spectrum, "magnitude": np.abs(spectrum)}[which]
    truth = spectrum[np.argsort(-key, kind="stable")][:k]
    matrix = symmetric(spectrum)
    pairs = ask(matrix, k, which=which, tol=1e-6, max_products=2000)
    assert pairs.converged.all()
    # an eigenvalue lies within the residual of each value (Weyl); the error is second order in it, or rounding
    np.testing.assert_allclose(pairs.values.numpy(), truth, atol=1e-6 * np.abs(spectrum).max() + 1e-12)
    np.testing.assert_allclose((pairs.vectors.T @ pairs.vectors).numpy(), np.eye(k), atol=1e-10)
    residuals = torch.linalg.vector_norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, dim=0)
    rounding = 1e-14 * np.abs(spectrum).max()
    torch.testing.assert_close(pairs.residuals, residuals, rtol=1e-6, atol=rounding)
    errors = np.abs(pairs.values.numpy() - truth)
    assert (errors <= pairs.errors.numpy() + rounding).all()
    assert (pairs.errors <= RESIDUALS * pairs.residuals + rounding).all()


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 5])
def test_single_vectors_find_each_eigenvalue_once(name, k):
    spectrum = SPECTRA[name]
    pairs = ask(symmetric(spectrum), min(k, len(spectrum)), tol=1e-6, max_products=2000, block=1)
    assert pairs.converged.all()
    distinct = np.unique(spectrum)[::-1]
    found = distinct[np.abs(distinct - pairs.values.numpy()[:, None]).argmin(1)]
    np.testing.assert_allclose(pairs.values.numpy(), found, atol=2e-6 * np.abs(spectrum).max() + 1e-12)
    assert pairs.values[0] == pytest.approx(spectrum.max(), abs=1e-6 * np.abs(spectrum).max() + 1e-12)


def test_the_error_of_a_value_apart_from_the_others_is_of_second_order_in_the_residual():
    spectrum = SPECTRA["decaying"]
    pairs = ask(symmetric(spectrum), 3, tol=1e-3, max_products=2000)
    truth = np.sort(spectrum)[::-1][:3]
    assert (np.abs(pairs.values.numpy() - truth) <= 0.01 * pairs.errors.numpy()).all()


def test_of_a_single_vector_the_error_is_three_residuals():
    pairs = ask(symmetric(SPECTRA["decaying"]), 1, max_products=1)
    assert pairs.residuals > 1
    assert torch.equal(pairs.errors, RESIDUALS * pairs.residuals)


def outliers(*values):
    """Some eigenvalues above 797 others between 0 and 0.3."""
    return torch.cat([torch.tensor(values), torch.linspace(0, 0.3, 797)]).double()


NEAR = {
    "0.1% apart": outliers(2.72, 2.717, 1.5),
    "0.2% apart": outliers(2.72, 2.715, 1.5),
    "1% apart": outliers(2.72, 2.69, 1.5),
    "3% apart": outliers(2.72, 2.64, 1.5),
    "10% apart": outliers(2.72, 2.45, 1.5),
    "three, 2% apart": outliers(2.72, 2.66, 2.6),
    "apart": outliers(5.0, 3.0, 2.0),
}


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("tol", [0.1, 0.03, 0.01, 1e-3])
def test_over_start_vectors_the_error_holds_also_where_eigenvalues_are_near_each_other(name, tol):
    spectrum = NEAR[name]

    def multiply(vectors):
        return spectrum.unsqueeze(1) * vectors

    operator = SymmetricOperator(multiply, len(spectrum), torch.float64, torch.device("cpu"))
    found = [
        top_eigenpairs(operator, 1, tol=tol, generator=torch.Generator().manual_seed(seed))
        for seed in range(60)
    ]
    holds = [spectrum.max() - pairs.values[0] <= pairs.errors[0] for pairs in found]
    assert np.mean(holds) >= 0.85


def test_a_warm_start_saves_products_and_changes_no_value():
    spectrum = SPECTRA["indefinite, |smallest| > largest"]
    matrix = symmetric(spectrum)
    cold = ask(matrix, 2, tol=1e-6)
    nearby = matrix + 1e-3 * symmetric(np.linspace(-1, 1, len(spectrum)), seed=9)
    again, warm = ask(nearby, 2, tol=1e-6), ask(nearby, 2, tol=1e-6, start=cold.vectors)
    assert warm.products < again.products
    np.testing.assert_allclose(warm.values.numpy(), again.values.numpy(), rtol=1e-8)
    one_vector_twice = cold.vectors[:, [0, 0]]
    np.testing.assert_allclose(
        ask(matrix, 2, tol=1e-6, start=one_vector_twice).values.numpy(), cold.values.numpy(), rtol=1e-8
    )


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_a_start_at_other_eigenvectors_seldom_hides_the_wanted_ones(which, k):
    spectrum = SPECTRA["indefinite, |smallest| > largest"]
    matrix = symmetric(spectrum)
    others = ask(matrix, k + 1, which=which, tol=1e-10)
    found = [ask(matrix, k, which=which, start=others.vectors[:, 1:], seed=seed) for seed in range(40)]
    assert all(pairs.converged.all() for pairs in found)
    right = [pairs.values[0].item() == pytest.approx(others.values[0].item(), rel=1e-3) for pairs in found]
    # a random vector may hold next to nothing of one eigenvector, in a small space rather than in a large one
    assert np.mean(right) > 0.85


def test_few_vectors_in_memory_need_more_products_and_find_the_same():
    spectrum = np.concatenate([np.linspace(0, 1, 200), [1.1, 1.2, 1.3]])
    matrix = symmetric(spectrum)
    options = {"tol": 1e-6, "max_products": 5000, "block": 1}
    many, few = ask(matrix, 3, **options, max_vectors=60), ask(matrix, 3, **options, max_vectors=1)
    np.testing.assert_allclose(few.values.numpy(), [1.3, 1.2, 1.1], rtol=1e-8)
    np.testing.assert_allclose(many.values.numpy(), [1.3, 1.2, 1.1], rtol=1e-8)
    assert many.products < few.products


def test_agrees_with_arpack_on_a_larger_matrix():
    generator = torch.Generator().manual_seed(5)
    factor = torch.randn(400, 30, dtype=torch.float64, generator=generator)
    noise = torch.randn(400, 400, dtype=torch.float64, generator=generator) * 0.05
    matrix = factor @ factor.T + noise + noise.T
    truth = scipy.sparse.linalg.eigsh(matrix.numpy(), 6, which="LA", return_eigenvectors=False)
    pairs = ask(matrix, 6, tol=1e-8, max_products=1000)
    np.testing.assert_allclose(pairs.values.numpy(), truth[::-1], rtol=1e-10)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_every_eigenvalue_of_a_small_matrix_and_a_single_one(k):
    spectrum = np.arange(1.0, k + 1)
    pairs = ask(symmetric(spectrum), k)
    np.testing.assert_allclose(pairs.values.numpy(), spectrum[::-1], rtol=1e-10)


def test_long_runs_in_float32_show_no_ghosts():
    spectrum = np.concatenate([[10.0, 9.0], np.linspace(0, 1, 300)])
    matrix = symmetric(spectrum).float()
    pairs = top_eigenpairs(
        SymmetricOperator.of_matrix(matrix),
        5,
        tol=1e-9,
        max_products=400,
        generator=torch.Generator().manual_seed(0),
    )
    np.testing.assert_allclose(pairs.values.numpy(), np.sort(spectrum)[::-1][:5], rtol=1e-4)


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_operators_of_low_rank_leave_the_vectors_orthonormal_and_the_residuals_true(which):
    for seed in range(40):
        spectrum = np.r_[np.exp(-np.arange(seed % 10 + 1) / 3), np.zeros(40)]
        matrix = symmetric(spectrum, seed)
        pairs = ask(matrix, 3, which=which, seed=seed)
        np.testing.assert_allclose((pairs.vectors.T @ pairs.vectors).numpy(), np.eye(3), atol=1e-12)
        residuals = torch.linalg.vector_norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, dim=0)
        assert (residuals <= pairs.residuals + 1e-12).all()
        assert spectrum.min() - 1e-12 <= pairs.values.min() <= pairs.values.max() <= spectrum.max() + 1e-12


def test_what_has_not_converged_within_the_budget_says_so():
    pairs = ask(symmetric(np.linspace(0, 1, 300)), 3, tol=1e-10, max_products=20)
    assert not pairs.converged.any()
    assert pairs.products <= 20
    assert (pairs.residuals > 0).all()


def test_the_budget_counts_every_product():
    spent = 0
    matrix = symmetric(SPECTRA["decaying"])

    def product(block):
        nonlocal spent
        spent += block.shape[1]
        return matrix @ block

    pairs = top_eigenpairs(SymmetricOperator(product, 60), 3, generator=torch.Generator().manual_seed(0))
    assert pairs.products == spent


def test_nan_is_reported_as_nan_and_not_converged():
    pairs = top_eigenpairs(
        SymmetricOperator(lambda b: b * float("nan"), 10), 2, generator=torch.Generator().manual_seed(0)
    )
    assert torch.isnan(pairs.values).all()
    assert not pairs.converged.any()


def test_the_same_seed_gives_the_same_bits():
    matrix = symmetric(SPECTRA["decaying"])
    assert torch.equal(ask(matrix, 3, seed=4).vectors, ask(matrix, 3, seed=4).vectors)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 61}, "k"),
        ({"k": 1, "which": "top"}, "which"),
        ({"k": 1, "tol": 0.0}, "tol"),
        ({"k": 3, "max_products": 2}, "max_products"),
        ({"k": 3, "max_products": 3, "block": 2}, "max_products"),
        ({"k": 1, "block": 0}, "block"),
        ({"k": 1, "start": torch.zeros(5, 2)}, "start"),
        ({"k": 1, "block": 2, "start": torch.zeros(60, 1)}, "block"),
        ({"k": 1, "max_products": 2, "start": torch.zeros(60, 1)}, "max_products"),
    ],
)
def test_bad_arguments_are_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        ask(symmetric(SPECTRA["decaying"]), **options)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_all_pairs_converge_where_the_budget_reaches_for_a_whole_basis(tol):
    """The lower end of a Marchenko-Pastur spectrum, where neighbors differ by a thousandth."""
    factor = torch.randn(60, 60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix = factor.T @ factor / 60 - 0.5 * torch.eye(60, dtype=torch.float64)
    pairs = ask(matrix, 3, which="smallest", tol=tol)
    assert pairs.converged.all()
    assert pairs.products <= 180
    np.testing.assert_allclose(pairs.values, torch.linalg.eigvalsh(matrix)[:3], atol=max(tol**2, 1e-12))


@pytest.mark.parametrize("seed", range(5))
def test_a_nearly_scalar_matrix_does_not_end_the_search_at_its_first_vector(seed):
    n = 5000
    top = torch.nn.functional.normalize(torch.arange(1.0, n + 1, dtype=torch.float64), dim=0)

    def multiply(vectors):
        return 0.9 * vectors + 0.1 * top.unsqueeze(1) * (top @ vectors)

    operator = SymmetricOperator(multiply, n, torch.float64, torch.device("cpu"))

    def search(**options):
        generator = torch.Generator().manual_seed(seed)
        return top_eigenpairs(operator, 1, tol=0.03, generator=generator, **options)

    assert search().values[0] == pytest.approx(1.0)
    assert not search(max_products=1).converged.any()


def test_any_class_with_the_members_of_an_operator_is_one():
    class Diagonal:
        dimension, dtype, device = 50, torch.float64, torch.device("cpu")

        def __matmul__(self, block):
            return torch.arange(50.0, dtype=torch.float64).unsqueeze(1) * block

    pairs = top_eigenpairs(Diagonal(), 1, generator=torch.Generator().manual_seed(0))
    assert pairs.values[0] == pytest.approx(49, abs=0.01)


def test_a_loose_tolerance_may_end_at_another_eigenvalue_and_a_block_or_a_smaller_one_does_not():
    """What `top_eigenvalues` says of `tol`: a residual does not show an eigenvector that the start hardly has."""
    matrix = torch.diag(torch.cat([torch.tensor([5.0, 4.0, 0.1]), torch.zeros(197)]).double())
    missed = {}
    for tol, block in ((0.03, None), (1e-3, None), (0.03, 3)):
        found = [
            top_eigenpairs(
                SymmetricOperator.of_matrix(matrix),
                1,
                tol=tol,
                block=block,
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in range(200)
        ]
        assert all(bool(each.converged[0]) for each in found)
        missed[tol, block] = sum(abs(float(each.values[0]) - 5) > float(each.errors[0]) for each in found)
    assert 0 < missed[0.03, None] <= 20
    assert missed[1e-3, None] == missed[0.03, 3] == 0
