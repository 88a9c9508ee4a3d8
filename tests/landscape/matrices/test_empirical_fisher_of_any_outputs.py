"""The empirical Fisher matrix where outputs are no rows of samples, or have no second derivative."""

import pytest
import torch
from torch import nn

from landscape import EmpiricalFisher, Objective

D = torch.float64
SAMPLES = 12


def drawn(*shape):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(len(shape)))


def fisher_of_single_samples(objective, batch, loss_of):
    """The mean of g g^T, by the gradient of the loss of each sample as a batch of its own."""
    model = objective.independent_model()
    parameters = list(model.parameters())
    total = 0.0
    for i in range(SAMPLES):
        one = {name: each[i : i + 1] for name, each in batch.items()}
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(model, one), parameters)])
        total = total + torch.outer(gradient, gradient) / SAMPLES
    return total


class Codebook(nn.Module):
    """Features of the samples and a table of codes."""

    def __init__(self, codes):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.codes = nn.Linear(5, 3, dtype=D), nn.Parameter(drawn(codes, 3))

    def forward(self, x):
        return self.features(x), self.codes


class TimeFirst(nn.Module):
    """Outputs (steps, samples, classes)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 3, dtype=D)

    def forward(self, x):
        return self.layer(x.unsqueeze(1) * torch.linspace(0, 1, SAMPLES, dtype=D)[:, None]).transpose(0, 1)


class ToCodes(nn.Module):
    """Distances by `torch.cdist`, whose backward pass has no derivative."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.codes = nn.Linear(5, 4, dtype=D), nn.Parameter(drawn(3, 4))

    def forward(self, x):
        return -torch.cdist(self.features(x), self.codes)


def quantization(outputs, batch):
    features, codes = outputs
    return (features[:, None] - codes).square().sum(2).amin(1).mean() + (
        features - batch["t"]
    ).square().mean()


def each_step(outputs, batch):
    return nn.functional.cross_entropy(outputs.permute(1, 2, 0), batch["y"][:, None].expand(-1, SAMPLES))


def of_class(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch["y"])


def of_margins(outputs, batch):
    return nn.functional.multi_margin_loss(outputs, batch["y"])


class WithoutDependence(torch.autograd.Function):
    """Its backward pass leaves out how it depends on the slope."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, slope):
        return slope.detach() * ctx.saved_tensors[0].exp()


class Exponential(ToCodes):
    def forward(self, x):
        return WithoutDependence.apply(self.features(x)) @ self.codes.T


CASES = {
    "a codebook as long as the data": (lambda: Codebook(SAMPLES), quantization),
    "a codebook of another length": (lambda: Codebook(SAMPLES - 1), quantization),
    "as many steps as samples": (TimeFirst, each_step),
    "distances": (ToCodes, of_class),
    "margins": (lambda: ToCodes().features, of_margins),
    "a backward pass that detaches": (Exponential, of_class),
}


@pytest.mark.parametrize("chunk_size", [5, SAMPLES])
@pytest.mark.parametrize("name", CASES)
def test_the_empirical_fisher_is_the_mean_over_samples_whatever_the_outputs_are(name, chunk_size):
    make, loss = CASES[name]
    batch = {"x": drawn(SAMPLES, 5), "t": drawn(SAMPLES, 3), "y": torch.arange(SAMPLES) % 3}
    objective = Objective(
        make(), loss, batch, forward=lambda model, batch: model(batch["x"]), chunk_size=chunk_size
    )
    expected = fisher_of_single_samples(
        objective, batch, lambda model, one: loss(model(one["x"]), {name: one[name] for name in one})
    )
    found = EmpiricalFisher(objective) @ torch.eye(len(expected), dtype=D)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
