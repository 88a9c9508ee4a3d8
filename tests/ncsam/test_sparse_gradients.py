"""Sparse gradients, as of embeddings with `sparse=True`, are bounded by `max_gradient_norm` as dense ones are."""

import pytest
import torch
from torch import nn

from ncsam import SAM, Plain, Split, fit, human_labels

WORDS = torch.randint(10, (24, 5), generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(24) % 3


class OfWords(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.EmbeddingBag(10, 8, sparse=sparse)
        self.head = nn.Linear(8, 3)

    def forward(self, words):
        return self.head(self.words(words))


METHODS = {"plain": Plain, "sam": lambda *parts: SAM(*parts, rho=0.1)}


def trained(name, sparse, bound):
    model = OfWords(sparse)
    method = METHODS[name](model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    data, labels = Split(WORDS, TARGETS), human_labels(TARGETS, TARGETS)
    fit(method, optimizer, data, labels, data, epochs=2, batch_size=8, seed=0, max_gradient_norm=bound)
    return list(model.parameters())


@pytest.mark.parametrize("bound", [0.01, 100.0])
@pytest.mark.parametrize("name", METHODS)
def test_a_sparse_gradient_is_scaled_down_as_a_dense_one_is(name, bound):
    torch.testing.assert_close(trained(name, True, bound), trained(name, False, bound))
