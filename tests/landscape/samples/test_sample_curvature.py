"""Measures of single samples, against a loop of dense Jacobians and Hessians in float64."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from landscape import Objective, load, sample_curvature, save, trace
from landscape.samples import MEASURES, SampleCurvature
from tests.conftest import Recurrent, flat

D = torch.float64
FEW = 4


def dense(model, loss_fn, inputs, targets):
    """All measures of each sample, one after the other."""
    named = {name: p.detach() for name, p in model.eval().named_parameters()}
    theta = flat(model)

    def outputs(point, x):
        parts = point.split([p.numel() for p in named.values()])
        weights = {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(model, weights, (x,))

    rows, gradients = [], []
    hessian, jacobian = torch.autograd.functional.hessian, torch.autograd.functional.jacobian
    with sdpa_kernel(SDPBackend.MATH):
        for i in range(len(inputs)):
            x, y = inputs[i : i + 1], targets[i : i + 1]
            scores = outputs(theta, x).detach()
            J = jacobian(lambda point, x=x: outputs(point, x)[0], theta)
            M = hessian(lambda z, y=y: loss_fn(z, y), scores)[0, :, 0, :]
            p = scores[0].softmax(0)
            H = hessian(lambda point, x=x, y=y: loss_fn(outputs(point, x), y), theta)
            H_input = torch.zeros(1, 1)
            if x.is_floating_point():
                H_input = hessian(lambda x, y=y: loss_fn(outputs(theta, x), y), x)
                H_input = H_input.reshape(x.numel(), x.numel())
            gradients.append(jacobian(lambda point, x=x, y=y: loss_fn(outputs(point, x), y), theta))
            rows.append(
                {
                    "loss": loss_fn(scores, y).item(),
                    "gauss_newton_trace": (J.T @ M @ J).trace().item(),
                    "fisher_trace": (J.T @ (torch.diag(p) - torch.outer(p, p)) @ J).trace().item(),
                    "hessian_trace": H.trace().item(),
                    "input_trace": H_input.trace().item(),
                    "input_curvature": H_input.square().sum().item(),
                }
            )
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    gradients = torch.stack(gradients)
    found["gradient_norm"] = gradients.norm(dim=1).numpy()
    found["gradient_cosine"] = torch.cosine_similarity(gradients, gradients.mean(0, keepdim=True)).numpy()
    return found


class Normalized(nn.Module):
    """Tokens, an embedding, LayerNorm and an output from each."""

    def __init__(self):
        super().__init__()
        self.embedding, self.inner = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.inner(self.embedding(x)))).mean(1))


class Tied(nn.Module):
    """One matrix in two layers."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = x.flatten(1)[:, :4]
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


@cache
def build(name):
    """A network of some dozen weights, so that unit vectors are few, with 37 samples in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        images = torch.randn(37, 1, 4, 4, dtype=D)
        targets = torch.randint(0, 3, (37,))
        model = {
            "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 3)),
            "cnn": lambda: nn.Sequential(
                *(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.GELU(), nn.Dropout(0.5)),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)),
            ),
            "tied": Tied,
            "layer-norm": Normalized,
        }[name]()
        if name == "cnn":
            model[1].running_mean.uniform_(-0.2, 0.2)
            model[1].running_var.uniform_(0.5, 2)
    return model.double(), images, targets


def few(name):
    model, inputs, targets = build(name)
    return model, inputs[:FEW], targets[:FEW]


def generalized_cross_entropy(outputs, targets):
    """Not convex in the outputs: its Gauss-Newton matrix has negative eigenvalues."""
    chances = outputs.softmax(1).gather(1, targets.unsqueeze(1))
    return ((1 - chances**0.7) / 0.7).mean()


LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.2),
    "generalized": generalized_cross_entropy,
}


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
    found = sample_curvature(objective, measures=chosen, exact_up_to=19, probes=16)
    assert (truth.gauss_newton_trace_error == 0).all()
    np.testing.assert_allclose(found.gauss_newton_trace, found.fisher_trace)
    deviation = (found.fisher_trace - truth.fisher_trace) / found.fisher_trace_error
    assert 0.6 < np.sqrt(np.mean(deviation**2)) < 1.6


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


def test_the_mean_gradient_of_the_cosine_has_the_sample_itself_in_it():
    # the gradient of a sample is that of its own weight alone
    model = nn.Linear(9, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    objective = Objective(model, nn.MSELoss(), (torch.eye(9).double(), torch.ones(9, 1).double()))
    found = sample_curvature(objective, measures=["gradient_cosine"])
    np.testing.assert_allclose(found.gradient_cosine, 1 / 3)


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
