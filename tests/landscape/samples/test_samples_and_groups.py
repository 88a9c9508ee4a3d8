"""Which samples are measured, in which order, and means over groups of them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from landscape import Objective, load, sample_curvature, save
from landscape.samples import MEASURES, SampleCurvature
from tests.landscape.samples.small_networks import D, build, few


def test_one_sample_alone():
    model, inputs, targets = few("mlp")
    whole = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    alone = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs[:1], targets[:1])))
    assert alone.samples == 1
    assert alone.gradient_cosine[0] == pytest.approx(1)
    np.testing.assert_allclose(alone.hessian_trace[0], whole.hessian_trace[0], rtol=1e-9)
    assert np.isnan(alone.by_class().sampling_error).all()


def test_a_sample_that_is_no_number_leaves_the_others_as_they_are():
    model, inputs, targets = build("mlp")
    cross_entropy = nn.CrossEntropyLoss()
    others = sample_curvature(Objective(model, cross_entropy, (inputs[1:], targets[1:])))
    broken = inputs.clone()
    broken[0, 0, 0, 0] = float("nan")
    found = sample_curvature(Objective(model, cross_entropy, (broken, targets)))
    for measure in ("loss", *MEASURES):
        assert np.isnan(getattr(found, measure)[0]), measure
        assert np.isfinite(getattr(found, measure)[1:]).all(), measure
    assert np.isnan(found.gauss_newton_trace_error[0])
    np.testing.assert_allclose(found.gradient_cosine[1:], others.gradient_cosine)
    groups = found.by(np.arange(37) == 0)
    column = list(groups.measure).index("gradient_norm")
    assert groups.counted[:, column].tolist() == [36, 0]
    assert groups.mean[0, column] == pytest.approx(others.gradient_norm.mean())


def test_a_gradient_of_zeros_has_no_cosine():
    model = nn.Linear(3, 2).double()
    inputs = torch.eye(3, dtype=D)
    targets = model(inputs).detach().clone()
    targets[1:] += 1
    found = sample_curvature(Objective(model, nn.MSELoss(), (inputs, targets)))
    assert found.gradient_norm[0] == 0
    assert np.isnan(found.gradient_cosine[0])
    assert np.isfinite(found.gradient_cosine[1:]).all()
    assert np.isfinite(found.gauss_newton_trace).all()


def test_samples_that_do_not_count_are_no_numbers():
    model, inputs, targets = few("mlp")
    ignored = targets.clone()
    ignored[1] = -100
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 9.0], dtype=D))
    found = sample_curvature(Objective(model, loss_fn, (inputs, ignored)), measures=["gradient_norm"])
    plain = sample_curvature(
        Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), measures=["gradient_norm"]
    )
    assert np.isnan(found.gradient_norm).tolist() == [False, True, False, False]
    np.testing.assert_allclose(found.gradient_norm[[0, 2, 3]], plain.gradient_norm[[0, 2, 3]])


def test_batches_of_any_form_and_streams():
    model, inputs, targets = build("mlp")
    cross_entropy = nn.CrossEntropyLoss()
    expected = sample_curvature(Objective(model, cross_entropy, (inputs, targets)))
    batches = [
        {"x": inputs[start : start + 10], "y": targets[start : start + 10]} for start in range(0, 37, 10)
    ]
    told = Objective(
        model,
        lambda outputs, batch: cross_entropy(outputs["scores"], batch["y"]),
        batches,
        forward=lambda model, batch: {"scores": model(batch["x"])},
        keep="none",
    )
    found = sample_curvature(told)
    assert found.measures == ("gradient_norm", "gradient_cosine", "gauss_newton_trace", "hessian_trace")
    for measure in found.measures:
        np.testing.assert_allclose(getattr(found, measure), getattr(expected, measure), rtol=1e-9)


SAMPLES = range(37)
BY_TEN = {"batch_size": 10}


def distributed(shuffle):
    return DistributedSampler(SAMPLES, num_replicas=1, rank=0, shuffle=shuffle)


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize(
    "order",
    [
        {"shuffle": True, **BY_TEN},
        {"sampler": SubsetRandomSampler(SAMPLES), **BY_TEN},
        {"sampler": WeightedRandomSampler([1.0] * 37, 37), **BY_TEN},
        {"sampler": distributed(shuffle=True), **BY_TEN},
        {"batch_sampler": BatchSampler(RandomSampler(SAMPLES), 10, drop_last=False)},
    ],
)
def test_shuffled_data_are_refused_as_no_row_belongs_to_a_known_sample(order, keep):
    model, inputs, targets = build("mlp")
    loader = DataLoader(TensorDataset(inputs, targets), **order)
    objective = Objective(model, nn.CrossEntropyLoss(), loader, keep=keep)
    with pytest.raises(ValueError, match=r"^data: are shuffled.*shuffle=False"):
        sample_curvature(objective, measures=["gradient_norm"])


@pytest.mark.parametrize("order", [BY_TEN, {"sampler": distributed(shuffle=False), **BY_TEN}])
def test_rows_have_the_order_of_a_loader_that_is_not_shuffled(order):
    model, inputs, targets = build("mlp")
    loader = DataLoader(TensorDataset(inputs, targets), **order)
    found = sample_curvature(
        Objective(model, nn.CrossEntropyLoss(), loader, keep="none"), measures=["gradient_norm"]
    )
    expected = sample_curvature(
        Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), measures=["gradient_norm"]
    )
    assert found.target.tolist() == targets.tolist()
    np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=1e-9)


def test_the_sampling_error_contains_the_noise_of_the_probes():
    generator = np.random.default_rng(0)
    # samples that differ by nothing but the noise of their probes
    noise = SampleCurvature(
        loss=np.ones(4000),
        probes=4,
        products=4,
        samples=4000,
        input_trace=generator.normal(size=4000),
        input_trace_error=np.ones(4000),
    )
    whole = noise.by(np.zeros(4000))
    sampled, probed = whole.sampling_error[0, 1], whole.probe_error[0, 1]
    assert sampled == pytest.approx(probed, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "^probes: must be at least 2, got 1"),
        ({"measures": ["sharpness"]}, "^measures: must be among .*got 'sharpness'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    model, inputs, targets = few("mlp")
    with pytest.raises(ValueError, match=message):
        sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), **options)


def test_batches_that_cannot_be_cut_are_refused():
    graph = {"nodes": torch.randn(5, 3), "edges": torch.zeros(2, 9, dtype=torch.int64)}
    objective = Objective.of_loss(
        lambda model, batch: model(batch["nodes"]).square().mean(),
        nn.Linear(3, 1),
        [graph],
        count=lambda _: 1,
    )
    with pytest.raises(ValueError, match="cannot be cut into samples"):
        sample_curvature(objective)


def test_means_over_groups_carry_both_errors():
    model, inputs, targets = build("mlp")
    found = sample_curvature(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)))
    groups = found.by_class()
    assert groups.group.tolist() == ["0", "1", "2"]
    assert groups.size.tolist() == targets.bincount().tolist()
    members = (targets == 1).numpy()
    column = list(groups.measure).index("input_trace")
    values, errors = found.input_trace[members], found.input_trace_error[members]
    assert groups.mean[1, column] == pytest.approx(values.mean())
    assert groups.probe_error[1, column] == pytest.approx(np.sqrt((errors**2).sum()) / members.sum())
    assert groups.sampling_error[1, column] == pytest.approx(values.std(ddof=1) / np.sqrt(members.sum()))
    assert (groups.probe_error[:, list(groups.measure).index("gauss_newton_trace")] == 0).all()
    with pytest.raises(ValueError, match="^groups"):
        found.by([1, 2])


def test_results_are_stored_without_loss(tmp_path):
    model, inputs, targets = few("mlp")
    found = sample_curvature(
        Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), measures=["input_trace"]
    )
    for name, value in (("samples", found), ("classes", found.by_class())):
        save(tmp_path / "file.h5", name, value)
        loaded = load(tmp_path / "file.h5", name)
        for field, expected in vars(value).items():
            np.testing.assert_array_equal(getattr(loaded, field), expected)
    assert found.loss_unit == "nat"


def test_progress_is_told_in_samples():
    told = []
    model, inputs, targets = build("mlp")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets), chunk_size=20)
    sample_curvature(objective, measures=["gradient_norm"], progress=lambda *step: told.append(step))
    assert told == [(20, 37), (37, 37)]


def test_the_samples_whose_group_is_nan_are_a_group():
    model, inputs, targets = build("mlp")
    found = sample_curvature(
        Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), measures=["gradient_norm"]
    )
    of_sample = np.arange(37) % 2 * 1.0
    of_sample[:5] = np.nan
    groups = found.by(of_sample)
    assert groups.group.tolist() == ["0.0", "1.0", "nan"]
    assert groups.size.tolist() == [16, 16, 5]
    assert groups.mean[2, 1] == pytest.approx(found.gradient_norm[:5].mean())
