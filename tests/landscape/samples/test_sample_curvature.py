"""Measures of single samples, against a loop of dense Jacobians and Hessians in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, sample_curvature, trace
from landscape.samples import MEASURES
from tests.conftest import Recurrent
from tests.landscape.samples.small_networks import FEW, LOSSES, D, build, dense, few


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *((name, "cross-entropy") for name in ("mlp", "cnn", "tied")),
        *(("mlp", loss) for loss in ("smoothed", "generalized")),
    ],
)
def test_measures_are_those_of_dense_matrices(name, loss):
    model, inputs, targets = few(name)
    expected = dense(model, LOSSES[loss], inputs, targets)
    objective = Objective(model, LOSSES[loss], (inputs, targets))
    found = sample_curvature(objective, probes=1000)
    assert found.measures == MEASURES
    for measure in ("loss", *MEASURES):
        np.testing.assert_allclose(getattr(found, measure), expected[measure], rtol=1e-7, atol=1e-10)
    for measure in MEASURES[2:]:
        assert (getattr(found, f"{measure}_error") == 0).all()
    assert found.target.tolist() == targets.tolist()


def test_a_sequence_model_has_no_curvature_in_tokens():
    model, _, targets = few("layer-norm")
    tokens = torch.randint(0, 5, (FEW, 6), generator=torch.Generator().manual_seed(0))
    expected = dense(model, nn.CrossEntropyLoss(), tokens, targets)
    found = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (tokens, targets)), probes=1000)
    assert found.measures == MEASURES[:5]
    for measure in found.measures:
        np.testing.assert_allclose(getattr(found, measure), expected[measure], rtol=1e-7)


def test_regression_has_no_fisher_trace_and_no_classes():
    model, inputs, _ = few("mlp")
    targets = torch.randn(FEW, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    expected = dense(model, nn.MSELoss(), inputs, targets)
    found = sample_curvature(Objective(model, nn.MSELoss(), (inputs, targets)), probes=1000)
    assert found.fisher_trace is None
    assert found.target is None
    for measure in found.measures:
        np.testing.assert_allclose(getattr(found, measure), expected[measure], rtol=1e-7)
    with pytest.raises(ValueError, match="^by_class"):
        found.by_class()


@pytest.mark.parametrize(("loss", "exact_up_to"), [("cross-entropy", 64), ("generalized", 0)])
def test_estimates_lie_around_the_truth_as_their_errors_say(loss, exact_up_to):
    model, inputs, targets = build("mlp")
    objective = Objective(model, LOSSES[loss], (inputs, targets))
    truth = sample_curvature(objective, probes=1000)
    found = [sample_curvature(objective, probes=12, exact_up_to=exact_up_to, seed=seed) for seed in range(4)]
    for measure in ("hessian_trace", "input_trace", "input_curvature"):
        exact = getattr(truth, measure)
        # relative to the size, so that every sample counts; those of 4 seeds and 37 samples are independent
        size = np.abs(exact) + np.abs(exact).mean()
        deviations = np.array([(getattr(each, measure) - exact) / size for each in found])
        errors = np.array([getattr(each, f"{measure}_error") / size for each in found])
        assert (errors > 0).all()
        assert 0.7 < (deviations**2).mean() / (errors**2).mean() < 1.4, measure
        assert abs(deviations.mean()) < 3 * np.sqrt((errors**2).mean() / deviations.size), measure


def test_traces_over_many_outputs_are_estimated():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 4, dtype=D, generator=generator)
    targets = torch.randint(0, 20, (30,), generator=generator)
    objective = Objective(nn.Linear(4, 20).double(), nn.CrossEntropyLoss(), (inputs, targets))
    chosen = ["gauss_newton_trace", "fisher_trace"]
    truth = sample_curvature(objective, measures=chosen)
    assert (truth.gauss_newton_trace_error == 0).all()
    squares = []
    for seed in range(8):
        found = sample_curvature(objective, measures=chosen, exact_up_to=19, probes=16, seed=seed)
        np.testing.assert_allclose(found.gauss_newton_trace, found.fisher_trace)
        deviations = found.fisher_trace / truth.fisher_trace - 1
        squares.append([deviations**2, (found.fisher_trace_error / truth.fisher_trace) ** 2])
    true, stated = np.mean(squares, axis=(0, 2))
    assert 0.5 < true / stated < 2


@pytest.mark.parametrize("options", [{"chunk_size": 5}, {"memory_budget": 40_000}])
def test_pieces_change_nothing_but_rounding(options):
    model, inputs, targets = build("mlp")
    whole = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    cut = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets), **options))
    for measure in MEASURES:
        np.testing.assert_allclose(getattr(cut, measure), getattr(whole, measure), rtol=1e-9)


def test_the_mean_over_samples_is_the_trace_of_the_mean_loss():
    model, inputs, targets = build("cnn")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = sample_curvature(objective, measures=["gauss_newton_trace"])
    exact = trace(objective, matrix="gauss-newton", rtol=None, max_products=objective.n_parameters)
    assert found.gauss_newton_trace.mean() == pytest.approx(exact.value, abs=4 * exact.standard_error + 1e-9)


def test_float32_is_as_float64():
    model, inputs, targets = build("cnn")
    double = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    single = sample_curvature(Objective(model.float(), nn.CrossEntropyLoss(), (inputs.float(), targets)))
    assert single.loss.dtype == np.float64
    for measure in MEASURES:
        np.testing.assert_allclose(getattr(single, measure), getattr(double, measure), rtol=1e-3, atol=1e-4)


def test_the_mean_gradient_of_the_cosine_has_the_sample_itself_in_it():
    # the gradient of a sample is that of its own weight alone
    model = nn.Linear(9, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    objective = Objective(model, nn.MSELoss(), (torch.eye(9).double(), torch.ones(9, 1).double()))
    found = sample_curvature(objective, measures=["gradient_cosine"])
    np.testing.assert_allclose(found.gradient_cosine, 1 / 3)


def test_a_loss_without_outputs():
    model, inputs, targets = few("mlp")
    cross_entropy = nn.CrossEntropyLoss()
    expected = dense(model, cross_entropy, inputs, targets)
    whole = Objective.of_loss(
        lambda model, batch: cross_entropy(model(batch[0]), batch[1]), model, (inputs, targets)
    )
    found = sample_curvature(whole, probes=1000)
    assert found.measures == ("gradient_norm", "gradient_cosine", "hessian_trace")
    for measure in found.measures:
        np.testing.assert_allclose(getattr(found, measure), expected[measure], rtol=1e-7)
    with pytest.raises(ValueError, match=r"^measures: gauss_newton_trace .*of_loss"):
        sample_curvature(whole, measures=["gauss_newton_trace"])


class Branching(nn.Module):
    """Asks for a value, which vmap cannot give."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) if len(x) and bool(x.sum().item() < 1e9) else self.inner(-x)


def test_a_model_that_cannot_be_vectorized_is_measured_sample_by_sample():
    model, inputs, targets = few("mlp")
    plain = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    found = sample_curvature(Objective(Branching(model), nn.CrossEntropyLoss(), (inputs, targets)))
    for measure in MEASURES:
        np.testing.assert_allclose(getattr(found, measure), getattr(plain, measure), rtol=1e-9)


def test_a_recurrent_model_is_measured_sample_by_sample():
    model, inputs = Recurrent(nn.LSTM).double(), torch.randn(3, 5, 4, dtype=D)
    targets = torch.tensor([0, 1, 0])
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = sample_curvature(objective, measures=["gradient_norm", "gauss_newton_trace"])
    for i in range(3):
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs[i : i + 1]), targets[i : i + 1]).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        assert found.gradient_norm[i] == pytest.approx(norm.item())
