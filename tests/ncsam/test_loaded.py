"""Training on map-style datasets and DataLoaders: the same as on the same samples in memory."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from ncsam import (
    METRICS,
    NCSAM,
    Augmentation,
    EarlyLearningRegularization,
    Loaded,
    Plain,
    Split,
    corrupt_labels,
    fit,
    predict,
)
from ncsam.datasets import as_samples

loss_fn = nn.CrossEntropyLoss()
GENERATOR = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(101, 6, generator=GENERATOR), torch.arange(101) % 3
TRAIN, HELD_OUT = slice(0, 81), slice(81, None)
LABELS = corrupt_labels(TARGETS[TRAIN], rate=0.4, seed=0)
HELD_OUT_PAIRS = TensorDataset(INPUTS[HELD_OUT], TARGETS[HELD_OUT])


class Pairs(Dataset):
    """Pairs, with noise of its own on the inputs if wanted, from each of the three global generators."""

    def __init__(self, noise=0.0, inputs_only=False):
        self.noise, self.inputs_only = noise, inputs_only

    def __len__(self):
        return 81

    def __getitem__(self, index):
        drawn = torch.rand(6) + random.random() + np.random.rand()  # noqa: NPY002
        inputs = INPUTS[index] + self.noise * drawn
        # targets that must not be read
        return inputs if self.inputs_only else (inputs, 77)


def numpys_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002


def prepare(kind="ncsam"):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    method = {
        "plain": lambda: Plain(model, loss_fn),
        "elr": lambda: Plain(model, EarlyLearningRegularization(81, 3)),
        "ncsam": lambda: NCSAM(model, loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1),
    }[kind]()
    return method, torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)


def train(data, held_out=HELD_OUT_PAIRS, kind="ncsam", **options):
    method, optimizer = prepare(kind)
    settings = {"epochs": 3, "batch_size": 16, "seed": 0, **options}
    return fit(method, optimizer, data, LABELS, held_out, **settings), method


def assert_same_training(one, other):
    (history, method), (expected, undisturbed) = one, other
    for name, tensor in method.model.state_dict().items():
        assert torch.equal(tensor, undisturbed.model.state_dict()[name]), name
    for name in METRICS.keys() - {"seconds"}:
        np.testing.assert_allclose(
            history.metrics[name], expected.metrics[name], rtol=1e-5, atol=1e-7, err_msg=name
        )


IN_MEMORY = Split(INPUTS[TRAIN], TARGETS[TRAIN]), Split(INPUTS[HELD_OUT], TARGETS[HELD_OUT])


@pytest.mark.parametrize("kind", ["plain", "elr", "ncsam"])
@pytest.mark.parametrize(
    "data",
    [
        Pairs(),
        Pairs(inputs_only=True),
        [Pairs()[i] for i in range(81)],
        DataLoader(Pairs(), batch_size=16, shuffle=True),
    ],
    ids=["dataset", "inputs only", "list", "loader"],
)
def test_a_dataset_trains_as_the_same_samples_in_memory_do(kind, data):
    assert_same_training(
        train(data, kind=kind, alignment_batches=1), train(*IN_MEMORY, kind, alignment_batches=1)
    )


def test_a_dataset_is_evaluated_on_its_samples_without_augmentation_where_these_are_given():
    augmented, method = train(Loaded(Pairs(noise=0.5), evaluated=Pairs()))
    outputs = predict(method.model, INPUTS[TRAIN])
    assert augmented.metrics["train_loss"][-1] == pytest.approx(loss_fn(outputs, LABELS.observed).item())
    _, without = train(Pairs())
    assert not torch.equal(method.model[0].weight, without.model[0].weight)


def test_what_items_draw_follows_from_seed_epoch_and_position_with_any_number_of_workers():
    alone = train(Pairs(noise=0.5))
    state = torch.get_rng_state(), random.getstate(), numpys_state()
    loader = DataLoader(Pairs(noise=0.5), batch_size=16, num_workers=2)
    assert_same_training(train(loader, DataLoader(HELD_OUT_PAIRS, num_workers=1)), alone)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), numpys_state()) == state[1:]
    other = train(Pairs(noise=0.5), seed=1)[1].model.state_dict()
    assert not torch.equal(other["0.weight"], alone[1].model.state_dict()["0.weight"])


def test_a_killed_training_on_an_augmenting_dataset_resumes_to_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch, *_):
        if epoch == 2:
            raise Killed

    path = tmp_path / "run.ckpt"
    with pytest.raises(Killed):
        train(Pairs(noise=0.5), checkpoint=path, on_epoch=kill)
    assert_same_training(train(Pairs(noise=0.5), checkpoint=path), train(Pairs(noise=0.5)))


class Unequal(Dataset):
    """Images of unequal sizes."""

    def __len__(self):
        return 81

    def __getitem__(self, index):
        return torch.full((3, 4 + index % 5, 6), float(index % 3)), 0


class Image:
    """As PIL's: a picture that is no tensor."""


class Shrinking(Dataset):
    """It drops samples while it is read."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 81 if self.reads < 200 else 80

    def __getitem__(self, index):
        self.reads += 1
        return Pairs()[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (Stream(), TypeError, "train: Stream has no numbered samples"),
        (DataLoader(Stream(), batch_size=16), TypeError, "train: Stream has no numbered samples"),
        (DataLoader(Pairs(), batch_size=8), ValueError, "batch_size: is 16, but 8 in the DataLoader"),
        (DataLoader(Pairs(), batch_size=16, drop_last=True), ValueError, "train: .*without drop_last"),
        (
            DataLoader(Pairs(), batch_size=16, sampler=WeightedRandomSampler(torch.ones(81), 81)),
            ValueError,
            "train: .*a WeightedRandomSampler cannot choose it",
        ),
        (DataLoader(Pairs(), batch_sampler=[[0, 1]]), ValueError, "batch_size: is 16, but None"),
        (Subset(Pairs(), range(80)), ValueError, "labels: 81 labels for 80 training samples"),
        (
            [(Image(), 0)] * 81,
            TypeError,
            r"^data: the samples .* cannot be joined; .*ToTensor\(\).* found .*Image",
        ),
        (Unequal(), ValueError, r"unequal shapes, such as \(3, 4, 6\) and \(3, 5, 6\); crop or resize"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Dataset | DataLoader) else "",
)
def test_data_that_cannot_be_trained_on_are_refused_with_the_remedy(data, error, words):
    method, optimizer = prepare("plain")
    if isinstance(data, Unequal):
        method = Plain(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), loss_fn)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    with pytest.raises(error, match=words):
        fit(method, optimizer, data, LABELS, data, epochs=1, batch_size=16, seed=0)


def test_a_dataset_that_drops_samples_in_the_training_is_refused():
    with pytest.raises(ValueError, match=r"^data: had 81 samples and has 80 now; keep the samples"):
        train(Shrinking(), kind="plain")


def test_images_of_unequal_sizes_are_trained_on_where_the_loader_says_how_they_are_joined():
    images = [Unequal()[i][0] for i in range(81)]
    resized = torch.stack([nn.functional.interpolate(image[None], (5, 5))[0] for image in images])

    def joined(items):
        return torch.stack(
            [nn.functional.interpolate(image[None], (5, 5))[0] for image, _ in items]
        ), torch.zeros(len(items), dtype=torch.int64)

    found = []
    for data in (
        Split(resized, TARGETS[TRAIN]),
        DataLoader(Unequal(), batch_size=16, collate_fn=joined, num_workers=1),
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(75, 3))
        method = Plain(model, loss_fn)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        held_out = Split(resized, torch.zeros(81, dtype=torch.int64))
        found.append(
            (fit(method, optimizer, data, LABELS, held_out, epochs=2, batch_size=16, seed=0), method)
        )
    assert_same_training(*found)


def without_the_first_of_several(items):
    kept = items[len(items) > 1 :]
    return torch.stack([rows for rows, _ in kept]), torch.tensor([target for _, target in kept])


@pytest.mark.parametrize("which", ["train", "held_out"])
def test_samples_that_a_loader_drops_while_it_joins_them_are_refused(which):
    method, optimizer = prepare("plain")
    data = {"train": TensorDataset(INPUTS[TRAIN], TARGETS[TRAIN]), "held_out": HELD_OUT_PAIRS}
    data[which] = DataLoader(data[which], batch_size=16, collate_fn=without_the_first_of_several)
    with pytest.raises(ValueError, match="^data: 16 samples gave a batch of 15 targets; make a Subset"):
        fit(method, optimizer, data["train"], LABELS, data["held_out"], epochs=1, batch_size=16, seed=0)


def test_augmentation_of_tensors_is_refused_for_a_dataset():
    with pytest.raises(ValueError, match="^augmentation: a dataset augments its samples by itself"):
        train(Pairs(), augmentation=Augmentation(flip=True))


def test_held_out_samples_without_targets_and_with_wrong_ones_are_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r"items must be pairs \(input, target\)"):
        train(Pairs(), Pairs(inputs_only=True))
    with pytest.raises(ValueError, match="^labels: the held_out label of sample 0 is 77"):
        train(Pairs(), Pairs())


class WithHole(Pairs):
    """Pairs of which one has NaN."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return (inputs * torch.nan if index == 37 else inputs), target


@pytest.mark.parametrize(
    "data", [WithHole(), DataLoader(WithHole(), batch_size=16)], ids=["dataset", "loader"]
)
def test_a_sample_that_is_not_finite_is_refused_by_its_number_when_it_is_read(data):
    with pytest.raises(ValueError, match="^data: sample 37 holds nan"):
        train(data)


def test_an_infinite_mask_beside_the_inputs_is_no_fault():
    items = [({"inputs": torch.ones(2), "mask": torch.tensor([0.0, -torch.inf])}, 0)] * 3
    (batch,) = Loaded(items).batches([torch.arange(3)], seed=None)
    assert batch["mask"].isinf().any()


def test_an_error_of_the_dataset_itself_keeps_its_text():
    class Failing(Pairs):
        def __len__(self):
            raise ValueError("the file of data: was moved")

    with pytest.raises(ValueError, match="^the file of data: was moved$"):
        as_samples("train", Failing(), 16)


def test_an_error_about_evaluated_samples_names_their_field():
    with pytest.raises(TypeError, match="^evaluated: Stream has no numbered samples"):
        Loaded(Pairs(), evaluated=Stream())
