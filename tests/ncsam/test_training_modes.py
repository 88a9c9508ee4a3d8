"""`fit` trains in training mode, and leaves in evaluation mode what the caller put there: a frozen BatchNorm."""

import pytest
import torch
from torch import nn

from ncsam import NCSAM, SAM, CoTeaching, Plain, Split, fit, human_labels
from ncsam.probes import gradient_probe

INPUTS = 3 + torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
METHODS = {
    "plain": Plain,
    "sam": lambda *parts: SAM(*parts, rho=0.05),
    "ncsam": lambda *parts: NCSAM(*parts, rho=0.05, flip_ratio=0.4, strength=0.2, warmup=0.0),
    "co-teaching": lambda *parts: CoTeaching(*parts, peer=network(1), forget_rate=0.2),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))


def train(method, **options):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    data, labels = Split(INPUTS, TARGETS), human_labels(TARGETS, TARGETS)
    return fit(method, optimizer, data, labels, data, epochs=2, batch_size=8, seed=0, **options)


def with_frozen_norm(seed=0):
    model = network(seed)
    model[1].eval().requires_grad_(False)
    return model


def test_a_part_that_is_trained_in_evaluation_mode_is_told():
    """As a pretrained part that comes in evaluation mode, within a module in training mode."""
    model = nn.Sequential(network().eval(), nn.Linear(3, 3))
    with pytest.warns(
        UserWarning, match=r"^model: '0' is in evaluation mode .* call model\.train\(\) before fit"
    ):
        train(Plain(model, nn.CrossEntropyLoss()))


def has_moved(model):
    return not torch.equal(model[1].running_mean, torch.zeros(4))


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_batch_norm_stays_frozen(name):
    method = METHODS[name](with_frozen_norm(), nn.CrossEntropyLoss())
    train(method)
    assert not has_moved(method.model)
    assert [module.training for module in method.model] == [True, False, True, True, True]


def test_a_frozen_batch_norm_of_the_second_network_stays_frozen():
    method = CoTeaching(network(), nn.CrossEntropyLoss(), peer=with_frozen_norm(1), forget_rate=0.2)
    train(method)
    assert [has_moved(each) for each in method.networks()] == [True, False]


def test_it_stays_frozen_though_a_callback_leaves_the_model_in_evaluation_mode():
    method = Plain(with_frozen_norm(), nn.CrossEntropyLoss())
    train(method, on_epoch=lambda *told: told[2].eval())
    assert not has_moved(method.model)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_a_model_in_evaluation_mode_as_a_whole_is_trained_as_a_whole(wrap):
    """A wrapper is made in training mode around a pretrained model in evaluation mode."""
    model = network().eval()
    train(Plain(wrap(model), nn.CrossEntropyLoss()))
    assert has_moved(model)
    assert all(module.training for module in model.modules())


def test_a_probe_of_gradients_leaves_a_frozen_batch_norm_as_it_is():
    """Its outputs are those of the training's passes."""
    method = SAM(with_frozen_norm(), nn.CrossEntropyLoss(), rho=0.05)
    seen = []
    method.model[1].register_forward_hook(lambda *call: seen.append(call[0].training))
    probe = gradient_probe(method, INPUTS, TARGETS, TARGETS, torch.arange(16), epochs=[1])
    train(method, probes=[probe])
    assert seen
    assert not any(seen)
