"""Shared, traced and blocked passes give what a plain loop over the points gives."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective, lines, random_directions, surface, surfaces
from landscape.evaluation import evaluator
from landscape.evaluation.evaluator import Evaluator
from landscape.seeds import generator_for
from tests.conftest import MODEL_NAMES, build

cross_entropy = nn.CrossEntropyLoss()


class SmallResidual(nn.Module):
    """Convolutions with BatchNorm, a shortcut and max pooling, of one input channel."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x[:, :1])))
        x = nn.functional.max_pool2d(x + torch.relu(self.norm2(self.conv2(x))), 2)
        return self.head(x.flatten(1))


def case(name):
    if name != "residual":
        return build(name)
    _, inputs, targets = build("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallResidual()
    model.norm1.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    return model.double(), inputs, targets


def plain_loop(model, directions, inputs, targets, multiples):
    """Loss and accuracy at each point, by the model itself on all samples at once."""
    model = copy.deepcopy(model).eval()
    named = {n: p.detach() for n, p in model.named_parameters()}
    rows = []
    for row in multiples:
        weights, start = {}, 0
        for name, p in named.items():
            part = directions[start : start + p.numel()] @ torch.as_tensor(row)
            weights[name], start = p + part.view(p.shape), start + p.numel()
        outputs = functional_call(model, weights, (inputs,))
        hits = (outputs.argmax(1) == targets).double().mean().item()
        rows.append([cross_entropy(outputs, targets).item(), hits])
    return np.array(rows).T


@pytest.mark.parametrize("chunk_size", [10, 37])
@pytest.mark.parametrize("name", [*MODEL_NAMES, "residual"])
def test_every_point_is_that_of_a_plain_loop(name, chunk_size):
    model, inputs, targets = case(name)
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=chunk_size)
    directions = random_directions(objective, 2, normalize="model", one_dimensional="normalize")
    plane = surface(objective, directions, steps=(6, 5), extent=(0.5, 1.0))
    multiples = [(a, b) for a in plane.alpha for b in plane.beta]
    loss, accuracy = plain_loop(model, directions.vectors, inputs, targets, multiples)
    np.testing.assert_allclose(plane.loss.ravel(), loss, rtol=1e-11)
    np.testing.assert_array_equal(plane.accuracy.ravel(), accuracy)


@pytest.mark.parametrize("name", ["relu-mlp", "cnn-batchnorm-dropout", "residual"])
def test_in_float32_points_are_near_those_in_float64(name):
    model, inputs, targets = case(name)
    exact = Objective(model, cross_entropy, (inputs, targets))
    directions = random_directions(exact, 2)
    truth = surface(exact, directions, steps=7).loss
    single = Objective(copy.deepcopy(model).float(), cross_entropy, (inputs.float(), targets))
    np.testing.assert_allclose(surface(single, directions, steps=7).loss, truth, rtol=1e-5)


def test_layers_and_blocks_are_shared_where_that_pays():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    vectors = list(random_directions(objective, 2).vectors.T)
    many = Evaluator({"loss": objective}, vectors, expected=2601)
    (shared,) = many._passes
    assert many.block > 1
    assert shared._traced
    assert shared._linear_parts[0] is not None
    assert Evaluator({"loss": objective}, vectors, expected=3).block == 1


def test_without_memory_to_keep_the_first_layers_the_points_are_the_same():
    model, inputs, targets = build("relu-mlp")
    planes = []
    for budget in (0, 2**30):
        objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10)
        # of the first layers alone; the vectors have their own
        objective.memory_budget = budget
        planes.append(surface(objective, random_directions(objective, 2), steps=5).loss)
    np.testing.assert_allclose(planes[0], planes[1], rtol=1e-12)


class Counting(nn.Module):
    """Counts the samples that go through it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        Counting.samples += len(x)
        return self.inner(x)


def test_losses_on_the_same_inputs_share_their_passes():
    model, inputs, targets = build("mlp")
    counted = Counting(model)
    Counting.samples = 0
    labels = {"observed": targets, "clean": (targets + 1) % 3}
    objectives = {
        name: Objective(counted, cross_entropy, (inputs.clone(), chosen)) for name, chosen in labels.items()
    }
    objectives["test"] = Objective(counted, cross_entropy, (inputs[:9] + 1, targets[:9]))
    directions = random_directions(objectives["clean"], 1)
    for each in objectives.values():
        # the first pass over the data takes more
        each.value()
    Counting.samples = 0
    profiles = lines(objectives, directions, alpha=[-0.5, 0.25, 0.5])
    of_points = 3 * (37 + 9)
    # besides, each of three models itself, what each set of inputs is looked at with, and four samples before and after
    assert Counting.samples <= of_points + 2 * (37 + 37 + 9) + 3 * 2 * 4
    for name, objective in objectives.items():
        alone = lines({"only": objective}, directions, alpha=[-0.5, 0.25, 0.5])["only"]
        np.testing.assert_allclose(profiles[name].loss, alone.loss, rtol=1e-12)
        np.testing.assert_array_equal(profiles[name].accuracy, alone.accuracy)
        assert profiles[name].samples == objective.n_samples


LEFT_OUT = {
    "an ignored class": nn.CrossEntropyLoss(ignore_index=2),
    "a class of weight 0": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)),
    "an ignored class, summed": nn.CrossEntropyLoss(ignore_index=2, reduction="sum"),
    "an ignored class, as a function": partial(nn.functional.cross_entropy, ignore_index=2),
}


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("loss_fn", LEFT_OUT.values(), ids=LEFT_OUT)
def test_samples_that_the_loss_leaves_out_are_neither_hits_nor_misses(loss_fn, keep):
    """They counted as hits, so that an accuracy could be above 1."""
    model, inputs, _ = build("mlp")
    # all are hits, but for every fifth sample
    targets = model.eval()(inputs).argmax(1)
    targets = torch.where(torch.arange(37) % 5 == 0, (targets + 1) % 3, targets)
    counted = targets != 2
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=10)
    objective = Objective(model, loss_fn, loader, keep=keep)
    direction, alpha = random_directions(objective, 1), [-0.5, 0.0, 0.5]
    profile = lines({"loss": objective}, direction, alpha=alpha)["loss"]
    plain = plain_loop(model, direction.vectors, inputs[counted], targets[counted], np.array(alpha)[:, None])
    assert objective.evaluate().accuracy == pytest.approx(plain[1][1])
    np.testing.assert_allclose(profile.accuracy, plain[1])


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x):
        return self.inner(x) * self.scale


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Scaled(1.0), Scaled(5.0)),
        (
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
            nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        ),
    ],
    ids=["buffer that is not persistent", "architecture"],
)
def test_objectives_of_models_that_share_just_their_state_are_refused(one, other):
    other.load_state_dict(one.state_dict())
    data = (torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 0, 1, 1, 0]))
    objectives = {"a": Objective(one, cross_entropy, data), "b": Objective(other, cross_entropy, data)}
    with pytest.raises(ValueError, match="^objectives: 'b' is of another model"):
        lines(objectives, random_directions(objectives["a"], 1))
    copied = Objective(copy.deepcopy(one), cross_entropy, data)
    assert lines({"a": objectives["a"], "c": copied}, random_directions(copied, 1), steps=3).keys() == {
        "a",
        "c",
    }


def test_objectives_of_different_weights_are_refused():
    model, inputs, targets = build("mlp")
    first = Objective(model, cross_entropy, (inputs, targets))
    with torch.no_grad():
        model[1].weight.add_(1)
    second = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match="^objectives: 'b'"):
        surfaces({"a": first, "b": second}, random_directions(first, 2), steps=3)
    with pytest.raises(ValueError, match="^objectives"):
        surfaces({}, random_directions(first, 2))


def test_a_regression_has_losses_but_no_accuracy():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 4, generator=generator), torch.randn(20, 1, generator=generator)
    objective = Objective(nn.Linear(4, 1), nn.MSELoss(), data)
    plane = surface(objective, random_directions(objective, 2), steps=5)
    assert np.isfinite(plane.loss).all()
    assert np.isnan(plane.accuracy).all()


def clever_loss(outputs, targets):
    """A loss that looks at values, which vmap cannot."""
    if targets.max() > 5:
        raise AssertionError
    return cross_entropy(outputs, targets)


@pytest.mark.parametrize("samples", [None, 20])
def test_a_loss_that_cannot_be_mapped_is_evaluated_point_by_point(samples):
    model, inputs, targets = build("relu-mlp")
    planes = []
    for loss_fn in (cross_entropy, clever_loss):
        objective = Objective(model, loss_fn, (inputs, targets))
        planes.append(surface(objective, random_directions(objective, 2), steps=5, samples=samples))
    np.testing.assert_allclose(planes[0].loss, planes[1].loss, rtol=1e-12)


class Branching(nn.Module):
    """A model that cannot be traced, as it looks at the values of its weights."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(72, 3)

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return y if self.inner.weight.sum() > 0 else 2 * y


def test_a_model_that_cannot_be_traced_is_evaluated_directly():
    _, inputs, targets = build("mlp")
    model = Branching().double()
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = random_directions(objective, 2)
    plane = surface(objective, directions, steps=6, extent=3.0)
    multiples = [(a, b) for a in plane.alpha for b in plane.beta]
    loss, _ = plain_loop(model, directions.vectors, inputs, targets, multiples)
    np.testing.assert_allclose(plane.loss.ravel(), loss, rtol=1e-11)


class InPlace(nn.Linear):
    def forward(self, x):
        return super().forward(x.add_(1))


@pytest.mark.parametrize("steps", [3, 7])
def test_a_model_that_changes_its_inputs_sees_the_same_ones_at_each_point(steps):
    data = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
    model = InPlace(40, 2)
    objective = Objective(model, cross_entropy, data)
    plane = surface(objective, random_directions(objective, 2), steps=steps)
    outputs = nn.functional.linear(data[0] + 1, model.weight, model.bias)
    assert plane.center_loss == pytest.approx(cross_entropy(outputs, data[1]).item(), rel=1e-6)
    again = surface(objective, random_directions(objective, 2), steps=steps)
    np.testing.assert_array_equal(plane.loss, again.loss)


def test_standard_errors_are_those_of_the_sample_losses():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets), chunk_size=10)
    directions = random_directions(objective, 2)
    plane = surface(objective, directions, steps=3, samples=37)
    # all of the population: nothing is left to chance
    assert (plane.loss_error == 0).all()
    plane = surface(objective, directions, steps=3, samples=20, seed=4)
    order = torch.randperm(37, generator=generator_for("samples of slices", 4))[:20].sort().values
    each = []
    for row in [(0.0, 0.0), (1.0, -1.0)]:
        theta = objective.theta + directions.vectors @ torch.tensor(row, dtype=torch.float64)
        outputs = objective.outputs(theta, inputs[order])
        each.append(nn.functional.cross_entropy(outputs, targets[order], reduction="none").numpy())
    left = np.sqrt(1 - 20 / 37)
    rise = each[1] - each[0]
    assert plane.loss[2, 0] == pytest.approx(each[1].mean(), rel=1e-12)
    assert plane.loss_error[2, 0] == pytest.approx(left * each[1].std(ddof=1) / np.sqrt(20), rel=1e-9)
    assert plane.rise_error[2, 0] == pytest.approx(left * rise.std(ddof=1) / np.sqrt(20), rel=1e-9)
    assert plane.rise_error[1, 1] == 0
    assert (plane.samples, plane.population) == (20, 37)


def test_standard_errors_hold_the_whole_data_set_as_often_as_they_should():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    directions = random_directions(objective, 1)
    truth = lines({"all": objective}, directions, alpha=[-1.0, 1.0])["all"]
    held, rises = [], []
    for seed in range(200):
        part = lines({"some": objective}, directions, alpha=[-1.0, 1.0], samples=18, seed=seed)["some"]
        held.append(np.abs(part.loss - truth.loss) <= 2 * part.loss_error)
        difference = part.loss - part.center_loss - (truth.loss - truth.center_loss)
        rises.append(np.abs(difference) <= 2 * part.rise_error)
    # 95.5% of a Gaussian; few samples of skewed losses, and 200 draws
    assert 0.85 <= np.mean(held) <= 1
    assert 0.85 <= np.mean(rises) <= 1


@pytest.mark.parametrize("samples", [1, 38])
def test_an_impossible_number_of_samples_is_named(samples):
    model, inputs, targets = build("mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    with pytest.raises(ValueError, match="^samples"):
        surface(objective, random_directions(objective, 2), steps=3, samples=samples)


def of_dict(factor):
    """Outputs in a dict, which no pass is prepared for."""
    return {
        "forward": lambda model, batch: {"scores": model(batch[0]), "labels": batch[1]},
        "loss": lambda outputs, batch: factor * cross_entropy(outputs["scores"], batch[1]),
    }


@pytest.mark.parametrize("kind", ["outputs in a dict", "losses that run the model", "one of each"])
@pytest.mark.parametrize("steps", [3, 25])
def test_losses_on_the_same_inputs_whose_passes_cannot_be_prepared_have_a_pass_each(kind, steps):
    """The first one stood for all, which ended in an IndexError; losses that run the model were refused."""
    model, inputs, targets = build("mlp")

    def objective(factor):
        by_itself = kind == "losses that run the model" or (kind == "one of each" and factor == 2)
        if by_itself:
            return Objective.of_loss(
                lambda model, batch: factor * cross_entropy(model(batch[0]), batch[1]),
                model,
                (inputs, targets),
            )
        options = of_dict(factor)
        return Objective(model, options.pop("loss"), (inputs, targets), **options)

    objectives = {"one": objective(1), "two": objective(2)}
    directions = random_directions(objectives["one"], 1)
    together = lines(objectives, directions, steps=steps)
    plain, _ = plain_loop(
        model, directions.vectors.double(), inputs, targets, together["one"].alpha[:, None].astype(float)
    )
    np.testing.assert_allclose(together["one"].loss, plain, rtol=1e-10)
    np.testing.assert_allclose(together["two"].loss, 2 * plain, rtol=1e-10)


def test_losses_that_run_models_of_other_layers_are_refused():
    def loss(model, batch):
        return cross_entropy(model(batch[0]), batch[1])

    data = torch.eye(3).double(), torch.tensor([0, 1, 0])
    one = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    other = nn.Sequential(one[0], nn.Tanh(), one[2])
    objectives = {name: Objective.of_loss(loss, m, data) for name, m in (("one", one), ("other", other))}
    with pytest.raises(ValueError, match="^objectives: 'other' is of another model"):
        lines(objectives, random_directions(objectives["one"], 1), steps=3)


@pytest.mark.parametrize("draw", [lines, surfaces], ids=["lines", "surfaces"])
def test_a_sum_over_some_of_the_samples_is_no_estimate_of_the_sum_over_all(draw):
    model, inputs, targets = build("mlp")
    objective = Objective(model, nn.CrossEntropyLoss(reduction="sum"), (inputs, targets))
    directions = random_directions(objective, 1 if draw is lines else 2)
    with pytest.raises(ValueError, match="^samples: the loss of 'a' is a sum"):
        draw({"a": objective}, directions, steps=3, samples=20)
    whole, drawn = (draw({"a": objective}, directions, steps=3, samples=each)["a"] for each in (None, 37))
    np.testing.assert_allclose(drawn.loss, whole.loss, rtol=1e-12)
    assert drawn.loss_error.max() == 0


def test_each_objective_is_asked_once_whether_its_passes_can_be_prepared(monkeypatch):
    model, inputs, targets = build("mlp")
    asked = []
    monkeypatch.setattr(evaluator, "_can_be_prepared", lambda objective: asked.append(objective) or True)
    objectives = {name: Objective(model, cross_entropy, (inputs, targets)) for name in "abcd"}
    Evaluator(objectives, [], expected=1)
    assert asked == list(objectives.values())
