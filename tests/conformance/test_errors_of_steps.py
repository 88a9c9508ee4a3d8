"""Steps that ended in an error of torch's own: refused with cause and remedy, or right."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import Dataset

from ncsam import NCSAM, OneSAM, Plain, Split, fit, human_labels
from tests.ncsam.methods_like_sam import LIKE_SAM

INPUTS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
WORDS = torch.randint(30, (16, 3), generator=torch.Generator().manual_seed(0))
NOISE = {"flip_ratio": 0.5, "strength": 0.5, "warmup": 0.0}
OPTIONS = {"ncsam": NOISE}
METHODS = {**LIKE_SAM, "ncsam": NCSAM}
WITH_ONE_SAM = {**METHODS, "1-sam": OneSAM}


def made(name, model):
    method = WITH_ONE_SAM[name](model, nn.CrossEntropyLoss(), rho=0.3, **OPTIONS.get(name, {}))
    method.progress = 0.5
    return method


@pytest.mark.parametrize("name", WITH_ONE_SAM)
def test_a_step_inside_parametrize_cached_is_refused(name):
    """Each pass would see the weights that the first one kept."""
    method = made(name, nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 8)), nn.Linear(8, 3)))
    with parametrize.cached(), pytest.raises(ValueError, match="cached.* call method.backward outside"):
        method.backward(INPUTS, TARGETS)
    method.backward(INPUTS, TARGETS)
    with parametrize.cached():
        made(name, nn.Linear(5, 3)).backward(INPUTS, TARGETS)


def test_an_ordinary_step_inside_parametrize_cached_is_that_outside():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 8)), nn.Linear(8, 3))
    outside = copy.deepcopy(model)
    nn.CrossEntropyLoss()(outside(INPUTS), TARGETS).backward()
    with parametrize.cached():
        Plain(model, nn.CrossEntropyLoss()).backward(INPUTS, TARGETS)
    for found, right in zip(model.parameters(), outside.parameters(), strict=True):
        torch.testing.assert_close(found.grad, right.grad)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 3)
        self.shift = nn.Parameter(torch.zeros(1).expand(3))

    def forward(self, x):
        return self.net(x) + self.shift


@pytest.mark.parametrize("name", WITH_ONE_SAM)
def test_an_expanded_parameter_is_refused(name):
    with pytest.raises(ValueError, match=r"'shift' share memory.*expand it in forward"):
        made(name, Shifted()).backward(INPUTS, TARGETS)


def words(*, sparse):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(30, 4, sparse=sparse), nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("name", METHODS)
def test_sparse_gradients_stay_sparse_for_sparse_adam(name):
    sparse, dense = words(sparse=True), words(sparse=False)
    for model in (sparse, dense):
        method = made(name, model)
        for _ in range(2):
            method.backward(WORDS, TARGETS)
    torch.testing.assert_close(sparse[0].weight.grad.to_dense(), dense[0].weight.grad)
    torch.optim.SparseAdam([sparse[0].weight]).step()
    assert not torch.equal(sparse[0].weight, dense[0].weight)


def test_one_sam_refuses_sparse_gradients_and_what_cannot_be_mapped():
    with pytest.raises(ValueError, match="sparse=False"):
        made("1-sam", words(sparse=True))

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 3)

        def forward(self, x):
            return self.net(x) if self.net(x).sum().item() > 0 else -self.net(x)

    with pytest.raises(ValueError, match="vmap.*take SAM"):
        made("1-sam", Branching()).backward(INPUTS, TARGETS)


class OfDicts(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, i):
        return {"image": INPUTS[i], "label": int(TARGETS[i])}


class TooLong(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, i):
        if i >= 12:
            raise IndexError("out of range")
        return INPUTS[i], int(TARGETS[i])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("train", "optimizer_of", "error", "says"),
    [
        (
            Split(INPUTS, TARGETS),
            lambda m: [sgd(m), sgd(m)],
            TypeError,
            r"^optimizer: .*a list of 2; .*groups",
        ),
        (Split(INPUTS, TARGETS), lambda m: m.parameters(), TypeError, "^optimizer: must be one"),
        (
            OfDicts(),
            sgd,
            ValueError,
            r"^data: its items are dicts \('image', 'label'\).*pairs \(input, target\)",
        ),
        (TooLong(), sgd, ValueError, r"^data: has 16 samples by its __len__, and reading sample 1\d fails"),
    ],
)
def test_fit_refuses_what_it_cannot_train_with_cause_and_remedy(train, optimizer_of, error, says):
    model = nn.Linear(5, 3)
    with pytest.raises(error, match=says):
        fit(
            Plain(model, nn.CrossEntropyLoss()),
            optimizer_of(model),
            train,
            human_labels(TARGETS, TARGETS),
            Split(INPUTS, TARGETS),
            epochs=1,
            batch_size=8,
            seed=0,
        )
