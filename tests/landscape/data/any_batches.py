"""Objectives of batches of every form, each with its loss of all data at once, written without the package."""

import dataclasses

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_sequence

from landscape import (
    Objective,
    tasks,
)

D = torch.float64


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@dataclasses.dataclass
class Case:
    """An Objective, and the same loss of all data at once as a function of {name: parameter}, without the package."""

    objective: Objective
    truth: object
    has_outputs: bool = True


class Words(nn.Module):
    """Scores of the next word at each position, from the words before and a mask."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.head = (
            nn.Embedding(7, 4),
            nn.GRU(4, 4, batch_first=True),
            nn.Linear(4, 7),
        )

    def forward(self, ids, mask=None):
        embedded = self.words(ids)
        if mask is not None:
            embedded = embedded * mask.unsqueeze(2)
        return {"logits": self.head(torch.tanh(embedded.cumsum(1))), "ids": ids}


def language(cut):
    """Ragged sequences whose padding is ignored; the mean is over tokens."""
    torch.manual_seed(0)
    model = Words().to(D)
    del model.hidden
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 7, (11, 6), generator=generator)
    lengths = torch.randint(1, 7, (11, 1), generator=generator)
    mask = (torch.arange(6) < lengths).to(D)
    labels = ids.roll(-1, 1).masked_fill(mask == 0, -100)
    batches = [
        {"ids": i, "mask": m, "labels": t}
        for i, m, t in zip(ids.split(cut), mask.split(cut), labels.split(cut), strict=True)
    ]

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs["logits"].flatten(0, 1), batch["labels"].flatten())

    objective = Objective(model, loss, batches, chunk_size=3, **tasks.tokens())

    def truth(weights):
        logits = functional_call(model, weights, (ids, mask))["logits"]
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    return Case(objective, truth)


def network(inputs=4, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs)).to(D)


def pinn():
    """Derivatives in the loss; interior and boundary points are of different numbers."""
    model, interior, boundary = network(2, 1), draws(13, 2).requires_grad_(False), draws(4, 2, seed=1)

    def of(model, points, border):
        points = points.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
        return (slope.sum(1) - points.prod(1)).square().mean() + model(border).square().mean()

    objective = Objective.of_loss(
        lambda model, batch: of(model, *batch), model, (interior, boundary), count=lambda batch: len(batch[0])
    )
    return Case(
        objective,
        lambda weights: of(lambda x: functional_call(model, weights, (x,)), interior, boundary),
        has_outputs=False,
    )


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x, noise):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(torch.tanh(mean + noise * (log_variance / 2).exp())), mean, log_variance


def variational():
    """Two losses; the noise is a part of the batch."""
    torch.manual_seed(0)
    model, x, noise = Autoencoder().to(D), draws(10, 4), draws(10, 2, seed=1)

    def loss(outputs, batch):
        decoded, mean, log_variance = outputs
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return ((decoded - batch["x"]).square().sum(1) + divergence).mean()

    data = [{"x": a, "noise": b} for a, b in zip(x.split(4), noise.split(4), strict=True)]
    return Case(
        Objective(model, loss, data),
        lambda weights: loss(functional_call(model, weights, (x, noise)), {"x": x}),
    )


class Boxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 5)

    def forward(self, images):
        return [torch.tanh(self.inner(image)) for image in images]


def boxes():
    """Lists of images of different sizes, with as many boxes each."""
    torch.manual_seed(0)
    model, sizes = Boxes().to(D), (3, 1, 5, 2)
    images, targets = [draws(n, 4, seed=n) for n in sizes], [draws(n, 5, seed=n + 9) for n in sizes]

    def loss(outputs, targets):
        return torch.cat([(o - t).square().mean(1) for o, t in zip(outputs, targets, strict=True)]).mean()

    batches = [(images[:2], targets[:2]), (images[2:], targets[2:])]
    objective = Objective(model, loss, batches, count=lambda batch: sum(len(t) for t in batch[1]))
    return Case(objective, lambda weights: loss(functional_call(model, weights, (images,)), targets))


class Graph:
    """A batch that is no tree of tensors."""

    def __init__(self, nodes, edges, labels):
        self.nodes, self.edges, self.labels = nodes, edges, labels


def graphs():
    model = network()
    parts = [
        Graph(
            draws(n, 4, seed=n),
            torch.randint(0, n, (2, 6), generator=torch.Generator().manual_seed(n)),
            torch.arange(n) % 3,
        )
        for n in (5, 8)
    ]

    def forward(model, graph):
        spread = graph.nodes.index_add(0, graph.edges[1], graph.nodes[graph.edges[0]])
        return model(spread)

    def loss(outputs, graph):
        return nn.functional.cross_entropy(outputs, graph.labels)

    objective = Objective(model, loss, parts, forward=forward, count=lambda graph: len(graph.labels))
    spread = torch.cat([forward(lambda x: x, graph) for graph in parts])
    labels = torch.cat([graph.labels for graph in parts])
    return Case(
        objective,
        lambda weights: nn.functional.cross_entropy(functional_call(model, weights, (spread,)), labels),
    )


def packed():
    """Sequences of different lengths, packed."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(2, 3), nn.Linear(3, 2)

        def forward(self, sequences):
            return self.head(self.layer(sequences)[1][0][-1])

    torch.manual_seed(0)
    model = Last().to(D)
    sequences, labels = [draws(n, 2, seed=n) for n in (5, 3, 2)], torch.tensor([0, 1, 1])
    data = [(pack_sequence(sequences[:2]), labels[:2]), (pack_sequence(sequences[2:]), labels[2:])]
    objective = Objective(model, nn.CrossEntropyLoss(), data, count=lambda batch: len(batch[1]))

    def truth(weights):
        outputs = torch.cat([functional_call(model, weights, (pack_sequence([each]),)) for each in sequences])
        return nn.functional.cross_entropy(outputs, labels)

    return Case(objective, truth)


def penalized():
    """A weight penalty as a regularizer, and class weights."""
    model, x, y = network(), draws(12, 4), torch.arange(12) % 3
    weights_of_classes = torch.tensor([1.0, 2.0, 9.0], dtype=D)

    def penalty(parameters):
        return 0.3 * sum(p.square().sum() for name, p in parameters.items() if name.endswith("weight"))

    weighted = nn.CrossEntropyLoss(weight=weights_of_classes)
    objective = Objective(model, weighted, (x, y), chunk_size=5, regularizer=penalty)
    return Case(
        objective, lambda weights: weighted(functional_call(model, weights, (x,)), y) + penalty(weights)
    )


def sample_weights():
    model, x, y, w = network(4, 1), draws(12, 4), draws(12, 1, seed=1), draws(12, seed=2).square()

    def loss(outputs, batch):
        return (batch[2] * (outputs - batch[1]).square()[:, 0]).sum() / batch[2].sum()

    objective = Objective(
        model,
        loss,
        (x, y, w),
        forward=lambda model, batch: model(batch[0]),
        count=lambda batch: batch[2].sum(),
        chunk_size=5,
    )
    return Case(objective, lambda weights: loss(functional_call(model, weights, (x,)), (x, y, w)))


CASES = {
    "language, cut in 4": lambda: language(4),
    "language, cut in 1": lambda: language(1),
    "pinn": pinn,
    "variational": variational,
    "boxes": boxes,
    "graphs": graphs,
    "packed": packed,
    "penalized": penalized,
    "sample weights": sample_weights,
}
