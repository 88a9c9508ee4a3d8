"""A model may change its inputs, and fill caches in them: each pass gets a copy. A cache elsewhere is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective, filter_normalized_directions, line, top_eigenvalues, trace
from tests.conformance.right import assert_right, network, samples


class Cache:
    """An object that keeps what the passes before computed, as the keys and values of a language model."""

    def __init__(self):
        self.rows = []

    def extended_by(self, row):
        self.rows.append(row)
        return sum(self.rows)


def doubled(model, batch):
    return model(batch["x"].mul_(2))


def taken_out(model, batch):
    return model(2 * batch.pop("x"))


def lengthened(model, batch):
    batch["kept"].append(batch["x"])
    return model(2 * sum(batch["kept"]))


def cached(model, batch):
    return model(2 * batch["cache"].extended_by(batch["x"]))


CACHE = Cache()
WAYS = {
    "in place": (doubled, {}),
    "taken out": (taken_out, {}),
    "a list": (lengthened, {"kept": []}),
    "a cache": (cached, {"cache": Cache()}),
}


def batches_of(also, parts):
    """Batches that all hold the same objects beside their samples."""
    inputs, targets = samples()
    pairs = zip(inputs.split(12 // parts), targets.split(12 // parts), strict=True)
    return [{"x": x.clone(), "y": y, **also} for x, y in pairs]


def loss(outputs, batch):
    return cross_entropy(outputs, batch["y"])


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("forward", "also"), WAYS.values(), ids=WAYS)
def test_each_pass_runs_on_inputs_that_no_pass_has_changed(forward, also, parts):
    data = batches_of(copy.deepcopy(also), parts)
    options = {"forward": forward, "count": lambda batch: len(batch["y"])}
    objective = Objective(network(), loss, data, **options)
    inputs, targets = samples()
    plain = Objective(network(), cross_entropy, (2 * inputs, targets))
    assert_right(objective, network(), loss=lambda model: cross_entropy(model(2 * inputs), targets))
    torch.testing.assert_close(
        top_eigenvalues(objective, k=1, seed=0).values, top_eigenvalues(plain, k=1, seed=0).values
    )
    directions = filter_normalized_directions(objective, 1, seed=0)
    torch.testing.assert_close(
        line(objective, directions, steps=3).loss, line(plain, directions, steps=3).loss
    )
    assert trace(objective, seed=0).value == pytest.approx(trace(plain, seed=0).value, rel=1e-9)
    # the caller's batches are as they were
    assert all(torch.equal(torch.cat([batch["x"] for batch in data]), inputs) for _ in data)


class KeepsACache(nn.Module):
    def __init__(self):
        super().__init__()
        self.network, self.cache = network(), Cache()

    def forward(self, x):
        return self.network(self.cache.extended_by(x))


def of_the_caller(model, batch):
    return model(CACHE.extended_by(batch["x"]))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("model", "forward"),
    [(KeepsACache, lambda model, batch: model(batch["x"])), (network, of_the_caller)],
    ids=["the model's", "the caller's"],
)
def test_a_cache_that_is_no_part_of_the_batch_is_refused_with_the_remedy(model, forward, parts):
    with pytest.raises(ValueError, match="caches that passes fill .* let them be a part of the batch"):
        Objective(model(), loss, batches_of({}, parts), forward=forward)
