"""Targets along one axis with the samples, of outputs that a model flattens: tokens, pixels, positions."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss

from landscape import EmpiricalFisher, Objective, sharpness, trace

D = torch.float64
PLACES = 3


class PerPlace(nn.Module):
    """Scores of each place, flattened to (samples * places, 2), or to (places * samples, 2)."""

    def __init__(self, places_first: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner, self.head = nn.Linear(4, 3, dtype=D), nn.Linear(3, 2, dtype=D)
        self.places_first = places_first

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.places_first else x
        # each place sees the sample's others
        return self.head(torch.tanh(self.inner(x + x.mean(-2, keepdim=True)))).flatten(0, 1)


def batch(samples: int, seed: int, loss_fn: nn.Module) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, PLACES, 4, dtype=D, generator=generator)
    if isinstance(loss_fn, CrossEntropyLoss):
        labels = torch.randint(0, 2, (samples * PLACES,), generator=generator)
        # as many in no two batches
        labels[: seed + 1] = -100
        return inputs, labels
    return inputs, torch.rand(samples * PLACES, 2, dtype=D, generator=generator)


def loss_of(objective: Objective, loss_fn: nn.Module, batches: list[tuple[Tensor, Tensor]]):
    """The loss of all data as one batch, in plain torch."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def loss(theta: Tensor) -> Tensor:
        outputs = torch.func.functional_call(PerPlace(), objective.unflatten(theta), (inputs,))
        return loss_fn(outputs, targets)

    return loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [CrossEntropyLoss, MSELoss, BCEWithLogitsLoss])
def test_derivatives_are_those_of_all_places_as_one_batch(kind, reduction):
    loss_fn = kind(reduction=reduction)
    batches = [batch(2, 0, loss_fn), batch(5, 1, loss_fn)]
    objective = Objective(PerPlace(), loss_fn, batches, chunk_size=3, linearize=False)
    right, theta = loss_of(objective, loss_fn, batches), objective.theta
    hessian = torch.autograd.functional.hessian(right, theta)
    assert objective.value() == pytest.approx(right(theta).item(), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), torch.autograd.functional.jacobian(right, theta))
    torch.testing.assert_close(objective.hvp(torch.eye(len(theta), dtype=D)), hessian)


def test_samples_are_cut_and_streamed_with_their_places():
    batches = [batch(2, 0, MSELoss()), batch(5, 1, MSELoss())]
    objective = Objective(PerPlace(), MSELoss(), batches, keep="none", chunk_size=2)
    assert (objective.n_samples, len(objective.chunks)) == (7, 4)
    kept = Objective(PerPlace(), MSELoss(), batches)
    assert kept.targets.shape == (7, PLACES, 2)
    part = kept.subset(samples=torch.arange(2)).value()
    assert part == pytest.approx(Objective(PerPlace(), MSELoss(), batches[:1]).value())
    assert trace(objective, rtol=None, max_products=100).value == pytest.approx(
        trace(kept, rtol=None, max_products=100).value
    )
    assert sharpness(kept, rho=0.1, steps=2).loss_unit == ""


def test_the_empirical_fisher_matrix_is_one_of_the_samples_gradients():
    inputs, targets = batch(4, 0, MSELoss())
    objective = Objective(PerPlace(), MSELoss(), (inputs, targets))
    rows = targets.view(4, PLACES, 2)
    gradients = torch.stack(
        [Objective(PerPlace(), MSELoss(), (inputs[[i]], rows[i])).gradient() for i in range(4)]
    )
    found = EmpiricalFisher(objective) @ torch.eye(objective.n_parameters, dtype=D)
    torch.testing.assert_close(found, gradients.T @ gradients / 4)


def test_rows_of_outputs_that_do_not_lie_by_samples_are_refused_with_the_remedy_that_works():
    inputs, targets = batch(6, 0, MSELoss())
    model = PerPlace(places_first=True)
    with pytest.raises(ValueError, match=r"is not the mean over the samples.* count=lambda b: b\[1\]\.numel"):
        Objective(model, MSELoss(), (inputs, targets))
    objective = Objective(
        model,
        lambda outputs, b: MSELoss()(outputs, b[1]),
        [(inputs, targets)],
        forward=lambda m, b: m(b[0]),
        count=lambda b: b[1].numel(),
    )
    assert objective.value() == pytest.approx(MSELoss()(model(inputs), targets).item())


@pytest.mark.parametrize("samples", [1, 4])
def test_outputs_without_a_row_for_each_target_are_refused(samples):
    """One row of outputs would be compared with all targets."""
    inputs, targets = batch(samples, 0, MSELoss())
    with pytest.raises(ValueError, match="the outputs have no row for each target"):
        Objective(nn.Linear(4, 2, dtype=D), MSELoss(), (inputs[:, 0], targets))


@pytest.mark.parametrize(
    ("loss_fn", "targets"),
    [
        (nn.functional.mse_loss, batch(4, 0, MSELoss())[1]),
        (MSELoss(), torch.zeros(13, 2, dtype=D)),
        (CrossEntropyLoss(), batch(4, 0, MSELoss())[1].softmax(1)),
    ],
    ids=["a loss of unknown counting", "no multiple", "probabilities"],
)
def test_other_targets_than_as_many_are_refused_with_the_remedy(loss_fn, targets):
    with pytest.raises(ValueError, match=r"not as many; .* count=lambda b: b\[1\]\.numel\(\)"):
        Objective(PerPlace(), loss_fn, (batch(4, 0, MSELoss())[0], targets))
