"""Graph networks of torch_geometric: one graph with labeled nodes, and batches of graphs."""

import pytest
import torch
from torch import nn

from landscape import Objective
from ncsam import SAM
from tests.clients.client import CHECKS, Client, D, generic

pytest.importorskip("torch_geometric")
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool


def graph(nodes, seed, labels):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
    return Data(torch.randn(nodes, 4, dtype=D, generator=generator), edges, y=labels)


class Nodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 6), GCNConv(6, 3)

    def forward(self, x, edges):
        return self.second(torch.tanh(self.first(x, edges)), edges)


class Graphs(Nodes):
    def forward(self, x, edges, batch):
        return global_mean_pool(super().forward(x, edges), batch)


def client_of(model, batches, whole, forward, loss_fn, count):
    """The model with its batches; `whole` holds all data as one batch."""
    return Client(
        model,
        lambda model: loss_fn(forward(model, whole), whole),
        Objective(model, loss_fn, batches, forward=forward, count=count),
        ("second.bias", "second.lin.weight"),
        lambda model, rho: SAM(model, loss_fn, rho=rho, forward=forward),
        (whole,),
    )


def labeled_nodes():
    """One graph is one sample, of which only some nodes are labeled, as in Cora."""
    torch.manual_seed(0)
    model, data = generic(Nodes()), graph(12, 0, torch.arange(12) % 3)
    data.known = torch.arange(12) < 7

    def forward(model, data):
        return model(data.x, data.edge_index)[data.known]

    def loss_fn(outputs, data):
        return nn.functional.cross_entropy(outputs, data.y[data.known])

    return client_of(model, [data], data, forward, loss_fn, count=lambda data: int(data.known.sum()))


def labeled_graphs():
    """Batches of a loader, unequal at the end."""
    torch.manual_seed(0)
    model = generic(Graphs())
    data = [graph(n, n, torch.tensor([n % 3])) for n in (5, 8, 6, 4, 9)]

    def forward(model, batch):
        return model(batch.x, batch.edge_index, batch.batch)

    def loss_fn(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch.y)

    batches, whole = DataLoader(data, batch_size=2), Batch.from_data_list(data)
    return client_of(model, batches, whole, forward, loss_fn, count=lambda batch: batch.num_graphs)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("client", [labeled_nodes, labeled_graphs])
def test_all_measures_are_those_of_plain_torch(client, check):
    CHECKS[check](client())
