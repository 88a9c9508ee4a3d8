"""Optimizers and schedulers that would not train what they should are refused before the first step."""

import pytest
import torch
from torch import nn

from ncsam import SAM, AUMFilter, CoTeaching, DivideMix, ELRPlus, Plain, RegCE, Split, fit, human_labels

TARGETS = torch.arange(16) % 3


def train(optimizer=torch.optim.SGD, scheduler=None, epochs=1, **options):
    torch.manual_seed(0)
    data = Split(torch.randn(16, 5), TARGETS)
    method = SAM(nn.Linear(5, 3), nn.CrossEntropyLoss(), rho=0.05)
    steps = optimizer(method.parameters(), lr=0.1)
    return fit(
        method,
        steps,
        data,
        human_labels(TARGETS, TARGETS),
        data,
        epochs=epochs,
        batch_size=8,
        seed=0,
        scheduler=None if scheduler is None else scheduler(steps),
        **options,
    )


def test_an_optimizer_that_needs_a_closure_is_refused():
    with pytest.raises(ValueError, match="optimizer: LBFGS asks for the loss several times a step"):
        train(torch.optim.LBFGS)


def test_a_scheduler_that_needs_a_metric_is_refused():
    with pytest.raises(ValueError, match="scheduler: ReduceLROnPlateau follows a metric"):
        train(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    checkpoint = tmp_path / "training.pt"
    train(checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint: .* was written with another optimizer than Adam"):
        train(torch.optim.Adam, checkpoint=checkpoint, epochs=2)
    assert train(checkpoint=checkpoint, epochs=2).epochs == 2


def pair():
    torch.manual_seed(1)
    return [nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2)]


WITH_A_PEER = {
    "co-teaching": lambda model, peer: CoTeaching(model, nn.CrossEntropyLoss(), peer=peer, forget_rate=0.2),
    "aum-filter": lambda model, peer: AUMFilter(
        model, nn.CrossEntropyLoss(), peer=peer, samples=16, removed=0.2
    ),
    "elr-plus": lambda model, peer: ELRPlus(model, nn.CrossEntropyLoss(), peer=peer, samples=16, seed=0),
    "dividemix": lambda model, peer: DivideMix(model, nn.CrossEntropyLoss(), peer=peer, seed=0),
}


def train_by(method, weights, **options):
    data = Split(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)), TARGETS)
    optimizer = torch.optim.SGD(weights, lr=0.1)
    settings = {"epochs": 2, "batch_size": 8, "seed": 0, **options}
    return fit(method, optimizer, data, human_labels(TARGETS, TARGETS), data, **settings)


@pytest.mark.parametrize("kind", WITH_A_PEER)
@pytest.mark.parametrize("held", [0, 1])
def test_an_optimizer_over_one_of_two_networks_is_refused_and_nothing_moves(kind, held):
    both = pair()
    method = WITH_A_PEER[kind](*both)
    before = [weight.clone() for weight in method.parameters()]
    with pytest.raises(
        ValueError, match=r"^optimizer: holds no parameter of one of the networks that .*\(\)"
    ):
        train_by(method, both[held].parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


@pytest.mark.parametrize("kind", WITH_A_PEER)
def test_an_optimizer_over_all_parameters_moves_both_networks(kind):
    both = pair()
    method = WITH_A_PEER[kind](*both)
    before = [network[2].bias.clone() for network in both]
    train_by(method, method.parameters())
    assert not any(torch.equal(a, network[2].bias) for a, network in zip(before, both, strict=True))


def test_heads_of_both_networks_may_be_trained_alone_and_a_frozen_network_needs_no_optimizer():
    both = pair()
    method = WITH_A_PEER["co-teaching"](*both)
    train_by(method, [weight for network in both for weight in network[2].parameters()])
    both = pair()
    both[1].requires_grad_(False)
    train_by(RegCE(both[0], nn.CrossEntropyLoss()), both[0].parameters())


class Tempered(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(self.scale * outputs, targets)


LEARNED_LOSSES = {
    "a module": lambda loss: loss,
    "its method": lambda loss: loss.forward,
    "a function that calls it": lambda loss: lambda outputs, targets: loss(outputs, targets),
}


@pytest.mark.parametrize("form", LEARNED_LOSSES)
@pytest.mark.parametrize("make", [Plain, lambda *parts: SAM(*parts, rho=0.05)])
def test_a_loss_that_would_keep_its_first_parameters_is_refused(make, form):
    method = make(pair()[0], LEARNED_LOSSES[form](Tempered()))
    with pytest.raises(
        ValueError, match=r"^optimizer: holds no parameter of the loss \(Tempered\), .* freeze"
    ):
        train_by(method, method.parameters())


@pytest.mark.parametrize("form", LEARNED_LOSSES)
def test_a_loss_is_trained_by_an_optimizer_that_holds_its_parameters(form):
    loss = Tempered()
    method = SAM(pair()[0], LEARNED_LOSSES[form](loss), rho=0.05)
    train_by(method, [*method.parameters(), *loss.parameters()])
    assert not torch.equal(loss.scale, torch.ones(3))


def test_a_frozen_loss_needs_no_optimizer():
    method = Plain(pair()[0], Tempered().requires_grad_(False))
    assert train_by(method, method.parameters()).epochs == 2


def test_a_loss_that_looks_at_weights_of_the_model_is_taken():
    model = pair()[0]
    method = Plain(model, lambda o, t: nn.functional.cross_entropy(o, t) + model[2].weight.square().sum())
    assert train_by(method, method.parameters()).epochs == 2


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer, [torch.optim.lr_scheduler.StepLR(optimizer, 1) for _ in range(2)], [1]
        ),
        lambda optimizer: torch.optim.lr_scheduler.ChainedScheduler(
            [torch.optim.lr_scheduler.StepLR(optimizer, 1)], optimizer
        ),
    ],
)
def test_a_scheduler_of_another_optimizer_is_refused(schedule):
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match="scheduler: is that of another optimizer"):
        train(scheduler=lambda _: schedule(other))
    assert train(scheduler=schedule).epochs == 1
