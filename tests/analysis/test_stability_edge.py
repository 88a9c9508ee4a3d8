"""The edges of stability, compared with trainings on a parabola just below and just above them."""

import math
from types import SimpleNamespace

import pytest

from analysis.store.stability_edge import descent_edge, edge_columns, sam_edge

RATE = 0.05


def end_of(curvature, momentum, weight_decay=0.0, rho=0.0, gradient_norm=1.0, steps=20_000):
    """|w| after descent on curvature / 2 w^2, where SAM's step along a gradient of this norm is rho long."""
    weight, velocity = 1.0, 0.0
    for _ in range(steps):
        perturbed = weight + rho * curvature * weight / gradient_norm
        velocity = momentum * velocity + curvature * perturbed + weight_decay * weight
        weight -= RATE * velocity
        if abs(weight) > 1e6:
            break
    return abs(weight)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_descent_with_momentum_is_stable_below_its_edge_and_not_above(momentum, weight_decay):
    edge = descent_edge(RATE, momentum, weight_decay)
    assert end_of(0.999 * edge, momentum, weight_decay) < 1e-3
    assert end_of(1.001 * edge, momentum, weight_decay) > 1e3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("rho", "gradient_norm"), [(0.1, 1.0), (0.1, 0.01), (0.5, 5.0)])
def test_sam_is_stable_below_its_edge_and_not_above(momentum, rho, gradient_norm):
    edge = sam_edge(descent_edge(RATE, momentum), rho, gradient_norm)
    kept = {"momentum": momentum, "rho": rho, "gradient_norm": gradient_norm}
    assert end_of(0.999 * edge, **kept) < 1e-3
    assert end_of(1.001 * edge, **kept) > 1e3


def test_the_edge_of_sam_is_that_of_long_and_bartlett_without_momentum():
    rho, norm = 0.1, 0.3
    published = norm / (2 * rho) * (math.sqrt(1 + 8 * rho / (RATE * norm)) - 1)
    assert sam_edge(descent_edge(RATE, 0.0), rho, norm) == pytest.approx(published)


def test_the_edge_of_sam_goes_to_that_of_descent_with_its_radius_and_to_zero_with_the_gradient():
    assert sam_edge(40.0, 0.0, 1.0) == 40
    assert sam_edge(40.0, 0.1, 0.0) == 0


def stored(method="sam", schedule="constant", optimizer="sgd", clipped=None):
    training = SimpleNamespace(
        optimizer=optimizer,
        max_gradient_norm=clipped,
        schedule=SimpleNamespace(name=schedule),
        learning_rate=RATE,
        momentum=0.9,
        weight_decay=0.0,
        batch_size=100,
    )
    config = SimpleNamespace(training=training, method=SimpleNamespace(name=method))
    return SimpleNamespace(config=config, hyperparameters={"rho": 0.1})


ROW = {"gradient_norm_observed": 0.3, "gradient_noise_observed": 16.0}


def test_the_gradient_of_a_batch_has_the_mean_gradient_and_its_share_of_the_noise():
    # 0.3^2 + 16 / 100 = 0.5^2
    assert edge_columns(stored(), ROW)["stability_edge"] == pytest.approx(sam_edge(76.0, 0.1, 0.5))


def test_each_run_has_the_edge_of_its_own_method():
    of_plain, of_other = edge_columns(stored("plain"), ROW), edge_columns(stored("asam"), ROW)
    assert of_plain == {"stability_edge": pytest.approx(76), "descent_edge": pytest.approx(76)}
    assert of_other["descent_edge"] == pytest.approx(76)
    assert math.isnan(of_other["stability_edge"])


@pytest.mark.parametrize(
    "changed", [{"schedule": "cosine"}, {"optimizer": "adamw"}, {"clipped": 1.0}], ids=str
)
def test_a_training_that_no_edge_describes_has_none(changed):
    assert all(map(math.isnan, edge_columns(stored(**changed), ROW).values()))
