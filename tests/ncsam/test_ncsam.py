"""NCSAM against Algorithm 1 of the paper, its controls and its edges."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from ncsam import NCSAM, SAM, Plain
from ncsam.methods.ncsam import progressive_scale
from ncsam.methods.simulated_noise import (
    confidence_gaps,
    draw_probabilities,
    draw_without_replacement,
    temporary_labels,
)
from ncsam.methods.tensor_lists import cosine, norm, scaled_to
from tests.ncsam import small_network as small


@pytest.mark.parametrize("compensation", [1, -1])
@pytest.mark.parametrize(("rho", "strength"), [(0.3, 0.05), (0.05, 0.9)])
def test_ncsam_is_algorithm_1(compensation, rho, strength):
    model = small.network()
    inputs, targets = small.batch()
    weights = small.weights_of(model)
    method = NCSAM(
        model,
        small.loss_fn,
        rho=rho,
        flip_ratio=0.4,
        strength=strength,
        compensation=compensation,
        warmup=0.1,
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
    g_star = small.gradient_at(model, weights, inputs[drawn], torch.tensor(flipped))
    g = small.gradient_at(model, weights, inputs, targets)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    s = compensation * strength * min(1.0, 2 * (3 - 2 * 0.4) * 0.4**2)
    eps = [rho * a / length + s * b for a, b in zip(g, g_star, strict=True)]
    total = torch.sqrt(sum(t.square().sum() for t in eps))
    if total > rho:
        eps = [t * rho / total for t in eps]
    assert bool(method.ascent.compensation.projected) == bool(total > rho)
    small.assert_same(method.ascent.perturbation, eps)
    small.assert_same(
        small.grads(model), small.gradient_at(model, small.shifted(weights, eps), inputs, targets)
    )


def compensated(model, **settings):
    """NCSAM after its last epoch's first step, with the settings changed."""
    method = NCSAM(
        model, small.loss_fn, **{"rho": 0.3, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.0, **settings}
    )
    method.progress = 1.0
    method.backward(*small.batch())
    return method


def test_the_labels_of_the_simulated_noise_may_be_smoothed():
    inputs, _ = small.batch()
    stars = []
    for smoothing in (0.0, 0.1):
        model = small.network()
        found = compensated(model, flip_ratio=1.0, label_smoothing=smoothing).ascent.compensation
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)(
            model(inputs[found.drawn]), found.temporary_targets
        )
        small.assert_same(found.gradient, torch.autograd.grad(loss, list(model.parameters())))
        stars.append(found.gradient)
    assert not torch.allclose(stars[0][0], stars[1][0])


def test_without_the_projection_the_perturbation_is_the_sum_itself():
    method = compensated(small.network(), rho=0.05, strength=0.9, project=False)
    found = method.ascent
    to_rho = scaled_to(found.gradient, 0.05)
    small.assert_same(
        found.perturbation, [a + 0.9 * b for a, b in zip(to_rho, found.compensation.gradient, strict=True)]
    )
    assert norm(found.perturbation) > 0.05
    assert not found.compensation.projected


def test_a_constant_schedule_is_kappa_throughout():
    method = NCSAM(small.network(), small.loss_fn, **small.COMPENSATED, schedule="constant")
    method.progress = 0.2
    assert method.scale() == 0.2


def test_the_warmup_may_be_sams():
    model, sam = small.network(), small.network()
    method = NCSAM(
        model, small.loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.25, warmup_with="sam"
    )
    method.progress = 0.25
    method.backward(*small.batch())
    SAM(sam, small.loss_fn, rho=0.3).backward(*small.batch())
    small.assert_same(small.grads(model), small.grads(sam))
    assert method.gradient_count == 2


def test_a_random_direction_has_the_norm_of_the_simulated_gradient():
    simulated = compensated(small.network()).ascent.compensation.gradient
    random = compensated(small.network(), direction="random").ascent.compensation.gradient
    assert norm(random).item() == pytest.approx(norm(simulated).item())
    assert abs(cosine(random, simulated)) < 0.5


def test_uniform_draws_do_not_follow_the_margin_and_uniform_labels_are_never_the_observed_one():
    model = small.network()
    _, targets = small.batch()
    method = NCSAM(
        model, small.loss_fn, rho=0.3, flip_ratio=0.25, strength=0.2, draw="uniform", labels="uniform"
    )
    gaps = torch.linspace(0, 1000, 16)  # the low-margin draw would hardly take the last ones
    logits = torch.zeros(16, 4).index_put((torch.arange(16), targets), gaps)
    drawn, labels = zip(*(method.simulated_labels(logits, targets) for _ in range(3000)), strict=True)
    counts = torch.cat(drawn).bincount(minlength=16)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    shift = (torch.cat(labels) - targets[torch.cat(drawn)]) % 4
    assert scipy.stats.chisquare(shift.bincount(minlength=4)[1:]).pvalue > 1e-3
    assert (shift != 0).all()


@pytest.mark.parametrize("model", [small.network(batch_norm=True), small.network()])
def test_a_single_drawn_sample_is_no_trouble_for_batch_norm(model):
    method = compensated(model, flip_ratio=0.07)
    assert len(method.ascent.compensation.drawn) == 1
    assert all(torch.isfinite(g).all() for g in small.grads(model))
    assert all(module.training for module in model.modules())


def test_a_batch_smaller_than_the_draw_is_drawn_whole_or_not_at_all():
    for size, flip_ratio, drawn in ((1, 1.0, 1), (1, 0.9, 0), (3, 0.3, 0), (3, 0.4, 1)):
        model = small.network()
        method = NCSAM(model, small.loss_fn, rho=0.3, flip_ratio=flip_ratio, strength=0.2, warmup=0.0)
        method.progress = 1.0
        method.backward(*small.batch(size=size))
        found = method.ascent.compensation
        assert (len(found.drawn) if found else 0) == drawn


def test_ncsam_needs_classes_and_at_least_two():
    inputs, targets = small.batch()
    for model, labels, field in (
        (nn.Linear(5, 1).double(), targets * 0, "model"),
        (small.network(), nn.functional.one_hot(targets, 4).double(), "targets"),
    ):
        method = NCSAM(model, small.loss_fn, **small.COMPENSATED)
        method.progress = 1.0
        with pytest.raises(ValueError, match=f"^{field}"):
            method.backward(inputs, labels)


def test_ncsam_in_its_warmup_is_plain():
    inputs, targets = small.batch()
    model, plain = small.network(), small.network()
    method = NCSAM(model, small.loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.25)
    method.progress = 0.25
    method.backward(inputs, targets)
    Plain(plain, small.loss_fn).backward(inputs, targets)
    small.assert_same(small.grads(model), small.grads(plain))
    assert method.gradient_count == 1
    method.progress = 0.26
    method.backward(inputs, targets)
    assert method.gradient_count == pytest.approx(1 + 2 + 6 / 16)


@pytest.mark.parametrize("change", [{"flip_ratio": 0.0}, {"strength": 0.0}])
def test_ncsam_without_flips_or_strength_is_sam(change):
    inputs, targets = small.batch()
    model, sam = small.network(), small.network()
    settings = {"rho": 0.3, "flip_ratio": 0.4, "strength": 0.2, "warmup": 0.0, **change}
    method = NCSAM(model, small.loss_fn, **settings)
    method.progress = 1.0
    method.backward(inputs, targets)
    SAM(sam, small.loss_fn, rho=0.3).backward(inputs, targets)
    small.assert_same(small.grads(model), small.grads(sam))


def test_ncsam_asks_for_its_progress():
    method = NCSAM(small.network(), small.loss_fn, rho=0.3, flip_ratio=0.4, strength=0.2)
    with pytest.raises(ValueError, match="^progress"):
        method.backward(*small.batch())


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


def test_a_checkpoint_of_ncsam_goes_on_with_the_same_draws():
    inputs, targets = small.batch()
    model = small.network()
    method = NCSAM(model, small.loss_fn, **small.COMPENSATED)
    method.progress = 1.0
    method.backward(inputs, targets)
    state = copy.deepcopy(method.state_dict())
    method.backward(inputs, targets)
    again = NCSAM(model, small.loss_fn, **small.COMPENSATED)
    again.progress = 1.0
    again.load_state_dict(state)
    again.backward(inputs, targets)
    assert torch.equal(method.ascent.compensation.drawn, again.ascent.compensation.drawn)
    assert again.gradient_count == method.gradient_count


def test_the_random_state_of_another_kind_of_device_is_gone_on_from_with_other_draws():
    methods = [NCSAM(small.network(), small.loss_fn, **small.COMPENSATED, seed=seed) for seed in (0, 1)]
    # a GPU's has 16 bytes, a CPU's 5,056
    state = {**methods[0].state_dict(), "generator": torch.arange(16, dtype=torch.uint8)}
    draws = []
    for method in methods:
        method.load_state_dict(state)
        draws.append(torch.rand(4, generator=method.generator))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)


def test_noise_drawn_anew_for_the_whole_batch_flips_each_sample_with_the_flip_ratio():
    model = small.network()
    inputs, targets = small.batch()
    method = NCSAM(
        model,
        small.loss_fn,
        rho=0.3,
        flip_ratio=0.3,
        strength=0.2,
        warmup=0.0,
        draw="whole-batch",
        labels="uniform",
    )
    method.progress = 1.0
    method.backward(inputs, targets)
    found = method.ascent.compensation
    assert torch.equal(found.drawn, torch.arange(16))
    small.assert_same(
        found.gradient, small.gradient_at(model, small.weights_of(model), inputs, found.temporary_targets)
    )
    assert method.gradient_count == 3

    labels = torch.stack([method.simulated_labels(model(inputs), targets)[1] for _ in range(3000)])
    flipped = labels != targets
    assert flipped.double().mean().item() == pytest.approx(0.3, abs=0.01)
    # each sample by itself: the number of flips in a batch is binomial
    assert flipped.sum(1).double().var().item() == pytest.approx(16 * 0.3 * 0.7, rel=0.1)
    shift = ((labels - targets) % 4)[flipped]
    assert scipy.stats.chisquare(shift.bincount(minlength=4)[1:]).pvalue > 1e-3


def test_the_whole_batch_may_also_flip_to_the_runner_up():
    method = compensated(small.network(), draw="whole-batch", flip_ratio=1.0)
    logits = small.network()(small.batch()[0]).detach()
    assert torch.equal(
        method.ascent.compensation.temporary_targets, temporary_labels(logits, small.batch()[1])
    )
