"""In `fit`, weights that the optimizer does not hold count as frozen ones: no method perturbs or penalizes them."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import (
    NCSAM,
    SAM,
    ClusterNCSAM,
    CoTeaching,
    JacobianPenalty,
    Plain,
    Split,
    fit,
    human_labels,
)
from ncsam.probes import gradient_probe
from tests.ncsam.methods_like_sam import WITH_ONE_SAM

TARGETS = torch.arange(16) % 3
DATA = Split(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)), TARGETS)
COMPENSATED = {"rho": 0.3, "flip_ratio": 0.4, "strength": 0.5, "warmup": 0.0, "schedule": "constant"}


def network(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


METHODS = {
    "plain": Plain,
    "co-teaching": lambda *parts: CoTeaching(*parts, peer=network(2), forget_rate=0.2),
    "jacobian-penalty": lambda *parts: JacobianPenalty(*parts, strength=1.0, seed=0),
    "ncsam": lambda *parts: NCSAM(*parts, **COMPENSATED),
    "cluster-ncsam": lambda *parts: ClusterNCSAM(*parts, **COMPENSATED),
    **{name: lambda *parts, kind=kind: kind(*parts, rho=0.3) for name, kind in WITH_ONE_SAM.items()},
}


def train(method, weights, **options):
    optimizer = torch.optim.SGD(weights, lr=0.1)
    settings = {"epochs": 2, "batch_size": 8, "seed": 0, **options}
    return fit(method, optimizer, DATA, human_labels(TARGETS, TARGETS), DATA, **settings)


@pytest.mark.parametrize("max_gradient_norm", [None, 0.1])
@pytest.mark.parametrize("name", METHODS)
def test_weights_outside_the_optimizer_count_as_frozen_ones(name, max_gradient_norm):
    """Their gradients are no part of a norm, and do not pile up."""

    def head_alone(freeze):
        method = METHODS[name](network(), nn.CrossEntropyLoss())
        heads = [trained[2] for trained in method.networks()]
        for trained in method.networks():
            trained[0].requires_grad_(not freeze)
        weights = [weight for head in heads for weight in head.parameters()]
        history = train(method, weights, max_gradient_norm=max_gradient_norm)
        return [*weights, torch.tensor(history.metrics["perturbation_norm"])]

    for frozen, outside in zip(head_alone(True), head_alone(False), strict=True):
        torch.testing.assert_close(frozen, outside, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["plain", "sam", "ncsam"])
def test_probes_see_them_as_frozen_ones(name):
    observed = (TARGETS + (torch.arange(16) % 4 == 0)) % 3

    def probed(freeze):
        method = METHODS[name](network(), nn.CrossEntropyLoss())
        method.model[0].requires_grad_(not freeze)
        probe = gradient_probe(method, DATA.pixels, observed, TARGETS, torch.arange(16), epochs=[1, 2])
        metrics = train(method, method.model[2].parameters(), probes=[probe]).metrics
        return torch.tensor([metrics[name] for name in probe.metrics])

    torch.testing.assert_close(probed(True), probed(False), rtol=0, atol=0, equal_nan=True)


def test_they_require_a_gradient_again_after_each_epoch_and_after_an_error():
    model = network()
    seen = []

    def look(*_):
        seen.append(model[0].weight.requires_grad)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SAM(model, nn.CrossEntropyLoss(), rho=0.3), model[2].parameters(), on_epoch=look)
    model[2].register_forward_pre_hook(lambda *_: 1 / 0 if not model[0].weight.requires_grad else None)
    with pytest.raises(ZeroDivisionError):
        train(SAM(model, nn.CrossEntropyLoss(), rho=0.3), model[2].parameters())
    assert [*seen, model[0].weight.requires_grad] == [True, True]


def test_a_distributed_model_must_be_frozen_before_it_is_wrapped(one_rank):
    """DistributedDataParallel waits for the gradient of each weight that required one when it was made."""
    model = network()
    method = SAM(DistributedDataParallel(model), nn.CrossEntropyLoss(), rho=0.3)
    with pytest.raises(
        ValueError, match=r"^optimizer: does not hold '.*0.weight', .* requires_grad_\(False\) before"
    ):
        train(method, model[2].parameters())
    model[0].requires_grad_(False)
    method = SAM(DistributedDataParallel(model), nn.CrossEntropyLoss(), rho=0.3)
    assert train(method, model[2].parameters()).epochs == 2
