"""Associations given a third quantity: they depend on no scale, and curves in the third quantity are held fixed."""

import numpy as np
import pytest

from analysis.statistics import rank_association, resampling

pytestmark = pytest.mark.usefixtures("quick_judgements")

DRAWS = 50


def partial(x, y, z):
    names = np.arange(len(x))
    return rank_association(np.zeros(len(x)), names, names, x, y, given=z).these


@pytest.fixture(autouse=True)
def few_orders(monkeypatch):
    monkeypatch.setattr(resampling, "PERMUTATIONS", 199)


def share_found(families, draw):
    """The share of studies with an association."""
    rng = np.random.default_rng(0)
    return np.mean([partial(*draw(rng, families)).p_value < 0.05 for _ in range(DRAWS)])


def confounded(shape, noise):
    """Two quantities that depend on the third one alone."""

    def draw(rng, families):
        z = rng.normal(size=families)
        return *(shape(z) + noise * rng.normal(size=(2, families))), z

    return draw


def of_the_logarithm(rng, families):
    x, y, z = confounded(lambda z: 2 * z, 0.5)(rng, families)
    return x, -y, np.exp(2 * z)


def correlated(rng, families):
    first, other, z = rng.normal(size=(3, families))
    return z + first, z + 0.9 * first + 0.44 * other, z


@pytest.mark.parametrize("scale", [1e-13, 1e-6, 1.0, 1e6, 1e13])
def test_no_unit_changes_a_partial_association(scale):
    x, y, z = correlated(np.random.default_rng(3), 12)
    found, whole = partial(scale * x, scale * y, z), partial(x, y, z)
    assert found.p_value < 0.05
    assert (found.p_value, found.estimate) == pytest.approx((whole.p_value, whole.estimate))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-9, 1e9])
def test_a_constant_quantity_has_no_partial_association(constant):
    rng = np.random.default_rng(4)
    found = partial(np.full(12, constant), *rng.normal(size=(2, 12)))
    assert (found.p_value, found.estimate) == (1, 0)


@pytest.mark.parametrize(
    ("families", "draw"),
    [
        (20, confounded(lambda z: np.tanh(4 * z), 0.3)),
        (20, confounded(lambda z: z**3, 0.3)),
        (20, of_the_logarithm),
        (9, confounded(np.square, 0.3)),
    ],
    ids=["saturating", "cube", "logarithm", "square"],
)
def test_a_third_quantity_whose_effect_is_curved_makes_no_association(families, draw):
    # 5% or 6%, and two standard errors of 50 studies
    assert share_found(families, draw) <= 0.12


def test_an_association_beside_the_third_quantity_is_found():
    assert share_found(20, correlated) > 0.9
