"""A layer that a model holds under two names is measured as the same layer under one name, and stays as it is."""

import pytest
import torch
from torch import nn

from landscape import Objective, filter_normalized_directions, surface, top_eigenvalues

INPUTS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.arange(24) % 3


class Twice(nn.Module):
    """Runs a layer twice, which it holds under one name or under two."""

    def __init__(self, layer, two_names):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.head = nn.Linear(5, 5), layer(), nn.Linear(5, 3)
        if two_names:
            self.again = self.middle
        self.two_names = two_names

    def forward(self, x):
        again = self.again if self.two_names else self.middle
        return self.head(torch.tanh(again(torch.tanh(self.middle(self.first(x))))))


def frozen():
    return nn.Linear(5, 5).requires_grad_(False)


LAYERS = {
    "trained": lambda: nn.Linear(5, 5),
    "frozen": frozen,
    "slope": nn.PReLU,
    "statistics alone": lambda: nn.BatchNorm1d(5, affine=False),
    "batch norm": lambda: nn.BatchNorm1d(5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", LAYERS)
def test_numbers_are_those_of_the_layer_under_one_name_and_the_model_stays_as_it_is(layer, dtype):
    found = []
    for two_names in (False, True):
        model = Twice(LAYERS[layer], two_names).to(dtype).eval()
        tensors = {name: id(tensor) for name, tensor in model.named_parameters(remove_duplicate=False)}
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS.to(dtype), TARGETS))
        directions = filter_normalized_directions(objective, 2, seed=0)
        planes = [
            surface(objective, directions, steps=3, batch_norm=batch_norm).loss
            for batch_norm in (("eval", "recalibrate") if list(model.buffers()) else ("eval",))
        ]
        numbers = [objective.value(), *objective.gradient(), *objective.hvp(objective.theta)]
        numbers += [*top_eigenvalues(objective, k=1, seed=0).values, objective.value()]
        found.append(
            torch.tensor([*map(float, numbers), *(value for plane in planes for value in plane.flatten())])
        )
        assert {n: id(t) for n, t in model.named_parameters(remove_duplicate=False)} == tensors
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


def test_one_sequence_may_hold_a_layer_twice():
    layer = nn.Linear(5, 5).double()
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(5, 3).double())
    loss = nn.CrossEntropyLoss()(model(INPUTS), TARGETS)
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    truth = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(
        objective.gradient(), torch.cat([part.flatten() for part in truth]), rtol=1e-10, atol=1e-14
    )
