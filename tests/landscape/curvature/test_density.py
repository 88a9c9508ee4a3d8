import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from landscape import Objective, spectral_density, spectral_measure, top_eigenvalues
from tests.conftest import build, dense_hessian
from tests.landscape.dense import hessian_of

pytestmark = pytest.mark.usefixtures("direct_products")

cross_entropy = nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def trained():
    """A small network at a minimum of noisy labels: outliers, a bulk, and negative eigenvalues."""
    model, inputs, targets = build("mlp")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    spectrum = torch.linalg.eigvalsh(dense_hessian(model, inputs, targets)).numpy()
    return Objective(model, cross_entropy, (inputs, targets)), spectrum


def test_the_measure_is_near_the_dense_spectrum(trained):
    objective, spectrum = trained
    density = spectral_density(objective, steps=30, probes=5)
    values, masses = spectral_measure(density)
    assert masses.sum() == pytest.approx(1)
    distance = scipy.stats.wasserstein_distance(values, spectrum, masses)
    # 0.04 to 0.18 in 80 draws
    assert distance < 0.25 * np.abs(spectrum).mean()
    assert density.dimension == len(spectrum)
    assert density.products == 150


def test_counts_are_those_of_the_dense_spectrum_within_their_errors(trained):
    objective, spectrum = trained
    density = spectral_density(objective, steps=60, probes=20)
    truth = (spectrum <= density.eigenvalue[:, None]).sum(1)
    # between two eigenvalues the count is a matter of where the quadrature puts its nodes: one eigenvalue more
    assert (np.abs(density.count - truth) <= 4 * density.count_error + 2).mean() > 0.97
    assert density.count[-1] == pytest.approx(
        len(spectrum) - (density.outliers > density.eigenvalue[-1]).sum()
    )


def test_the_density_integrates_to_the_share_of_the_bulk_and_its_band_is_the_spread_of_the_probes(trained):
    objective, _ = trained
    density = spectral_density(objective, steps=30, probes=6)
    share = 1 - len(density.outliers) / density.dimension
    assert scipy.integrate.trapezoid(density.density, density.eigenvalue) == pytest.approx(share, rel=1e-3)
    assert (density.density_error > 0).any()
    draws = [spectral_density(objective, steps=30, probes=6, seed=s, smoothing=0.01) for s in range(20)]
    at_zero = [np.interp(0.0, d.eigenvalue, d.density) for d in draws]
    errors = [np.interp(0.0, d.eigenvalue, d.density_error) for d in draws]
    # 20 draws know their spread to 16%, 6 probes each their own to 30%
    assert 0.5 < np.mean(errors) / np.std(at_zero, ddof=1) < 2


def test_outliers_are_eigenvalues_and_given_pairs_are_used(trained):
    objective, spectrum = trained
    own = spectral_density(objective, steps=40)
    assert len(own.outliers) > 0
    for value, residual in zip(own.outliers, own.outlier_residuals, strict=True):
        assert np.abs(spectrum - value).min() <= residual + 1e-9
    eigen = top_eigenvalues(objective, 4)
    given = spectral_density(objective, steps=20, deflate=eigen)
    np.testing.assert_allclose(given.outliers, eigen.values)
    assert given.products == 100 + eigen.products


@pytest.mark.parametrize("seed", range(2))
def test_the_share_of_negative_eigenvalues_is_within_its_error(trained, seed):
    """Half of the eigenvalues are zero, and share nodes of the quadrature with small ones of either sign."""
    objective, spectrum = trained
    density = spectral_density(objective, steps=60, probes=20, seed=seed)
    truth = (spectrum < -1e-10).mean()
    assert truth > 0.02
    assert abs(density.negative_fraction - truth) < density.negative_fraction_error


def test_without_eigenvalues_below_zero_there_is_no_share_of_them(trained):
    objective, _ = trained
    semidefinite = spectral_density(objective, matrix="gauss-newton")
    assert semidefinite.negative_fraction < 0.02


@pytest.mark.parametrize("name", ["unreached", "attention", "cnn-batchnorm-dropout"])
def test_any_model_has_its_density(name):
    model, inputs, targets = build(name)
    spectrum = torch.linalg.eigvalsh(hessian_of(name)).numpy()
    density = spectral_density(Objective(model, cross_entropy, (inputs, targets)), steps=30)
    values, masses = spectral_measure(density)
    assert scipy.stats.wasserstein_distance(values, spectrum, masses) < 0.1 * np.abs(spectrum).mean()


def test_a_zero_hessian_and_a_single_parameter_have_a_density():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            return x.flatten(1)[:, :1] + self.shift

    _, inputs, _ = build("mlp")
    for loss, eigenvalue in ((nn.MSELoss(), 2.0), (lambda z, y: (z - y).mean(), 0.0)):
        objective = Objective(Shift(), loss, (inputs, torch.zeros(37, 1, dtype=torch.float64)))
        density = spectral_density(objective, probes=2)
        values, masses = spectral_measure(density)
        assert (values * masses).sum() == pytest.approx(eigenvalue)
        assert np.isfinite(density.density).all()


@pytest.mark.parametrize("scale", [1e-8, 1e-14])
def test_the_density_of_a_tiny_loss_is_that_of_the_loss_in_other_units(scale):
    model, inputs, targets = build("mlp")
    usual = spectral_density(Objective(model, cross_entropy, (inputs, targets)))
    tiny = spectral_density(Objective(model, lambda z, y: scale * cross_entropy(z, y), (inputs, targets)))
    assert tiny.smoothing == pytest.approx(scale * usual.smoothing)
    np.testing.assert_allclose(tiny.eigenvalue, scale * usual.eigenvalue, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(tiny.density, usual.density / scale, rtol=1e-3, atol=1e-3 / scale)


def test_nan_stays_nan():
    model, inputs, targets = build("mlp")
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    density = spectral_density(Objective(model, cross_entropy, (inputs, targets)), steps=3)
    assert np.isnan(density.density).all()
    assert np.isnan(density.count).all()
    assert np.isnan(density.negative_fraction)
