"""Probes measure what they say, and leave the training as it is without them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import ncsam
from ncsam.probes import GRADIENT_METRICS, gradient_probe
from tests.ncsam.small_network import batch, gradient_at, loss_fn, network, shifted, weights_of


def length(tensors):
    return math.sqrt(sum(t.square().sum().item() for t in tensors))


def probed(method, observed, clean, inputs):
    return gradient_probe(method, inputs, observed, clean, torch.arange(len(inputs)), epochs=[1]).measure()


@pytest.fixture
def samples():
    inputs, clean = batch(size=60)
    observed = torch.where(torch.arange(60) % 3 == 0, (clean + 1) % 4, clean)
    return inputs, observed, clean


def test_group_gradients_are_those_of_the_groups_before_and_after_the_perturbation(samples):
    inputs, observed, clean = samples
    model = network()
    found = probed(ncsam.SAM(model, loss_fn, rho=0.3), observed, clean, inputs)
    weights = weights_of(model)
    g = gradient_at(model, weights, inputs, observed)
    moved = shifted(weights, [0.3 * t / length(g) for t in g])
    top = model(inputs).topk(2, dim=1).values
    gaps = (top[:, 0] - top[:, 1]).detach()
    right = observed == clean
    close = gaps < gaps[right].median()
    for group, members in (("wrong", ~right), ("ambiguous", right & close), ("confident", right & ~close)):
        at_w = length(gradient_at(model, weights, inputs[members], observed[members]))
        there = length(gradient_at(model, moved, inputs[members], observed[members]))
        assert found[f"probe_gradient_{group}"] == pytest.approx(at_w)
        assert found[f"probe_perturbed_gradient_{group}"] == pytest.approx(there)


def test_the_cosines_are_those_of_the_batch(samples):
    inputs, observed, clean = samples
    model = network()
    method = ncsam.NCSAM(model, loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.0)
    method.progress = 1.0
    found = probed(method, observed, clean, inputs)
    g, g_clean = (
        torch.cat([t.flatten() for t in gradient_at(model, weights_of(model), inputs, labels)])
        for labels in (observed, clean)
    )
    assert found["probe_cos_sam_clean"] == pytest.approx((g @ g_clean / g.norm() / g_clean.norm()).item())
    assert 0 <= found["probe_draw_precision"] <= 1
    assert set(found) == set(GRADIENT_METRICS)


def test_without_a_perturbation_and_without_wrong_labels_there_is_nothing_to_say(samples):
    inputs, _, clean = samples
    found = probed(ncsam.Plain(network(), loss_fn), clean, clean, inputs)
    assert math.isnan(found["probe_gradient_wrong"])
    assert math.isnan(found["probe_perturbed_gradient_confident"])
    assert found["probe_cos_sam_clean"] == pytest.approx(1)


@pytest.mark.parametrize(
    "kind", ["plain", "asam", "ncsam", "friendly-sam", "elr", "sln", "co-teaching", "dropout"]
)
def test_training_is_bit_for_bit_as_without_probes(kind):
    data = ncsam.load_dataset("digits", train_samples=400)
    labels = ncsam.corrupt_labels(data.train.targets, rate=0.4, seed=0)
    weights = []
    for with_probe in (True, False):
        model = ncsam.build_model("cnn", data.input_shape, 10, seed=0, channels=(4, 8))
        if kind == "dropout":
            model.insert(len(model) - 1, nn.Dropout(0.5))
        method = {
            "plain": lambda m: ncsam.Plain(m, loss_fn),
            "dropout": lambda m: ncsam.SAM(m, loss_fn, rho=0.1),
            "asam": lambda m: ncsam.ASAM(m, loss_fn, rho=0.5),
            "ncsam": lambda m: ncsam.NCSAM(m, loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1),
            "friendly-sam": lambda m: ncsam.FriendlySAM(m, loss_fn, rho=0.1),
            "elr": lambda m: ncsam.SAM(m, ncsam.EarlyLearningRegularization(400, 10), rho=0.1),
            "sln": lambda m: ncsam.SAM(m, ncsam.StochasticLabelNoise(400, 10), rho=0.1),
            "co-teaching": lambda m: ncsam.CoTeaching(
                m,
                loss_fn,
                peer=ncsam.build_model("cnn", data.input_shape, 10, seed=1, channels=(4, 8)),
                forget_rate=0.4,
            ),
        }[kind](model)
        some = torch.arange(100)
        probe = gradient_probe(
            method, data.train.batch(some), labels.observed[some], labels.clean[some], some, epochs=[1, 3]
        )
        history = ncsam.fit(
            method,
            torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9),
            data.train,
            labels,
            data.test,
            epochs=3,
            batch_size=64,
            seed=0,
            probes=[probe] if with_probe else [],
        )
        weights.append(model.state_dict())
        if with_probe:
            assert np.isnan(history.metrics["probe_cos_sam_clean"]).tolist() == [False, True, False]
            assert history.described["probe_gradient_wrong"][1].startswith("norm of")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class CountsItsPasses(nn.Module):
    """A model whose function depends on plain attributes that its passes move."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.passes = 0
        self.mean = torch.zeros(5, dtype=torch.float64)

    def forward(self, inputs):
        if self.training:
            self.passes += 1
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
        return self.linear(inputs - self.mean) * (1 + 0.05 * self.passes)


@pytest.mark.parametrize("kind", [ncsam.Plain, partial(ncsam.SAM, rho=0.1)])
def test_attributes_that_passes_move_are_as_before(kind):
    inputs, clean = batch(size=60)
    model = CountsItsPasses().double()
    method = kind(model, loss_fn)
    method.backward(inputs, clean)
    mean = model.mean.clone()
    probed(method, clean.roll(1), clean, inputs)
    assert model.passes == 1
    assert torch.equal(model.mean, mean)


def test_no_state_is_kept_after_a_measurement(samples):
    inputs, observed, clean = samples
    method = ncsam.SAM(network(), loss_fn, rho=0.1)
    probed(method, observed, clean, inputs)
    assert method.passes._state.before is None
