"""The robust losses against their formulas, and mixup against a plain loop."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import ncsam
from ncsam.evaluation import unit_of_loss, unit_of_stored_loss
from tests.ncsam.small_network import batch, network


@pytest.fixture
def outputs():
    logits = 3 * torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return logits, torch.arange(20) % 4


def of_the_label(logits, targets):
    return logits.softmax(1)[torch.arange(len(targets)), targets]


def transition(classes=4, rate=0.3):
    matrix = torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64)
    return matrix.fill_diagonal_(1 - rate)


def test_generalized_cross_entropy_is_its_formula_and_lies_between_its_limits(outputs):
    p = of_the_label(*outputs)
    torch.testing.assert_close(ncsam.GeneralizedCrossEntropy(q=0.7)(*outputs), ((1 - p**0.7) / 0.7).mean())
    torch.testing.assert_close(ncsam.GeneralizedCrossEntropy(q=1.0)(*outputs), (1 - p).mean())
    cross_entropy = nn.functional.cross_entropy(*outputs)
    torch.testing.assert_close(
        ncsam.GeneralizedCrossEntropy(q=1e-9)(*outputs), cross_entropy, rtol=1e-7, atol=0
    )


def test_symmetric_cross_entropy_is_its_formula(outputs):
    logits, targets = outputs
    p = logits.softmax(1)
    truth = nn.functional.one_hot(targets, 4).double()
    reverse = -(p * torch.where(truth > 0, 0.0, -4.0)).sum(1)
    expected = 0.1 * -(truth * p.log()).sum(1) + 1.0 * reverse
    torch.testing.assert_close(ncsam.SymmetricCrossEntropy()(logits, targets), expected.mean())


def test_the_confidence_penalty_is_cross_entropy_less_the_entropy_of_the_predictions(outputs):
    logits, targets = outputs
    entropy = scipy.stats.entropy(logits.softmax(1).numpy(), axis=1).mean()
    expected = nn.functional.cross_entropy(logits, targets) - 0.7 * entropy
    torch.testing.assert_close(ncsam.ConfidencePenalty(strength=0.7)(logits, targets), expected)


@pytest.mark.parametrize("least", [-300.0, -math.inf])
def test_the_confidence_penalty_has_gradients_where_a_class_has_no_probability(least):
    logits = torch.tensor([[300.0, 0.0, least]], requires_grad=True)
    loss = ncsam.ConfidencePenalty()(logits, torch.tensor([1]))
    assert loss.item() == pytest.approx(300.0)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_forward_correction_is_the_likelihood_of_the_observed_label(outputs):
    logits, targets = outputs
    observed = logits.softmax(1) @ transition()
    expected = -observed[torch.arange(20), targets].log().mean()
    torch.testing.assert_close(ncsam.ForwardCorrection(transition())(logits, targets), expected)


def test_forward_correction_has_gradients_where_no_label_is_of_some_class(outputs):
    logits, targets = outputs
    matrix = transition()
    matrix[:, 0] += matrix[:, 3]
    matrix[:, 3] = 0
    logits = logits.clone().requires_grad_()
    observed = targets % 3
    loss = ncsam.ForwardCorrection(matrix)(logits, observed)
    torch.testing.assert_close(loss, -(logits.softmax(1) @ matrix)[torch.arange(20), observed].log().mean())
    loss.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["gce", "sce", "confidence-penalty", "forward", "elr"])
def test_losses_that_need_classes_refuse_mixed_ones(outputs, name):
    logits, targets = outputs
    loss = ncsam.build_loss(name, samples=20, classes=4, transition=transition())
    mixed = nn.functional.one_hot(targets, 4).double()
    with pytest.raises(ValueError, match="^targets: .* takes classes, not mixed ones"):
        loss(logits, mixed, torch.arange(20)) if name == "elr" else loss(logits, mixed)


def test_elr_remembers_nothing_of_a_pass_that_overflowed(outputs):
    loss = ncsam.EarlyLearningRegularization(20, 4)
    loss.remember(outputs[0], torch.arange(20))
    before = loss.targets.clone()
    loss.remember(torch.full_like(outputs[0], float("inf")), torch.arange(20))
    assert torch.equal(loss.targets, before)


def test_forward_correction_with_the_identity_is_cross_entropy_also_for_confident_float32_outputs():
    logits = torch.tensor([[200.0, 0.0, 0.0, 0.0]])
    loss = ncsam.ForwardCorrection(transition(rate=0.0))
    assert loss(logits, torch.tensor([1])).item() == pytest.approx(200.0)
    logits.requires_grad_()
    loss(logits, torch.tensor([1])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "matrix", [torch.ones(2, 3), torch.ones(2, 2), torch.tensor([[1.5, -0.5], [0.0, 1.0]])]
)
def test_what_is_no_transition_matrix_is_refused(matrix):
    with pytest.raises(ValueError, match="^transition"):
        ncsam.ForwardCorrection(matrix)


def test_the_transition_is_read_off_a_perfect_network_on_noisy_labels():
    matrix = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.0, 0.4, 0.6]], dtype=torch.float64)
    # samples of all kinds of doubt, among them sure ones of each class
    shares = torch.tensor(np.random.default_rng(0).dirichlet([0.2] * 3, 2000))
    torch.testing.assert_close(
        ncsam.estimated_transition(shares @ matrix, quantile=1.0), matrix, atol=0.02, rtol=0
    )
    robust = ncsam.estimated_transition(shares @ matrix, quantile=0.97)
    torch.testing.assert_close(robust.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(robust, matrix, atol=0.05, rtol=0)


def test_elr_pulls_toward_the_average_of_earlier_predictions(outputs):
    logits, targets = outputs
    indices = torch.arange(20) + 5
    loss = ncsam.EarlyLearningRegularization(30, 4, strength=3.0, momentum=0.7).double()
    p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
    normed = p / p.sum(1, keepdim=True)
    loss.remember(logits, indices)
    loss.remember(logits, indices)
    memory = 0.7 * (0.3 * normed) + 0.3 * normed
    torch.testing.assert_close(loss.targets[indices], memory)
    assert (loss.targets[:5] == 0).all()
    expected = nn.functional.cross_entropy(logits, targets) + 3 * (1 - (memory * p).sum(1)).log().mean()
    torch.testing.assert_close(loss(logits, targets, indices), expected)


@pytest.mark.parametrize(
    "method", [lambda m, loss: ncsam.Plain(m, loss), lambda m, loss: ncsam.SAM(m, loss, rho=0.3)]
)
def test_elr_remembers_once_a_step_whatever_the_method(method):
    model = network()
    inputs, targets = batch()
    loss = ncsam.EarlyLearningRegularization(16, 4).double()
    p = model(inputs).detach().softmax(1)
    method(model, loss).backward(inputs, targets, torch.arange(16))
    torch.testing.assert_close(loss.targets, 0.3 * p, rtol=1e-3, atol=1e-4)


def test_elr_needs_the_samples_positions():
    with pytest.raises(ValueError, match="^indices"):
        ncsam.Plain(network(), ncsam.EarlyLearningRegularization(16, 4).double()).backward(*batch())


@pytest.mark.parametrize("name", ncsam.LOSSES)
def test_every_loss_is_a_mean_over_samples_and_falls_as_the_label_grows_likelier(name, outputs):
    logits, targets = outputs
    loss = ncsam.build_loss(name, samples=20, classes=4, transition=transition()).double()
    extra = (torch.arange(20),) if name in ("elr", "sln") else ()
    apart = [loss(logits[i : i + 1], targets[i : i + 1], *(e[i : i + 1] for e in extra)) for i in range(20)]
    torch.testing.assert_close(loss(logits, targets, *extra), torch.stack(apart).mean())
    surer = logits + nn.functional.one_hot(targets, 4)
    assert loss(surer, targets, *extra) < loss(logits, targets, *extra)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("mae", {}, "loss"),
        ("gce", {"q": 0.0}, "q"),
        ("gce", {"p": 0.5}, "p"),
        ("sce", {"alpha": -1}, "alpha"),
        ("sce", {"log_zero": 0.0}, "log_zero"),
        ("confidence-penalty", {"strength": -0.1}, "strength"),
        ("elr", {"momentum": 1.0}, "momentum"),
        ("elr", {"strength": -1.0}, "strength"),
        ("cross-entropy", {"label_smoothing": 1.5}, "label_smoothing"),
        ("forward", {}, "transition"),
    ],
)
def test_bad_settings_are_named(name, options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        ncsam.build_loss(name, samples=20, classes=4, **options)


def test_a_loss_of_ones_own_is_told_of_the_training_what_its_arguments_name(monkeypatch):
    class Mine(nn.Module):
        def __init__(self, classes, samples, transition, scale=1.0, *, beta: float = 0.5):
            super().__init__()
            self.told = classes, samples, transition, scale, beta

    class Odd(nn.Module):
        def __init__(self, sample_count):  # noqa: ARG002
            super().__init__()

    monkeypatch.setitem(ncsam.LOSSES, "mine", Mine)
    monkeypatch.setitem(ncsam.LOSSES, "odd", Odd)
    matrix = transition()
    assert ncsam.build_loss("mine", samples=3, classes=4, transition=matrix, beta=0.1).told == (
        *(4, 3, matrix),
        *(1.0, 0.1),
    )
    with pytest.raises(ValueError, match=r"^transition: loss 'mine' needs"):
        ncsam.build_loss("mine", samples=3, classes=4)
    with pytest.raises(
        ValueError, match=r"^loss: 'odd' takes 'sample_count', and can be told samples, classes"
    ):
        ncsam.build_loss("odd", samples=3, classes=4)


@pytest.mark.parametrize("name", ncsam.LOSSES)
def test_the_unit_of_a_stored_loss_is_that_of_the_training(name):
    model = network()
    loss = ncsam.build_loss(name, samples=20, classes=4, transition=transition())
    assert unit_of_stored_loss(name) == unit_of_loss(ncsam.Plain(model, loss))
    assert unit_of_stored_loss("of another's file") == ""


def test_options_are_those_of_the_signature():
    assert ncsam.loss_options("sce") == {"alpha": 0.1, "beta": 1.0, "log_zero": -4.0}


class TestMixup:
    def test_samples_and_targets_are_mixed_alike(self):
        inputs = torch.eye(6)
        targets = torch.arange(6)
        mixed, probabilities = ncsam.mixup(
            inputs, targets, classes=6, alpha=1.0, generator=torch.Generator().manual_seed(1)
        )
        torch.testing.assert_close(mixed, probabilities)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
        share = probabilities.diagonal().min()
        for i in range(6):
            values = probabilities[i][probabilities[i] > 0]
            assert len(values) == 1 or torch.allclose(
                values.sort().values, torch.stack([share, 1 - share]).sort().values
            )

    def test_its_loss_is_the_mixture_of_the_losses(self, outputs):
        logits, targets = outputs
        _, probabilities = ncsam.mixup(
            logits, targets, classes=4, alpha=1.0, generator=torch.Generator().manual_seed(0)
        )
        expected = -(probabilities * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(nn.functional.cross_entropy(logits, probabilities), expected)

    @pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
    def test_shares_follow_the_beta_distribution(self, alpha):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        shares = []
        while len(shares) < 500:
            mixed, _ = ncsam.mixup(inputs, torch.tensor([0, 1]), classes=2, alpha=alpha, generator=generator)
            if mixed[0] != inputs[0]:
                shares.append(1 - mixed[0].item())
        assert scipy.stats.kstest(shares, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("alpha", [0.0, math.inf])
    def test_bad_settings_are_named(self, alpha):
        with pytest.raises(ValueError, match="^alpha"):
            ncsam.mixup(torch.eye(2), torch.arange(2), classes=2, alpha=alpha, generator=torch.Generator())


class TestStochasticLabelNoise:
    def test_it_is_the_mean_of_minus_the_noisy_labels_times_log_p(self):
        logits, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
        indices = torch.tensor([9, 3, 4, 0, 1, 2])
        loss = ncsam.StochasticLabelNoise(10, 3, seed=4, sigma=0.7).double()
        loss.remember(logits, indices)
        expected = 0.0
        for row, (target, sample) in enumerate(zip(targets.tolist(), indices.tolist(), strict=True)):
            p = np.exp(logits[row].numpy()) / np.exp(logits[row].numpy()).sum()
            for c in range(3):
                label = float(c == target) + 0.7 * loss.noise[sample, c].item()
                expected -= label * np.log(p[c]) / 6
        assert loss(logits, targets, indices).item() == pytest.approx(expected)

    def test_the_noise_is_standard_normal_anew_at_each_step_and_the_same_within_one(self):
        loss, indices = ncsam.StochasticLabelNoise(50, 4, seed=0), torch.arange(50)
        outputs, targets = torch.zeros(50, 4), torch.zeros(50, dtype=torch.int64)
        steps = []
        for _ in range(200):
            loss.remember(outputs, indices)
            assert loss(outputs, targets, indices) == loss(outputs, targets, indices)
            steps.append(loss.noise.clone())
        drawn = torch.stack(steps)
        assert scipy.stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
        assert abs(np.corrcoef(drawn[:-1].flatten(), drawn[1:].flatten())[0, 1]) < 0.02

    def test_its_gradient_is_that_of_cross_entropy_on_average_over_the_noise(self):
        logits = torch.randn(8, 4, dtype=torch.float64).requires_grad_()
        targets, indices = torch.arange(8) % 4, torch.arange(8)
        loss = ncsam.StochasticLabelNoise(8, 4, seed=1, sigma=0.5).double()
        found = []
        for _ in range(4000):
            loss.remember(logits, indices)
            found.append(torch.autograd.grad(loss(logits, targets, indices), logits)[0])
        (exact,) = torch.autograd.grad(nn.functional.cross_entropy(logits, targets), logits)
        mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 4000**0.5
        assert ((mean - exact) / error).abs().max() < 4.5

    def test_without_noise_it_is_cross_entropy(self):
        logits, targets = torch.randn(8, 4), torch.arange(8) % 4
        loss = ncsam.build_loss("sln", samples=8, classes=4, sigma=0.0)
        loss.remember(logits, torch.arange(8))
        torch.testing.assert_close(
            loss(logits, targets, torch.arange(8)), nn.functional.cross_entropy(logits, targets)
        )

    def test_it_goes_on_from_its_state(self):
        one, other = (ncsam.StochasticLabelNoise(6, 3, seed=2) for _ in range(2))
        for _ in range(3):
            one.remember(torch.zeros(6, 3), torch.arange(6))
        other.load_state_dict(one.state_dict())
        for loss in (one, other):
            loss.remember(torch.zeros(6, 3), torch.arange(6))
        assert torch.equal(one.noise, other.noise)

    @pytest.mark.parametrize("sigma", [-1.0, float("inf")])
    def test_a_sigma_that_is_no_size_is_named(self, sigma):
        with pytest.raises(ValueError, match="^sigma: must be at least 0 and finite"):
            ncsam.build_loss("sln", samples=1, classes=2, sigma=sigma)
