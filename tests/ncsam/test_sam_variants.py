"""The variants of SAM against their formulas, and against pytorch-optimizer where it has the same method."""

import copy
import weakref
from functools import partial

import pytest
import pytorch_optimizer
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ncsam import ASAM, BSAM, GSAM, SAM, SANER, ClusterNCSAM, FriendlySAM, LookSAM
from ncsam.methods.cluster_ncsam import cluster, cluster_flip_rates
from ncsam.methods.last_features import LastFeatures
from tests.ncsam import small_network as small


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def like(vector, tensors):
    return [
        part.view_as(t) for part, t in zip(vector.split([t.numel() for t in tensors]), tensors, strict=True)
    ]


@pytest.fixture
def step():
    """A model, its batch, weights, gradient at w, and the gradient at w plus a vector."""
    model = small.network()
    inputs, targets = small.batch()
    weights = small.weights_of(model)
    g = small.gradient_at(model, weights, inputs, targets)

    def at(vector):
        return flat(small.gradient_at(model, small.shifted(weights, like(vector, g)), inputs, targets))

    return model, inputs, targets, weights, flat(g), at


@pytest.mark.parametrize("normalization", ["elementwise", "filterwise"])
def test_asam_perturbs_in_a_ball_scaled_by_the_weights(step, normalization):
    model, inputs, targets, weights, g, at = step
    scales = []
    for name, w in weights.items():
        if "weight" not in name:
            scales.append(torch.ones_like(w))
        elif normalization == "elementwise":
            scales.append(w.abs() + 0.01)
        else:
            scales.append((w.norm(dim=1, keepdim=True) + 0.01).expand_as(w))
    t = flat(scales)
    truth = at(0.3 * t**2 * g / (t * g).norm())
    ASAM(model, small.loss_fn, rho=0.3, normalization=normalization).backward(inputs, targets)
    small.assert_same([flat(small.grads(model))], [truth])


def test_gsam_takes_off_the_part_of_g_that_is_orthogonal_to_the_perturbed_gradient(step):
    model, inputs, targets, _, g, at = step
    sharp = at(0.3 * g / g.norm())
    orthogonal = g - (g @ sharp) / (sharp @ sharp) * sharp
    assert abs(orthogonal @ sharp) < 1e-12
    GSAM(model, small.loss_fn, rho=0.3, alpha=0.7).backward(inputs, targets)
    small.assert_same([flat(small.grads(model))], [sharp - 0.7 * orthogonal])


def test_friendly_sam_perturbs_along_what_the_average_of_earlier_gradients_lacks(step):
    model, inputs, targets, _, g, at = step
    method = FriendlySAM(model, small.loss_fn, rho=0.3, sigma=0.8, momentum=0.6)
    method.backward(inputs, targets)
    small.assert_same([flat(small.grads(model))], [at(0.3 * g / g.norm())])
    model.zero_grad()
    others = small.batch(seed=1)
    h = flat(small.gradient_at(model, small.weights_of(model), *others))
    d = h - 0.8 * g
    method.backward(*others)
    small.assert_same([flat(method.ascent.perturbation)], [0.3 * d / d.norm()])
    small.assert_same([flat(method.average.tensors)], [0.6 * g + 0.4 * h])


def test_friendly_sam_goes_on_from_its_checkpoint():
    model = small.network()
    method = FriendlySAM(model, small.loss_fn, rho=0.3)
    method.backward(*small.batch())
    again = FriendlySAM(model, small.loss_fn, rho=0.3)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    for m in (method, again):
        m.backward(*small.batch(seed=1))
    small.assert_same(method.ascent.perturbation, again.ascent.perturbation)


def three_layers():
    """A network of two inner layers of one shape."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4)]
    return nn.Sequential(*layers).double()


def flat_of(model, seed):
    """The gradient of a batch in the parameters that require one, by their names."""
    found = small.gradient_at(model, small.weights_of(model), *small.batch(seed=seed))
    named = zip(model.named_parameters(), found, strict=True)
    return {name: gradient for (name, parameter), gradient in named if parameter.requires_grad}


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("unfreezes", [False, True])
def test_friendly_sam_keeps_the_average_of_each_parameter_when_layers_are_frozen(resumes, unfreezes):
    model = three_layers()
    model[2].requires_grad_(not unfreezes)
    method = FriendlySAM(model, small.loss_fn, rho=0.3, sigma=0.8, momentum=0.6)
    g = flat_of(model, 0)
    method.backward(*small.batch())
    if resumes:
        state = copy.deepcopy(method.state_dict())
        method = FriendlySAM(model, small.loss_fn, rho=0.3, sigma=0.8, momentum=0.6)
        method.load_state_dict(state)
    model[0].requires_grad_(False)
    model[2].requires_grad_(True)
    h = flat_of(model, 1)
    method.backward(*small.batch(seed=1))
    direction = flat([h[name] - 0.8 * g[name] if name in g else h[name] for name in h])
    assert ("2.weight" in g) != unfreezes
    small.assert_same([flat(method.ascent.perturbation)], [0.3 * direction / direction.norm()])
    expected = [0.6 * g[name] + 0.4 * h[name] if name in g else h[name] for name in h]
    small.assert_same(method.average.tensors, expected)


@pytest.mark.parametrize("replaces", [False, True], ids=["frozen", "replaced"])
@pytest.mark.parametrize("resumes", [False, True])
def test_looksam_looks_again_after_layers_were_frozen_or_replaced(resumes, replaces):
    model = three_layers()
    model[2].requires_grad_(False)
    method = LookSAM(model, small.loss_fn, rho=0.3)
    method.backward(*small.batch())
    if resumes and not replaces:
        state = copy.deepcopy(method.state_dict())
        method = LookSAM(model, small.loss_fn, rho=0.3)
        method.load_state_dict(state)
    if replaces:
        model[0] = nn.Linear(5, 5).double()
    else:
        model[0].requires_grad_(False)
        model[2].requires_grad_(True)
    fresh = SAM(copy.deepcopy(model), small.loss_fn, rho=0.3)
    for each in (method, fresh):
        each.model.zero_grad()
        each.backward(*small.batch(seed=1))
    wanted = [p.grad for p in model.parameters() if p.requires_grad]
    small.assert_same(wanted, [p.grad for p in fresh.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("kind", [FriendlySAM, LookSAM])
def test_checkpoints_of_earlier_versions_hold_lists_in_the_order_of_the_parameters(kind):
    model = three_layers()
    method, again = (kind(model, small.loss_fn, rho=0.3) for _ in range(2))
    method.backward(*small.batch())
    state = copy.deepcopy(method.state_dict())
    key = "average" if kind is FriendlySAM else "kept"
    state[key] = list(state[key].values())
    again.load_state_dict(copy.deepcopy(state))
    found = []
    for each in (method, again):
        model.zero_grad()
        each.backward(*small.batch(seed=1))
        found.append(small.grads(model))
    small.assert_same(*found)
    later = kind(model, small.loss_fn, rho=0.3)
    later.load_state_dict(state)
    model[0].requires_grad_(False)
    with pytest.raises(
        ValueError, match="^model: other parameters require a gradient than in the checkpoint"
    ):
        later.backward(*small.batch(seed=1))


@pytest.mark.parametrize("first", [0.3, 0.1])
@pytest.mark.parametrize("rho_min", [None, 0.1])
def test_bsam_adds_the_uphill_gradient_and_takes_off_the_downhill_one(step, rho_min, first):
    """By the radius that it has now: a schedule may have moved the first one."""
    model, inputs, targets, _, g, at = step
    uphill = at(0.3 * g / g.norm())
    downhill = at(-(rho_min or 0.3) * g / g.norm())
    method = BSAM(model, small.loss_fn, rho=first, rho_min=rho_min)
    method.rho = 0.3
    method.backward(inputs, targets)
    small.assert_same([flat(small.grads(model))], [uphill + g - uphill.norm() / downhill.norm() * downhill])
    assert method.gradient_count == 3


def test_saner_damps_the_entries_that_sam_shrank(step):
    model, inputs, targets, _, g, at = step
    sharp = at(0.3 * g / g.norm())
    ratio = sharp / g
    truth = torch.where((ratio > 0) & (ratio < 1), 0.5 * sharp, sharp)
    assert 0 < ((ratio > 0) & (ratio < 1)).sum() < len(g)
    SANER(model, small.loss_fn, rho=0.3).backward(inputs, targets)
    small.assert_same([flat(small.grads(model))], [truth])


HEADED = ("body head", "head body", "body head unused")


class Headed(nn.Module):
    """A body and a head, registered in some order."""

    def __init__(self, order, checkpoints=False):
        super().__init__()
        torch.manual_seed(0)
        layers = {"body": nn.Linear(5, 6), "head": nn.Linear(6, 4), "unused": nn.Linear(3, 3)}
        for name in order.split():
            self.add_module(name, layers[name].double())
        self.checkpoints = checkpoints

    def forward(self, x):
        run = partial(checkpoint, use_reentrant=False) if self.checkpoints else lambda part, x: part(x)
        return run(lambda x: self.head(torch.tanh(self.body(x))), x)


class Twice(Headed):
    """Its head sees each sample twice."""

    def __init__(self):
        super().__init__("body head")

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.cat([x, -x])))).unflatten(0, (2, -1)).mean(0)


class TestClusterNCSAM:
    def test_k_means_finds_groups_that_lie_apart(self):
        centers = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
        truth = torch.arange(60) % 3
        noise = 0.05 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        found = [cluster(centers[truth] + noise, 3, torch.Generator().manual_seed(s)) for s in range(10)]
        # Lloyd's iteration may end in a worse optimum from some starts
        assert any(
            all(len(f[truth == k].unique()) == 1 for k in range(3)) and len(f.unique()) == 3 for f in found
        )
        assert torch.equal(found[0], cluster(centers[truth] + noise, 3, torch.Generator().manual_seed(0)))

    def test_flip_rates_are_one_less_the_mean_gap_over_the_largest(self):
        rates = cluster_flip_rates(
            torch.tensor([1.0, 3.0, 0.0, 0.0, 2.0]), torch.tensor([0, 0, 1, 1, 2]), 4, largest=0.4
        )
        torch.testing.assert_close(rates, torch.tensor([0.4 / 3, 0.4 / 3, 0.0, 0.0, 0.0]))

    def test_the_simulated_gradient_is_that_of_the_samples_whose_label_changed(self):
        model = small.network()
        inputs, targets = small.batch()
        method = ClusterNCSAM(
            model, small.loss_fn, rho=0.3, flip_ratio=1.0, strength=0.5, warmup=0.0, clusters=2
        )
        method.progress = 1.0
        method.backward(inputs, targets)
        found = method.ascent.compensation
        assert (found.temporary_targets != targets[found.drawn]).all()
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(model(inputs[found.drawn]), found.temporary_targets)
        small.assert_same(found.gradient, torch.autograd.grad(loss, list(model.parameters())))
        to_rho = [0.3 * t / flat(method.ascent.gradient).norm() for t in method.ascent.gradient]
        small.assert_same(
            method.ascent.perturbation, [a + 0.5 * b for a, b in zip(to_rho, found.gradient, strict=True)]
        )

    def test_features_are_those_of_the_layer_that_runs_last_wherever_it_is_registered(self):
        inputs, targets = small.batch()
        found = [self.gradient_of(Headed(order), inputs, targets) for order in HEADED]
        for gradient in found[1:]:
            small.assert_same(gradient, found[0])

    def test_a_compiled_model_that_ran_before_has_the_features_of_its_batch(self):
        inputs, targets = small.batch()
        compiled = torch.compile(Headed("body head"), backend="eager")
        compiled(inputs)
        expected = self.gradient_of(Headed("body head"), inputs, targets)
        small.assert_same(self.gradient_of(compiled, inputs, targets), expected)

    def test_checkpointed_layers_that_run_again_are_no_features(self):
        inputs, targets = small.batch()
        checkpointed = Headed("body head", checkpoints=True)
        expected = self.gradient_of(Headed("body head"), inputs, targets)
        small.assert_same(self.gradient_of(checkpointed, inputs, targets), expected)

    def test_inputs_of_earlier_layers_of_a_pass_are_let_go(self):
        features = LastFeatures(Headed("body head"))
        early = torch.ones(16, 5)
        still_held = weakref.ref(early)
        with features.noted():
            features.begin()
            features.note(0, early)
            del early
            features.note(1, torch.ones(16, 6))
            assert still_held() is None

    def test_a_last_layer_without_a_row_for_each_sample_is_refused(self):
        with pytest.raises(ValueError, match=r"^model: ClusterNCSAM clusters .* 32 rows for 16 samples"):
            self.gradient_of(Twice(), *small.batch())

    def gradient_of(self, model, inputs, targets):
        method = ClusterNCSAM(model, small.loss_fn, rho=0.3, flip_ratio=0.9, strength=0.5, warmup=0.0)
        method.progress = 1.0
        method.backward(inputs, targets)
        named = dict(method.passes.module.named_parameters())
        return [named[name].grad for name in sorted(named) if "unused" not in name]

    def test_a_model_without_a_linear_layer_is_refused(self):
        with pytest.raises(ValueError, match="^model"):
            ClusterNCSAM(nn.Conv2d(1, 2, 3), small.loss_fn, rho=0.3, flip_ratio=0.2, strength=0.5)


class TestBesidePytorchOptimizer:
    """Eight steps of SGD with momentum from the same weights.

    Its `BSAM` is another method, the Bayesian SAM of Möllenhoff and Khan (2023), so it is not compared; its
    adaptive SAM scales biases too and has no eta, so that ASAM agrees on a network without biases with eta 0.
    It takes gradient norms in float32, and so agrees to float32's rounding, a few times over in eight steps.
    """

    def followed(self, ours, theirs_step, model, twin):
        start = flat(model.parameters()).detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-2)
        for seed in range(8):
            inputs, targets = small.batch(seed)
            optimizer.zero_grad()
            ours.backward(inputs, targets)
            optimizer.step()
            theirs_step(inputs, targets)
        assert (flat(model.parameters()) - start).abs().max() > 0.1
        torch.testing.assert_close(flat(model.parameters()), flat(twin.parameters()), rtol=1e-6, atol=1e-6)

    def closure(self, optimizer, model, inputs, targets):
        def gradients():
            optimizer.zero_grad()
            loss = small.loss_fn(model(inputs), targets)
            loss.backward()
            return loss

        return gradients

    @pytest.mark.parametrize("name", ["sam", "friendly-sam", "asam"])
    def test_sam_friendly_sam_and_asam_agree(self, name):
        model = small.network()
        if name == "asam":
            for layer in (model[0], model[2]):
                layer.bias = None
        twin = copy.deepcopy(model)
        settings = {"lr": 0.2, "momentum": 0.9, "weight_decay": 1e-2, "rho": 0.3}
        if name == "sam":
            ours = SAM(model, small.loss_fn, rho=0.3)
            theirs = pytorch_optimizer.SAM(twin.parameters(), torch.optim.SGD, **settings)
        elif name == "asam":
            ours = ASAM(model, small.loss_fn, rho=0.3, eta=0.0)
            theirs = pytorch_optimizer.SAM(twin.parameters(), torch.optim.SGD, adaptive=True, **settings)
        else:
            ours = FriendlySAM(model, small.loss_fn, rho=0.3, sigma=0.9, momentum=0.7)
            theirs = pytorch_optimizer.FriendlySAM(
                twin.parameters(), torch.optim.SGD, sigma=0.9, lmbda=0.7, **settings
            )

        def step(inputs, targets):
            gradients = self.closure(theirs, twin, inputs, targets)
            gradients()
            theirs.step(gradients)

        self.followed(ours, step, model, twin)

    def test_gsam_agrees(self):
        class Constant:
            def step(self):
                return 0.3

        model = small.network()
        twin = copy.deepcopy(model)
        base = torch.optim.SGD(twin.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-2)
        theirs = pytorch_optimizer.GSAM(twin.parameters(), base, twin, Constant(), alpha=0.4)

        def step(inputs, targets):
            theirs.set_closure(small.loss_fn, inputs, targets)
            theirs.step()

        self.followed(GSAM(model, small.loss_fn, rho=0.3, alpha=0.4), step, model, twin)
