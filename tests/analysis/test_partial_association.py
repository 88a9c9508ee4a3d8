"""Associations given a third quantity: they depend on no scale, and what the third quantity does makes none."""

import numpy as np
import pytest

from analysis.statistics import rank_association, resampling
from analysis.statistics.neighbors import orders_among_neighbors

pytestmark = pytest.mark.usefixtures("quick_judgements")

DRAWS = 50


def partial(x, y, z):
    names = np.arange(len(x))
    return rank_association(np.zeros(len(x)), names, names, x, y, given=z).these


@pytest.fixture(autouse=True)
def few_orders(quick_judgements, monkeypatch):
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


def along_steps(rng, families):
    return confounded(lambda z: np.floor(1.5 * z + 0.25), 0.1)(rng, families)


def scattered(rng, families):
    """Two families scatter 30 times more."""
    spread = np.where(np.arange(families) < 2, 9.0, 0.3)
    return confounded(lambda z: z, spread)(rng, families)


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
        (12, along_steps),
        (12, scattered),
    ],
    ids=["saturating", "cube", "logarithm", "square", "steps", "scatter"],
)
def test_an_effect_of_the_third_quantity_alone_makes_no_association(families, draw):
    # up to 8%, and one standard error of 50 studies
    assert share_found(families, draw) <= 0.12


def test_an_association_beside_the_third_quantity_is_found():
    assert share_found(20, correlated) > 0.9


@pytest.mark.parametrize(("families", "orders"), [(4, 24), (6, 36), (7, 144), (20, 200)])
def test_the_smallest_p_value_is_that_of_orders_among_neighbors_in_the_third_quantity(families, orders):
    x, z = np.random.default_rng(0).normal(size=(2, families))
    assert partial(x, x, z).smallest_p == 2 / orders


def test_neighbors_are_those_in_the_mean_rank_over_cells():
    z = np.array([[0.0, 9.0, 1.0, 8.0, 2.0, 7.0], [10.0, 60.0, 20.0, 50.0, 30.0, 40.0]])
    orders = orders_among_neighbors(z, 0)
    assert len(np.unique(orders, axis=0)) == len(orders) == 36
    assert orders[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (np.sort(orders[:, ::2]) == [0, 2, 4]).all()


def test_families_that_are_tied_in_the_third_quantity_are_neighbors_whatever_their_names():
    x, y = np.random.default_rng(1).normal(size=(2, 7))
    z = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    renamed = np.array([6, 3, 0, 5, 2, 1, 4])
    assert len(orders_among_neighbors(z[None], 0)) == 2 * 120
    assert partial(x, y, z).p_value == pytest.approx(partial(x[renamed], y[renamed], z[renamed]).p_value)
