import numpy as np
import pytest
import scipy.stats
import torch

from landscape.krylov import Deflation, SymmetricOperator, lanczos_quadrature
from tests.landscape.krylov.test_eigenpairs import symmetric

N = 400
SPECTRUM = np.r_[60, 35, 28, 22, 17, 13, -9, np.linspace(-1, 2, N - 7) ** 3]


def ask(spectrum, seed=0, steps=30, probes=5, **options):
    matrix = symmetric(spectrum)
    return lanczos_quadrature(
        SymmetricOperator.of_matrix(matrix),
        steps=steps,
        probes=probes,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def whole(found, n):
    """The measure as points and masses."""
    share = (n - len(found.values)) / n / len(found.nodes)
    points = np.r_[found.values.numpy(), found.nodes.numpy().ravel()]
    return points, np.r_[np.full(len(found.values), 1 / n), share * found.weights.numpy().ravel()]


def distance(found, spectrum):
    points, masses = whole(found, len(spectrum))
    return scipy.stats.wasserstein_distance(points, spectrum, masses)


def test_the_eigenvalues_found_one_by_one_are_the_outliers():
    found = ask(SPECTRUM)
    np.testing.assert_allclose(found.values.numpy(), [60, 35, 28, 22, 17, 13, -9], rtol=1e-3)
    errors = np.abs(found.values.numpy() - [60, 35, 28, 22, 17, 13, -9])
    assert (errors <= found.residuals.numpy() + 1e-10).all()


def test_deflation_halves_the_distance_to_the_true_spectrum_at_equal_products():
    with_outliers, without = [], []
    for seed in range(10):
        found, plain = ask(SPECTRUM, seed), ask(SPECTRUM, seed, deflate=Deflation.empty(N))
        assert found.products == plain.products
        with_outliers.append(distance(found, SPECTRUM))
        without.append(distance(plain, SPECTRUM))
    assert np.median(with_outliers) < 0.5 * np.median(without)


def test_the_masses_sum_to_one_and_the_first_moment_is_the_mean_eigenvalue_within_its_spread():
    found = ask(SPECTRUM, probes=20)
    _, masses = whole(found, N)
    assert masses.sum() == pytest.approx(1)
    means = (found.nodes * found.weights).sum(1).numpy()
    rest = np.delete(SPECTRUM, range(7)).mean()
    assert abs(means.mean() - rest) < 4 * means.std(ddof=1) / np.sqrt(20)


def test_repeated_eigenvalues_leave_the_trace_without_bias():
    spectrum = np.repeat(1 / np.arange(1, 51) ** 2.0, 10)
    found = [ask(spectrum, seed, steps=40) for seed in range(30)]
    traces = [len(spectrum) * np.dot(*whole(draw, len(spectrum))) for draw in found]
    # without the copies, 11% less at a spread of 7%
    assert abs(np.mean(traces) / spectrum.sum() - 1) < 4 * np.std(traces) / spectrum.sum() / np.sqrt(30)
    assert {draw.products for draw in found} == {240}
    assert ask(SPECTRUM, steps=40).products == 200


def test_as_many_steps_as_dimensions_give_every_eigenvalue():
    spectrum = np.arange(1.0, 13)
    found = ask(spectrum, steps=12)
    assert len(found.values) == 0
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        np.testing.assert_allclose(nodes.numpy(), spectrum, rtol=1e-8)
        np.testing.assert_allclose(weights.numpy(), 1 / 12)


@pytest.mark.parametrize(
    ("spectrum", "steps"),
    [
        (np.r_[6.4, 3.3, 1.2, 0.4, np.zeros(3)], 5),
        (np.r_[4.7, 0.39, 0.17, 0.14, 0.04, 0.015, 0.002], 6),
        (np.r_[[5.0] * 3, [1.0] * 2], 5),
    ],
)
def test_the_first_moment_is_the_trace_once_the_krylov_space_is_exhausted(spectrum, steps):
    """There the eigenvalues that the first probe found were no longer taken out of the others."""
    for seed in range(20):
        found = ask(spectrum, seed, steps=steps)
        points, masses = whole(found, len(spectrum))
        spread = (found.nodes * found.weights).sum(1).std().item() * len(spectrum)
        assert len(spectrum) * points @ masses == pytest.approx(
            spectrum.sum(), rel=1e-9, abs=4 * spread / np.sqrt(5)
        )
        assert spread < 0.05 * spectrum.sum() or len(set(spectrum)) == 2


@pytest.mark.parametrize(
    "spectrum",
    [np.zeros(30), np.ones(30), np.r_[5.0, 3.0, np.zeros(40)], np.array([3.0]), np.r_[2.0, -2.0]],
    ids=["zero", "identity", "low rank", "one", "two"],
)
def test_spectra_of_few_points_are_exact(spectrum):
    found = ask(spectrum, steps=10)
    assert torch.isfinite(found.nodes).all()
    # the masses of the points are sampled; where they lie is not
    support = found.nodes[found.weights > 1e-6].numpy()
    gaps = np.abs(support[:, None] - spectrum).min(1)
    np.testing.assert_allclose(gaps, 0, atol=1e-7)
    if len(set(spectrum)) == 1:
        assert distance(found, spectrum) < 1e-7


def test_long_runs_show_no_ghosts():
    spectrum = np.concatenate([[10.0, 9.0], np.linspace(0, 1, 300)])
    found = ask(spectrum, steps=150, probes=2)
    assert (found.weights[found.nodes > 1.5] == 0).all()
    np.testing.assert_allclose(found.values[:2].numpy(), [10, 9], rtol=1e-8)


def test_vectors_may_be_kept_in_float32():
    exact, short = ask(SPECTRUM), ask(SPECTRUM, vector_dtype=torch.float32)
    assert distance(short, SPECTRUM) == pytest.approx(distance(exact, SPECTRUM), rel=0.05)


def test_nan_is_reported_as_nan():
    found = lanczos_quadrature(
        SymmetricOperator(lambda b: b * float("nan"), 50),
        steps=5,
        probes=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.nodes.isnan().all()


@pytest.mark.parametrize(("options", "field"), [({"steps": 0}, "steps"), ({"probes": 1}, "probes")])
def test_bad_arguments_are_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        ask(SPECTRUM, **options)
