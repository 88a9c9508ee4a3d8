"""Batches in unusual forms: each is measured right, or refused with cause and remedy."""

import itertools
from collections import OrderedDict, UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from landscape import Objective
from landscape.data.endless import Repeats
from tests.conformance.right import D, assert_right, network, samples

cross_entropy = nn.functional.cross_entropy
x, y = samples()


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x, shared=0.0, **_):
        return self.network(x + shared)


class Dictionary(dict):
    pass


class Stream:
    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def of_dict(outputs, batch):
    return cross_entropy(outputs, batch["y"])


DICTS = {
    "ordered": OrderedDict(x=x, y=y),
    "of the user": UserDict(x=x, y=y),
    "subclass": Dictionary(x=x, y=y),
}


@pytest.mark.parametrize("batch", DICTS.values(), ids=DICTS)
def test_dicts_of_any_class_are_cut(batch):
    model = Named()
    objective = Objective(model, of_dict, batch, chunk_size=5)
    assert len(objective.chunks) == 3
    assert_right(objective, model, loss=lambda own: cross_entropy(own(x), y))


def test_a_count_gets_the_whole_dict():
    """It got a pair of dicts, because the form of batches was asked for before the first one was read."""
    model = Named()
    batch = {"x": x, "shared": x[0], "y": y}
    objective = Objective(model, of_dict, [batch], count=lambda batch: len(batch["y"]))
    assert_right(objective, model, loss=lambda own: cross_entropy(own(x, x[0]), y))


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("layout", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_graph_with_sparse_neighbors_is_a_batch_that_is_not_cut(layout, keep):
    model, neighbors = network(), layout(torch.eye(12, dtype=D).roll(1, 0))
    objective = Objective(
        model,
        lambda outputs, batch: cross_entropy(outputs, batch[2]),
        Stream((x, neighbors, y)),
        forward=lambda model, batch: model(batch[1] @ batch[0]),
        count=lambda batch: len(batch[2]),
        keep=keep,
    )
    assert_right(objective, model, loss=lambda own: cross_entropy(own(x.roll(1, 0)), y))


def contrastive(model, batch):
    outputs = model(batch["x"])
    return cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def test_a_loss_that_compares_samples_is_refused_for_samples_and_measured_for_whole_batches():
    model, parts = network(), [{"x": x[:5]}, {"x": x[5:]}]
    with pytest.raises(
        ValueError, match=r"loss_fn: is not the mean .* a batch stays whole if .* torch.tensor\(0\)"
    ):
        Objective.of_loss(contrastive, model, parts)
    whole = [{**part, "whole": torch.tensor(0)} for part in parts]
    objective = Objective.of_loss(contrastive, model, whole, count=lambda batch: len(batch["x"]))
    assert_right(
        objective, model, loss=lambda own: sum(len(part["x"]) / 12 * contrastive(own, part) for part in parts)
    )


def test_a_stream_may_begin_with_an_empty_batch():
    model = network()
    objective = Objective(
        model, nn.CrossEntropyLoss(), Stream((x[:0], y[:0]), (x[:5], y[:5]), (x[5:], y[5:])), keep="none"
    )
    assert_right(objective, model, (x, y))


class Rows:
    """An array of a file, as h5py and zarr have them: rows are read when they are asked for."""

    shape = (12, 5)

    def __array__(self, *_, **__):
        return x.numpy()

    def __getitem__(self, rows):
        return x.numpy()[rows]


class Raises(dict):
    """The usual recipe of attributes for keys, which `copy.deepcopy` cannot stand."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (
            (torch.nested.nested_tensor([x], layout=torch.jagged), y),
            {},
            "data: a batch holds a nested tensor",
        ),
        ((x.long(), y), {}, r"data: the model cannot be run .*\(4, 5\) torch.int64.*same dtype"),
        ((Rows(), y), {}, r"data: holds an array of type \w+\.Rows; torch.from_numpy.* a DataLoader"),
        (Rows(), {}, r"data: holds an array of type \w+\.Rows; torch.from_numpy.* a DataLoader"),
        ({"input": Rows()}, {}, r"data: holds an array of type \w+\.Rows; torch.from_numpy.* a DataLoader"),
        ((Rows(), Rows()), {}, r"data: holds an array of type \w+\.Rows; torch.from_numpy.* a DataLoader"),
        ((x, y), {"count": lambda _: torch.ones(3)}, r"count: must return one number .* shape \(3,\)"),
        ((x, y), {"count": lambda _: 1}, "count: 12 samples count for 1 together, for 12 apart"),
        (
            Raises(x=x, y=y),
            {"forward": lambda model, batch: model(batch["x"])},
            "data: a batch of type Raises cannot be copied .* raise an AttributeError",
        ),
    ],
    ids=["nested", "integers", "array", "alone", "by name", "arrays", "counts", "constant", "copy"],
)
def test_batches_that_cannot_be_measured_are_refused_with_cause_and_remedy(data, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        Objective(network(), nn.CrossEntropyLoss(), data, **options)


class Forever(IterableDataset):
    """The batches, again and again; or for a number of rounds."""

    def __init__(self, batches, rounds=None):
        self.batches, self.rounds = batches, rounds

    def __iter__(self):
        rounds = itertools.count() if self.rounds is None else range(self.rounds)
        return (batch for _ in rounds for batch in self.batches)


class EndlessSampler(Sampler):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield int(torch.randint(12, (1,), generator=generator))


class SaysItsLength(Forever):
    def __len__(self):
        return len(self.batches)


def batches_of(size):
    return list(zip(*(part.split(size) for part in samples()), strict=True))


ENDLESS = {
    "a data set that begins anew": lambda: DataLoader(Forever(batches_of(2)), batch_size=None),
    "a generator that begins anew": lambda: iter(Forever(batches_of(2))),
    "one batch for ever": lambda: Forever(batches_of(12)),
    "two batches for ever": lambda: Forever(batches_of(6)),
    "more batches than are said": lambda: SaysItsLength(batches_of(2)),
    "a sampler without an end": lambda: DataLoader(TensorDataset(*samples()), sampler=EndlessSampler()),
}


@pytest.mark.parametrize("data", ENDLESS)
@pytest.mark.parametrize("keep", ["auto", "all"])
def test_data_that_never_end_are_refused_with_a_remedy(data, keep):
    with pytest.raises(
        ValueError, match=r"^data: .* the data seem never to end; give data that end, such as \[\*itertools"
    ):
        Objective(network(), nn.CrossEntropyLoss(), ENDLESS[data](), keep=keep)


@pytest.mark.parametrize("rounds", [1, 2, 9])
def test_data_that_hold_all_samples_several_times_and_end_are_read(rounds):
    objective = Objective(network(), nn.CrossEntropyLoss(), Forever(batches_of(2), rounds))
    assert objective.n_samples == 12 * rounds
    assert_right(objective, network(), samples())


class RowsOfDocuments(Dataset):
    """Items of several rows each, which the loader joins."""

    def __len__(self):
        return 3

    def __getitem__(self, item):
        return tuple(part[4 * item : 4 * item + 4] for part in samples())


class ByBudget(Sampler):
    """Batches of items, of which nobody knows how many there will be."""

    def __iter__(self):
        yield from ([0], [1, 2])


def joined(items):
    return tuple(map(torch.cat, zip(*items, strict=True)))


def test_a_loader_whose_items_hold_several_rows_is_read():
    loader = DataLoader(RowsOfDocuments(), batch_sampler=ByBudget(), collate_fn=joined)
    objective = Objective(network(), nn.CrossEntropyLoss(), loader)
    assert_right(objective, network(), samples())


def test_a_long_stream_of_few_different_rows_that_ends_is_read():
    inputs, targets = samples()
    rows = torch.randint(4, (1500,), generator=torch.Generator().manual_seed(0)).tolist()
    stream = ((inputs[row : row + 1], targets[row : row + 1]) for row in rows)
    assert Objective(network(), nn.CrossEntropyLoss(), stream).n_samples == 1500


@pytest.mark.parametrize("seed", range(4))
def test_the_period_of_digests_is_the_smallest_by_exhaustive_search(seed):
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(
        2, (int(torch.randint(1, 6, (), generator=generator)),), generator=generator
    ).tolist()
    digests = (once * 9)[:-1] + torch.randint(2, (seed,), generator=generator).tolist()
    repeats = Repeats()
    for count, digest in enumerate(digests, 1):
        repeats.add(digest)
        period = next(
            p for p in range(1, count + 1) if all(digests[i] == digests[i - p] for i in range(p, count))
        )
        assert (repeats.period, repeats.rounds) == (period, count // period)


def drawn_for_ever():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(4, 5, generator=generator, dtype=D), torch.arange(4) % 3


def test_data_without_a_length_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("landscape.data.endless.memory_there_is", lambda: 1e5)
    with pytest.raises(ValueError, match=r"^data: its batches, which are kept, .* most of the memory"):
        Objective(network(), nn.CrossEntropyLoss(), drawn_for_ever())


def test_a_long_first_pass_over_data_without_a_length_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr("landscape.data.endless.SECONDS", 0.0)
    with pytest.warns(
        UserWarning, match="^data: 1 batches were read .* if it never ends, give data that end"
    ):
        Objective(network(), nn.CrossEntropyLoss(), Forever(batches_of(4), 1))


class Detector(nn.Module):
    """Scores of the boxes of each image, which lie in a list of dicts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(6, 3)

    def forward(self, pixels, labels):
        images = pixels.mean(1).repeat_interleave(torch.tensor([len(each["box"]) for each in labels]), 0)
        scores = self.head(torch.cat([images, *[torch.cat([each["box"] for each in labels])]], 1))
        return nn.functional.cross_entropy(scores, torch.cat([each["kind"] for each in labels]))


def images_with(boxes):
    """Batches of one image, each with a list of one dict."""
    draws = torch.Generator().manual_seed(0)
    return [
        {
            "pixels": torch.randn(1, 4, 2, generator=draws, dtype=torch.float64),
            "labels": [
                {
                    "box": torch.rand(count, 4, generator=draws, dtype=torch.float64),
                    "kind": torch.randint(0, 3, (count,), generator=draws),
                }
            ],
        }
        for count in boxes
    ]


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("boxes", [(1, 1, 1), (1, 2, 1), (3, 2, 4)])
def test_images_with_any_number_of_boxes_are_batches_that_are_not_cut(boxes, keep):
    model, batches = Detector().to(torch.float64), images_with(boxes)
    objective = Objective(
        model, lambda loss, _: loss, batches, count=lambda batch: len(batch["labels"]), keep=keep
    )
    assert objective.n_samples == 3
    assert_right(objective, model, loss=lambda model: sum(model(**batch) for batch in batches) / 3)
    with pytest.raises(
        ValueError, match="^count: a batch holds a (list of dicts|tensor|.* first size)|do not share"
    ):
        Objective(model, lambda loss, _: loss, batches, keep=keep)


def test_dicts_in_lists_of_another_length_are_cut():
    model, (inputs, targets) = Named(), samples(7)
    views = {"views": [{"x": inputs}, {"x": -inputs}], "y": targets}

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch["y"])

    objective = Objective(
        model, loss, views, forward=lambda model, batch: model(batch["views"][0]["x"]), chunk_size=3
    )
    assert objective.n_samples == 7
    # the last chunk is one sample
    assert objective.value() == pytest.approx(
        nn.functional.cross_entropy(model(inputs), targets).item(), rel=1e-5
    )
