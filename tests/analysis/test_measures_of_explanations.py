"""Critical steps, gradient noise and single samples of a run's file, against computations from the stored weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, vmap

from analysis import store
from analysis.plan import final_runs, read_study
from analysis.run.context import RunContext
from analysis.run.measurements import MEASURES
from analysis.run.run_data import load_run_data
from analysis.run.training import new_model
from analysis.store import OF_SAMPLES
from analysis.store.stability_edge import sam_edge
from ncsam.detection.separation import auroc
from tests.analysis.tiny_study import TINY, finished_tiny

STUDY = (
    TINY.replace("seeds = [0, 1]", "seeds = [0]")
    .replace("hidden = [4]", "hidden = [12]")
    .replace("rates = [0.4]", "rates = [0.0, 0.4]")
    .replace("epochs = 3", 'epochs = 20\nschedule = "constant"\nbatch_size = 40\nweight_decay = 0.0')
    .replace('name = "plain"\nlabel = "SGD"', 'name = "sam"\nlabel = "SAM"\nrho = 0.1')
    .replace("samples = 20\n", "samples = 150\nby_sample = true\n")
)
LOSS = nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in MEASURES.keys() - {"critical", "noise", "samples"}:
            patch.delitem(MEASURES, name)
        return finished_tiny(tmp_path_factory.mktemp("explained"), STUDY)


@pytest.fixture(scope="module")
def noisy(out):
    """(row of the table, groups of the file, loss as a function of the weights, weights, inputs, labels by kind)."""
    run = next(run for run in final_runs(read_study(out / "study.toml")) if "0.4/sam" in run.path)
    data = load_run_data(run.config, RunContext(out))
    model = new_model(run.config, data, "weights").double().eval()
    store.load_weights(out / run.path, model)
    with store.opened(out / run.path) as file:
        found = {
            group: {name: file[group][name][()] for name in file[group]}
            for group in (
                *("critical_sharpness/observed", "critical_sharpness/clean"),
                *("gradient_noise/observed", "samples/observed"),
            )
        }
        which = torch.from_numpy(file["measured_samples/train"][()])
    labels = {"observed": data.labels.observed[which], "clean": data.labels.clean[which]}
    weights = {name: value.detach() for name, value in model.named_parameters()}
    inputs = data.train.inputs[which].double()

    def loss(weights, inputs, targets):
        return LOSS(functional_call(model, weights, inputs), targets)

    return store.scalars(out / run.path), found, loss, weights, inputs, labels


def test_the_critical_steps_are_where_the_losses_first_rise_along_the_gradient_of_the_observed_labels(noisy):
    row, found, loss, weights, inputs, labels = noisy
    step = grad(loss)(weights, inputs, labels["observed"])
    for kind, targets in labels.items():
        critical = found[f"critical_sharpness/{kind}"]
        assert row[f"critical_learning_rate_{kind}"] == critical["learning_rate"]
        if critical["learning_rate"] == 0:
            rates = [critical["high"]]
        else:
            assert critical["converged"]
            rates = [0.98 * critical["low"], 1.02 * critical["high"]]
        here = loss(weights, inputs, targets)
        rises = [
            bool(loss({n: w - rate * step[n] for n, w in weights.items()}, inputs, targets) > here)
            for rate in rates
        ]
        assert rises == [False, True][-len(rises) :], (kind, critical)


def test_the_gradient_noise_is_the_trace_of_the_covariance_of_the_samples_gradients(noisy):
    row, _, loss, weights, inputs, labels = noisy
    by_name = vmap(lambda one, target: grad(loss)(weights, one[None], target[None]))(
        inputs, labels["observed"]
    )
    gradients = torch.cat([each.flatten(1) for each in by_name.values()], 1)
    spread = float(gradients.var(0, unbiased=True).sum())
    # pieces of one sample and of two, in a random order
    assert row["gradient_noise_observed"] == pytest.approx(
        spread, abs=4 * row["gradient_noise_error_observed"]
    )
    assert row["gradient_noise_error_observed"] < 0.3 * spread
    assert row["gradient_norm_observed"] == pytest.approx(float(gradients.mean(0).norm()), rel=1e-4)


def test_the_curvature_of_samples_is_that_of_dense_hessians(noisy):
    _, groups, loss, weights, inputs, labels = noisy
    samples = groups["samples/observed"]
    first = slice(0, 40)
    dense = vmap(
        lambda one, target: hessian(lambda x: loss(weights, x.view_as(one)[None], target[None]))(
            one.flatten()
        )
    )(inputs[first], labels["observed"][first])
    curvature = dense.square().sum((1, 2)).numpy()
    found, error = samples["input_curvature"][first], samples["input_curvature_error"][first]
    assert abs((found - curvature).mean()) < 4 * np.linalg.norm(error) / len(error)
    assert np.linalg.norm(error) < 0.7 * np.linalg.norm(curvature)
    losses = [float(loss(weights, x[None], y[None])) for x, y in zip(inputs, labels["observed"], strict=True)]
    np.testing.assert_allclose(samples["loss"], losses, rtol=1e-3, atol=1e-5)


def test_the_table_has_the_areas_of_each_measure_over_all_samples_and_at_equal_loss(noisy):
    row, found, _, _, _, labels = noisy
    samples, is_wrong = found["samples/observed"], (labels["observed"] != labels["clean"]).numpy()
    assert row["loss_auroc"] == auroc(samples["loss"], is_wrong)
    for name in OF_SAMPLES:
        larger = (np.sign(samples[name][is_wrong, None] - samples[name][~is_wrong]) + 1) / 2
        assert row[f"{name}_auroc"] == pytest.approx(larger.mean(), abs=1e-9)
        assert 0 <= row[f"{name}_auroc_at_equal_loss"] <= 1


def test_runs_without_wrong_labels_have_no_samples_to_compare(out):
    table = store.read_table(out).set_index("noise_rate")
    assert np.isnan(table.loc[0.0, "loss_auroc"])
    assert np.isfinite(table.loc[0.4, "loss_auroc"])
    assert table["critical_learning_rate_clean"].notna().all()


def test_each_run_of_the_table_has_the_edge_of_its_method(out):
    table = store.read_table(out)
    assert table["descent_edge"].tolist() == pytest.approx([76, 76])
    batch = table["gradient_norm_observed"] ** 2 + table["gradient_noise_observed"] / 40
    expected = [sam_edge(76.0, 0.1, norm) for norm in batch**0.5]
    assert table["stability_edge"].tolist() == pytest.approx(expected)
