import copy

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.func import functional_call

from ncsam import NCSAM, SAM, OracleSAM, Plain, build_method, hyperparameters
from ncsam.methods.ncsam import (
    confidence_gaps,
    draw_probabilities,
    draw_without_replacement,
    progressive_scale,
    temporary_labels,
)
from ncsam.methods.perturbation import norm, projected_onto_ball, scaled_to

loss_fn = nn.CrossEntropyLoss()


def network(batch_norm=False, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(7)] if batch_norm else []
        return nn.Sequential(nn.Linear(5, 7), *middle, nn.ReLU(), nn.Linear(7, 4)).double()


def batch(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 5, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(0, 4, (size,), generator=generator)


def gradient_at(model, weights, inputs, targets):
    """The gradient of the batch's mean loss at the given weights, in training mode, independent of the methods."""
    named = {name: w.clone().requires_grad_() for name, w in weights.items()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    loss = loss_fn(functional_call(model, {**named, **buffers}, (inputs,)), targets)
    return list(torch.autograd.grad(loss, list(named.values())))


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def shifted(weights, offsets):
    return {name: w + e for (name, w), e in zip(weights.items(), offsets, strict=True)}


def grads(model):
    return [p.grad for p in model.parameters()]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


METHODS = {
    "plain": lambda m: Plain(m, loss_fn),
    "sam": lambda m: SAM(m, loss_fn, rho=0.3),
    "ncsam": lambda m: NCSAM(m, loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.1),
    "oracle": lambda m: OracleSAM(m, loss_fn, rho=0.3, clean_targets=batch(seed=5)[1]),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_weights_end_as_they_were_and_batch_norm_statistics_move_once(name, batch_norm):
    model = network(batch_norm)
    method = METHODS[name](model)
    method.progress = 0.8
    inputs, targets = batch()
    before = weights_of(model)
    once = copy.deepcopy(model)
    loss = method.backward(inputs, targets, torch.arange(16))
    with torch.no_grad():
        expected = loss_fn(once(inputs), targets)
    torch.testing.assert_close(loss, expected)
    assert not loss.requires_grad
    for name_, weight in model.named_parameters():
        assert torch.equal(weight, before[name_])
    for statistic, moved_once in zip(model.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(statistic, moved_once)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_accumulate_as_those_of_loss_backward_do(name):
    model = network()
    method = METHODS[name](model)
    method.progress = 0.8
    inputs, targets = batch()
    method.backward(inputs, targets, torch.arange(16))
    single = [g.clone() for g in grads(model)]
    state = method.state_dict()
    method = METHODS[name](model)
    method.progress = 0.8
    method.backward(inputs, targets, torch.arange(16))
    assert_same(grads(model), [2 * g for g in single])
    assert state["gradient_count"] == method.gradient_count


@pytest.mark.parametrize("name", ["sam", "ncsam", "oracle"])
def test_weights_are_put_back_when_the_second_pass_fails(name):
    model = network(batch_norm=True)
    calls = []

    def failing(outputs, targets):
        calls.append(1)
        if len(calls) == 2 + (name == "ncsam") + (name == "oracle"):
            raise RuntimeError("out of memory")
        return loss_fn(outputs, targets)

    method = METHODS[name](model)
    method.loss_fn = failing
    if name == "ncsam":
        method.simulated_noise_loss = failing
    method.progress = 0.8
    before = weights_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        method.backward(*batch(), torch.arange(16))
    assert all(torch.equal(w, before[n]) for n, w in model.named_parameters())
    assert model[1].track_running_stats


def test_sam_is_the_gradient_at_w_plus_rho_g_over_its_norm():
    model = network()
    inputs, targets = batch()
    weights = weights_of(model)
    g = gradient_at(model, weights, inputs, targets)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    truth = gradient_at(model, shifted(weights, [0.3 * t / length for t in g]), inputs, targets)
    SAM(model, loss_fn, rho=0.3).backward(inputs, targets)
    assert_same(grads(model), truth)


def test_the_oracle_perturbs_with_true_labels_and_descends_with_observed_ones():
    model = network()
    inputs, observed = batch()
    clean = batch(seed=5)[1]
    weights = weights_of(model)
    g = gradient_at(model, weights, inputs, clean)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    truth = gradient_at(model, shifted(weights, [0.3 * t / length for t in g]), inputs, observed)
    METHODS["oracle"](model).backward(inputs, observed, torch.arange(16))
    assert_same(grads(model), truth)


@pytest.mark.parametrize("compensation", [1, -1])
@pytest.mark.parametrize(("rho", "strength"), [(0.3, 0.05), (0.05, 0.9)])
def test_ncsam_is_algorithm_1(compensation, rho, strength):
    model = network()
    inputs, targets = batch()
    weights = weights_of(model)
    method = NCSAM(
        model, loss_fn, rho=rho, flip_ratio=0.4, strength=strength, compensation=compensation, warmup=0.1
    )
    method.progress = 0.4
    method.backward(inputs, targets)
    drawn = method.ascent.compensation.drawn
    assert len(drawn) == 6  # floor(0.4 * 16)
    assert len(drawn.unique()) == 6

    logits = model(inputs).detach()
    flipped = [
        max((c for c in range(4) if c != targets[i]), key=lambda c: logits[i, c].item())
        for i in drawn.tolist()
    ]
    g_star = gradient_at(model, weights, inputs[drawn], torch.tensor(flipped))
    g = gradient_at(model, weights, inputs, targets)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    s = compensation * strength * min(1.0, 2 * (3 - 2 * 0.4) * 0.4**2)
    eps = [rho * a / length + s * b for a, b in zip(g, g_star, strict=True)]
    total = torch.sqrt(sum(t.square().sum() for t in eps))
    if total > rho:
        eps = [t * rho / total for t in eps]
    assert bool(method.ascent.compensation.projected) == bool(total > rho)
    assert_same(method.ascent.perturbation, eps)
    assert_same(grads(model), gradient_at(model, shifted(weights, eps), inputs, targets))


def test_the_simulated_noise_may_have_a_loss_of_its_own():
    inputs, targets = batch()
    stars = []
    for smoothing in (0.0, 0.1):
        model = network()
        smoothed = nn.CrossEntropyLoss(label_smoothing=smoothing)
        method = NCSAM(
            model, loss_fn, rho=0.3, flip_ratio=1.0, strength=0.2, warmup=0.0, simulated_noise_loss=smoothed
        )
        method.progress = 1.0
        method.backward(inputs, targets)
        compensation = method.ascent.compensation
        drawn = compensation.drawn
        loss = smoothed(model(inputs[drawn]), compensation.temporary_targets)
        assert_same(compensation.gradient, torch.autograd.grad(loss, list(model.parameters())))
        stars.append(compensation.gradient)
    assert not torch.allclose(stars[0][0], stars[1][0])


def test_ncsam_in_its_warmup_is_plain():
    inputs, targets = batch()
    model, plain = network(), network()
    method = NCSAM(model, loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.25)
    method.progress = 0.25
    method.backward(inputs, targets)
    Plain(plain, loss_fn).backward(inputs, targets)
    assert_same(grads(model), grads(plain))
    assert method.gradient_count == 1
    method.progress = 0.26
    method.backward(inputs, targets)
    assert method.gradient_count == pytest.approx(1 + 2 + 6 / 16)


@pytest.mark.parametrize("change", [{"flip_ratio": 0.0}, {"strength": 0.0}])
def test_ncsam_without_flips_or_strength_is_sam(change):
    inputs, targets = batch()
    model, sam = network(), network()
    settings = {"rho": 0.3, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.0, **change}
    method = NCSAM(model, loss_fn, **settings)
    method.progress = 1.0
    method.backward(inputs, targets)
    SAM(sam, loss_fn, rho=0.3).backward(inputs, targets)
    assert_same(grads(model), grads(sam))


def test_ncsam_asks_for_its_progress():
    method = NCSAM(network(), loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2)
    with pytest.raises(ValueError, match="^progress"):
        method.backward(*batch())


def test_gaps_are_the_two_largest_logits_apart():
    logits = torch.tensor([[1.0, 4.0, 2.5], [0.0, 0.0, -1.0]])
    assert confidence_gaps(logits).tolist() == [1.5, 0.0]


def test_draw_probabilities_fall_with_the_gap():
    torch.testing.assert_close(
        draw_probabilities(torch.tensor([0.0, 1.0, 3.0])), torch.tensor([1.0, 0.5, 0.25]) / 1.75
    )


def test_draws_follow_successive_sampling_without_replacement():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(draw_without_replacement(p, 2, generator).tolist()) for _ in range(20_000)]
    kinds = [(i, j) for i in range(4) for j in range(4) if i != j]
    observed = [pairs.count(kind) for kind in kinds]
    expected = [20_000 * (p[i] * p[j] / (1 - p[i])).item() for i, j in kinds]
    assert scipy.stats.chisquare(observed, np.array(expected) * 20_000 / sum(expected)).pvalue > 1e-3


def test_drawing_from_nan_does_not_fail():
    drawn = draw_without_replacement(torch.full((5,), float("nan")), 2, torch.Generator().manual_seed(0))
    assert len(drawn) == 2


def test_the_temporary_label_is_the_best_class_but_the_observed_one():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [-5.0, -9.0, -7.0]])
    assert temporary_labels(logits, torch.tensor([0, 1, 0])).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("progress", "scale"), [(0.0, 0.0), (0.25, 0.3125), (0.5, 1.0), (0.7, 1.0), (1.0, 1.0)]
)
def test_the_schedule_is_that_of_equation_15(progress, scale):
    assert progressive_scale(progress) == pytest.approx(scale)


@pytest.mark.parametrize(("length", "result"), [(2.0, 1.0), (1.0, 1.0), (0.4, 0.4), (0.0, 0.0)])
def test_the_projection_shortens_what_is_longer_and_leaves_the_rest(length, result):
    tensors = [torch.tensor([0.6, 0.0]) * length, torch.tensor([[0.8]]) * length]
    projected, longer = projected_onto_ball(tensors, 1.0)
    assert norm(projected).item() == pytest.approx(result)
    assert bool(longer) == (length > 1)
    if length <= 1:
        assert all(torch.equal(a, b) for a, b in zip(projected, tensors, strict=True))


def test_a_zero_gradient_gives_a_zero_perturbation():
    assert torch.equal(scaled_to([torch.zeros(3)], 0.5)[0], torch.zeros(3))


@pytest.mark.parametrize("name", ["sam", "ncsam"])
@pytest.mark.parametrize(("optimizer", "learning_rate"), [(torch.optim.SGD, 0.5), (torch.optim.AdamW, 0.05)])
def test_any_optimizer_scheduler_and_clipping_learn_with_it(name, optimizer, learning_rate):
    model = network()
    method = METHODS[name](model)
    method.progress = 1.0
    steps = optimizer(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(steps, total_iters=20)
    inputs, targets = batch()
    first = loss_fn(model(inputs), targets).item()
    for _ in range(60):
        steps.zero_grad()
        method.backward(inputs, targets)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        schedule.step()
    assert loss_fn(model(inputs), targets).item() < 0.7 * first


def test_a_parameter_the_loss_does_not_reach_is_left_alone():
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    SAM(model, loss_fn, rho=0.1).backward(*batch())
    assert torch.equal(model.unused, torch.ones(3, dtype=torch.float64))


def test_a_checkpoint_of_ncsam_goes_on_with_the_same_draws():
    inputs, targets = batch()
    model = network()
    method = METHODS["ncsam"](model)
    method.progress = 1.0
    method.backward(inputs, targets)
    state = copy.deepcopy(method.state_dict())
    method.backward(inputs, targets)
    again = METHODS["ncsam"](model)
    again.progress = 1.0
    again.load_state_dict(state)
    again.backward(inputs, targets)
    assert torch.equal(method.ascent.compensation.drawn, again.ascent.compensation.drawn)
    assert again.gradient_count == method.gradient_count


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("sam", {"rho": 0.0}, "rho"),
        ("sam", {"rho": float("inf")}, "rho"),
        ("sam", {}, "rho"),
        ("sam", {"rho": 0.1, "strength": 1}, "strength"),
        ("sharp", {}, "method"),
        ("plain", {"rho": 0.1}, "rho"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 1.2, "strength": 0.1}, "flip_ratio"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": -1}, "strength"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "compensation": 0}, "compensation"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "warmup": 2}, "warmup"),
    ],
)
def test_bad_settings_are_named(name, settings, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        build_method(name, network(), loss_fn, seed=0, clean_targets=torch.zeros(1), **settings)


def test_hyperparameters_are_those_of_the_signature():
    assert list(hyperparameters("ncsam")) == ["rho", "flip_ratio", "strength", "compensation", "warmup"]


def test_the_oracle_needs_the_samples_positions():
    with pytest.raises(ValueError, match="^indices"):
        METHODS["oracle"](network()).backward(*batch())
