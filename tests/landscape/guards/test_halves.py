"""The first pass over the data compares each chunk with its halves, and some of its samples with some before."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective

SAMPLES = 1500
CLASS_WEIGHTS = torch.tensor([1.0, 1.0, 50.0])


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(outputs=3, scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, outputs))
    with torch.no_grad():
        model[2].weight.mul_(scale)
        model[2].bias.mul_(scale)
    return model


INPUTS = draws(SAMPLES, 5)
SORTED = torch.arange(SAMPLES) * 3 // SAMPLES


def by_class(outputs, targets):
    return functional.cross_entropy(outputs, targets, weight=CLASS_WEIGHTS.to(outputs))


def loader(batch_size):
    return DataLoader(TensorDataset(INPUTS, SORTED), batch_size=batch_size)


@pytest.mark.parametrize(
    "batch_size",
    [pytest.param(200, id="a batch holds two classes"), pytest.param(250, id="each batch holds one class")],
)
@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(Objective.value, id="value"),
        pytest.param(Objective.gradient, id="gradient"),
        pytest.param(lambda objective: objective.hvp(objective.theta), id="product"),
    ],
)
def test_class_weights_that_begin_late_in_a_stream_are_refused_with_the_place(batch_size, measure):
    objective = Objective(network(), by_class, loader(batch_size), keep="none")
    with pytest.raises(ValueError, match=r"^loss_fn: is not the mean .* chunk \d of the data .* give count="):
        measure(objective)


def tokens(count=400):
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(0, 20, (count, 8), generator=generator) for _ in range(2))
    labels[count // 4 : count // 2, 3:] = -100
    labels[count // 2 :, 1:] = -100
    return ids, labels


def language_model(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 4), nn.Tanh(), nn.Linear(4, 20))
    with torch.no_grad():
        model[2].weight.mul_(scale)
        model[2].bias.mul_(scale)
    return model


def token_mean(outputs, batch):
    # in float32, as models of transformers do
    return functional.cross_entropy(outputs.flatten(0, 1).float(), batch["y"].flatten())


def run(model, batch):
    return model(batch["x"])


IDS, LABELS = tokens()


@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["trained", "all losses about log 20"])
@pytest.mark.parametrize("rows", [50, 100, 1], ids=str)
def test_padding_that_begins_late_in_a_stream_is_refused(rows, scale):
    batches = [{"x": IDS[i : i + rows], "y": LABELS[i : i + rows]} for i in range(0, 400, rows)]
    objective = Objective(language_model(scale), token_mean, batches, forward=run, keep="none")
    with pytest.raises(ValueError, match="^loss_fn: is not the mean over the samples"):
        objective.value()


@pytest.mark.parametrize("chunk_size", [128, 400, 37])
def test_a_token_mean_is_refused_where_all_losses_are_about_equal(chunk_size):
    data = {"x": IDS, "y": LABELS}
    with pytest.raises(ValueError, match="^loss_fn: is not the mean over the samples"):
        Objective(language_model(0.02), token_mean, data, forward=run, chunk_size=chunk_size).gradient()


def test_batches_of_other_widths_are_refused_unless_it_is_said_what_counts():
    batches = [
        {"x": IDS[part, :width], "y": LABELS[part, :width]}
        for part, width in ((slice(0, 100), 8), (slice(100, 200), 3), (slice(200, 400), 1))
    ]
    with pytest.raises(
        ValueError, match="^count: a sample has other numbers of outputs .* chunk 1 of the data"
    ):
        Objective(language_model(), token_mean, batches, forward=run).value()
    model = language_model()
    objective = Objective(
        model, token_mean, batches, forward=run, count=lambda batch: (batch["y"] >= 0).sum()
    )
    whole = functional.cross_entropy(model(IDS).flatten(0, 1).double(), LABELS.flatten())
    assert objective.value() == pytest.approx(whole.item(), rel=1e-6)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    assert torch.allclose(objective.gradient(), torch.cat([part.flatten() for part in expected]), atol=1e-7)


class Trimmed(nn.Module):
    """The mean over the positions of the longest sample of the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.out = nn.Embedding(11, 4), nn.Linear(4, 3)

    def forward(self, ids):
        longest = (ids > 0).sum(1).max()
        return self.out(torch.tanh(self.embedding(ids[:, :longest])).mean(1))


class NoisyAtTwo(nn.Module):
    """Noise for the few samples whose first input is above 2."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        outputs = self.net(x)
        return torch.where(x[:, :1] > 2, outputs + torch.randn_like(outputs), outputs)


def hard_samples(outputs, targets):
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    return losses.topk(min(len(losses), max(200, int(0.7 * len(losses))))).values.mean()


def weighted(outputs, batch):
    losses = functional.cross_entropy(outputs, batch["y"], reduction="none")
    return (batch["w"] * losses).sum() / batch["w"].sum()


def rare(kind):
    labels = torch.arange(2000) % 3
    if kind == "trimmed":
        ids = torch.randint(1, 11, (2000, 12), generator=torch.Generator().manual_seed(0))
        ids[:, 6:] = 0
        ids[777, 6:] = 1
        return Objective(Trimmed(), nn.CrossEntropyLoss(), (ids, labels))
    inputs = draws(2000, 5)
    if kind == "hard":
        return Objective(network(), hard_samples, (inputs, labels))
    if kind == "noise":
        inputs[:8, 0] = 0.0
        return Objective(NoisyAtTwo(), nn.CrossEntropyLoss(), (inputs, labels))
    weights = torch.ones(2000)
    weights[1234] = 500.0
    return Objective(network(), weighted, {"x": inputs, "y": labels, "w": weights}, forward=run)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("trimmed", "^model: its outputs for a sample of chunk 1 .* depend on the other samples"),
        ("hard", "^loss_fn: is not the mean over the samples"),
        ("heavy", r"^loss_fn: is not the mean .* chunk 2 of the data \(samples 1024 to 1535\)"),
        (
            "noise",
            "^model: (the loss of chunk 0 .* in one run and .* in the next|its outputs for a sample differ)",
        ),
    ],
)
def test_what_one_rare_sample_or_a_large_batch_changes_is_refused(kind, cause):
    with pytest.raises(ValueError, match=cause):
        rare(kind).value()


class Counted(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.passes = inner, [0]

    def __deepcopy__(self, known):
        copied = Counted(copy.deepcopy(self.inner, known))
        copied.passes = self.passes
        return copied

    def forward(self, x):
        self.passes[0] += len(x)
        return self.inner(x)


def test_the_data_are_compared_once_also_for_parts_of_them():
    model = Counted(network())
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, SORTED), chunk_size=500)

    def samples_of(measure):
        before = model.passes[0]
        measure()
        return model.passes[0] - before

    first, second = samples_of(objective.value), samples_of(objective.value)
    assert second == SAMPLES
    # the whole, its halves, and the pass itself, beside a few samples
    assert 3 * SAMPLES < first < 3.1 * SAMPLES
    part = objective.subset(samples=torch.arange(700))
    assert samples_of(part.value) == 700


def test_a_stream_is_not_read_once_more():
    class Read(DataLoader):
        times = 0

        def __iter__(self):
            Read.times += 1
            return super().__iter__()

    objective = Objective(
        network(), nn.CrossEntropyLoss(), Read(TensorDataset(INPUTS, SORTED), 100), keep="none"
    )
    before = Read.times
    objective.gradient()
    assert Read.times == before + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e3], ids=lambda scale: f"outputs times {scale:g}")
def test_rounding_is_no_difference(dtype, scale):
    objective = Objective(network(scale=scale), nn.CrossEntropyLoss(), (INPUTS, SORTED), dtype=dtype)
    outputs = network(scale=scale).double()(INPUTS.double())
    right = functional.cross_entropy(outputs, SORTED).item()
    assert objective.value() == pytest.approx(right, rel=0.05 if dtype == torch.bfloat16 else 1e-5)


def test_a_fitted_classifier_is_no_difference():
    # losses of about 1e-7, all of it rounding in float32
    model = nn.Linear(3, 3, bias=True)
    with torch.no_grad():
        model.weight.copy_(16 * torch.eye(3))
    inputs = torch.eye(3)[torch.arange(900) % 3] + 0.01 * draws(900, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, torch.arange(900) % 3))
    right = functional.cross_entropy(model.double()(inputs.double()), torch.arange(900) % 3)
    assert objective.value() == pytest.approx(right.item(), rel=0.2)


def test_the_random_state_stays_as_it_is():
    objective = Objective(network(), nn.CrossEntropyLoss(), (INPUTS, SORTED))
    before = torch.get_rng_state()
    objective.value()
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_norm_with_stored_statistics_is_no_difference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model(INPUTS)
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, SORTED))
    right = functional.cross_entropy(model.eval()(INPUTS), SORTED)
    with torch.inference_mode():
        assert objective.value() == pytest.approx(right.item(), rel=1e-6)


class Pooled(nn.Module):
    """Attention over places: the softmax cancels the bias of the scores, whose gradient is rounding alone."""

    def __init__(self):
        super().__init__()
        self.classes, self.score = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, places):
        weights = self.score(places).softmax(1)
        return self.classes((weights * places).sum(1))


class WithStates(nn.Module):
    """Scores of sequences of any length, and the state at each place."""

    def __init__(self):
        super().__init__()
        self.words, self.scores = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids):
        states = self.words(ids)
        return {"scores": self.scores(states.mean(1)), "states": states}


def fitted(dtype):
    """A model at weights that fit all data, where each gradient is rounding alone."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    inputs = torch.randn(60, 5, dtype=dtype)
    targets = teacher(inputs).detach()
    return Objective(teacher, lambda outputs, targets: (outputs - targets).square().mean(), (inputs, targets))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), lambda o, t: nn.functional.cross_entropy(o, t)])
def test_a_gradient_that_is_rounding_alone_tells_nothing(loss):
    torch.manual_seed(0)
    data = (torch.randn(200, 12, 6), torch.arange(200) % 3)
    assert Objective(Pooled(), loss, data, chunk_size=64).gradient().norm() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_fit_all_data_are_measured(dtype):
    assert fitted(dtype).gradient().norm() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_whose_targets_are_the_models_own_outputs_is_measured_beside_labels(seed):
    model = network().double()
    inputs = draws(37, 5, seed=seed).double()
    targets = torch.arange(37) % 3
    outputs = model(inputs).detach()
    losses = [functional.cross_entropy(outputs, each) for each in (targets, outputs.softmax(1))]
    data = [(inputs, targets), (inputs, outputs.softmax(1))]
    found = Objective(model, nn.CrossEntropyLoss(), data).value()
    assert found == pytest.approx(float(sum(losses)) / 2, rel=1e-12)


def test_a_model_that_takes_nothing_above_1_is_measured_beside_its_own_outputs():
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network().double()

        def forward(self, x):
            if x.max() > 1:
                raise ValueError("pixels are at most 1")
            return self.layers(x)

    inputs, model = torch.ones(8, 5, dtype=torch.float64), Bounded()
    outputs = model(inputs).detach()
    data = [(inputs, torch.arange(8) % 3), (inputs, outputs.softmax(1))]
    losses = [functional.cross_entropy(outputs, targets) for _, targets in data]
    found = Objective(model, functional.cross_entropy, data).value()
    assert found == pytest.approx(sum(map(float, losses)) / 2, rel=1e-12)


def test_padding_and_states_that_the_loss_does_not_reach_may_have_any_length():
    torch.manual_seed(0)
    batches = [{"ids": torch.randint(20, (8, length)), "y": torch.arange(8) % 3} for length in (4, 6, 5)]
    model = WithStates()
    objective = Objective(
        model,
        lambda outputs, batch: nn.functional.cross_entropy(outputs["scores"], batch["y"]),
        batches,
        forward=lambda model, batch: model(batch["ids"]),
    )
    each = [
        nn.functional.cross_entropy(model(batch["ids"])["scores"], batch["y"]).item() for batch in batches
    ]
    assert objective.value_and_gradient()[0].item() == pytest.approx(sum(each) / 3, rel=1e-6)
