"""LookSAM, WSAM, 1-SAM and SAM on clean samples, against their formulas on flat vectors."""

import copy

import pytest
import torch
from torch import nn

from ncsam import WSAM, CleanSAM, EarlyLearningRegularization, LookSAM, OneSAM, Plain
from ncsam.epoch import optimizer_step
from tests.ncsam.small_network import batch, gradient_at, grads, loss_fn, network, shifted, weights_of

RHO = 0.3


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def gradient(model, inputs, targets, vector=None):
    """The flat gradient of the mean loss at w, or at w + vector."""
    weights = weights_of(model)
    if vector is not None:
        parts = vector.split([w.numel() for w in weights.values()])
        weights = shifted(weights, [p.view_as(w) for p, w in zip(parts, weights.values(), strict=True)])
    return flat(gradient_at(model, weights, inputs, targets))


def sharp_gradient(model, inputs, targets):
    g = gradient(model, inputs, targets)
    return g, gradient(model, inputs, targets, RHO * g / g.norm())


def step(model, direction, rate=0.1):
    """Plain gradient descent by hand."""
    start = 0
    with torch.no_grad():
        for p in model.parameters():
            p -= rate * direction[start : start + p.numel()].view_as(p)
            start += p.numel()


def followed(method, model, directions):
    """Takes the steps of a method, and of the same network by hand; both must stay together."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, direction in enumerate(directions):
        inputs, targets = batch(seed=number)
        optimizer.zero_grad()
        method.backward(inputs, targets, torch.arange(16))
        by_hand = direction(twin, inputs, targets)
        torch.testing.assert_close(flat(grads(model)), by_hand, rtol=1e-9, atol=1e-12)
        optimizer.step()
        step(twin, by_hand)
    torch.testing.assert_close(flat(model.parameters()), flat(twin.parameters()), rtol=1e-9, atol=1e-12)


def test_looksam_takes_sams_gradient_every_third_step_and_adds_its_orthogonal_part_in_between():
    kept = {}

    def sam_step(model, inputs, targets):
        g, sharp = sharp_gradient(model, inputs, targets)
        cosine = (g @ sharp) / (g.norm() * sharp.norm())
        kept["v"] = sharp - sharp.norm() * cosine * g / g.norm()
        assert abs(kept["v"] @ g) < 1e-12
        return sharp

    def step_between(model, inputs, targets):
        g = gradient(model, inputs, targets)
        return g + 0.7 * g.norm() / kept["v"].norm() * kept["v"]

    model = network()
    method = LookSAM(model, loss_fn, rho=RHO, every=3)
    followed(method, model, [sam_step, step_between, step_between, sam_step, step_between])
    assert method.gradient_count == 2 + 1 + 1 + 2 + 1


def test_looksam_goes_on_from_its_checkpoint():
    model = network()
    method, again = (LookSAM(model, loss_fn, rho=RHO, every=3) for _ in range(2))
    method.backward(*batch())
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    found = []
    for each in (method, again):
        model.zero_grad()
        each.backward(*batch(seed=1))
        found.append(flat(grads(model)))
    assert torch.equal(*found)
    assert not torch.equal(found[0], gradient(model, *batch(seed=1)))


def test_looksam_keeps_nothing_of_a_step_that_overflowed():
    model = network()
    method = LookSAM(model, loss_fn, rho=RHO, every=3)
    inputs, targets = batch()
    method.backward(inputs * float("inf"), targets)
    model.zero_grad()
    # there is nothing to add, so that the next step is one of SAM
    _, sharp = sharp_gradient(copy.deepcopy(model), inputs, targets)
    method.backward(inputs, targets)
    torch.testing.assert_close(flat(grads(model)), sharp, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
def test_wsam_weights_the_sharpness(gamma):
    def direction(model, inputs, targets):
        g, sharp = sharp_gradient(model, inputs, targets)
        return g + gamma / (1 - gamma) * (sharp - g)

    model = network()
    followed(WSAM(model, loss_fn, rho=RHO, gamma=gamma), model, [direction, direction])


def test_1_sam_perturbs_each_sample_by_its_own_gradient():
    def direction(model, inputs, targets):
        return torch.stack(
            [sharp_gradient(model, x[None], y[None])[1] for x, y in zip(inputs, targets, strict=True)]
        ).mean(0)

    model = network()
    followed(OneSAM(model, loss_fn, rho=RHO), model, [direction, direction])


def test_1_sam_cuts_a_batch_into_pieces_without_changing_the_gradient(monkeypatch):
    whole, cut = network(), network()
    loss = OneSAM(whole, loss_fn, rho=RHO).backward(*batch())
    monkeypatch.setattr("ncsam.methods.one_sam.MOST_NUMBERS", 5 * sum(p.numel() for p in cut.parameters()))
    method = OneSAM(cut, loss_fn, rho=RHO)
    torch.testing.assert_close(method.backward(*batch()), loss)
    torch.testing.assert_close(flat(grads(cut)), flat(grads(whole)))
    torch.testing.assert_close(loss, loss_fn(whole(batch()[0]), batch()[1]).detach())
    # and an ordinary pass over one sample, which finds the weights that the loss reaches
    assert method.gradient_count == 2 + 1 / 16


def test_1_sam_takes_parameters_of_no_dimension_and_of_no_entry():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network()
            self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
            self.empty = nn.Parameter(torch.zeros(0, 4, dtype=torch.float64))

        def forward(self, x):
            return self.layers(x) * self.scale + self.empty.sum()

    def direction(model, inputs, targets):
        pairs = zip(inputs, targets, strict=True)
        return torch.stack([sharp_gradient(model, x[None], y[None])[1] for x, y in pairs]).mean(0)

    model = Scaled()
    followed(OneSAM(model, loss_fn, rho=RHO), model, [direction])


def test_1_sam_leaves_a_weight_alone_that_the_loss_does_not_reach():
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    OneSAM(model, loss_fn, rho=RHO).backward(*batch())
    assert model.unused.grad is None


def test_1_sam_refuses_what_mixes_samples():
    with pytest.raises(ValueError, match="^model: has BatchNorm"):
        OneSAM(network(batch_norm=True), loss_fn, rho=RHO)
    with pytest.raises(ValueError, match="^loss_fn: EarlyLearningRegularization remembers"):
        OneSAM(network(), EarlyLearningRegularization(16, 4), rho=RHO)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(weight=torch.ones(4).double()), nn.CrossEntropyLoss(reduction="sum")]
)
def test_1_sam_refuses_a_loss_in_which_samples_do_not_count_alike(loss):
    with pytest.raises(ValueError, match="^loss_fn: CrossEntropyLoss weighs classes or is a sum"):
        OneSAM(network(), loss, rho=RHO)


def test_1_sam_refuses_a_loss_that_is_no_mean_each_time():
    method = OneSAM(network(), lambda outputs, targets: loss_fn(outputs, targets) * len(targets), rho=RHO)
    for _ in range(2):
        with pytest.raises(ValueError, match="^loss_fn: "):
            method.backward(*batch())


def test_1_sam_takes_a_loss_that_draws():
    method = OneSAM(network(), lambda outputs, targets: loss_fn(outputs + torch.randn(4), targets), rho=RHO)
    assert torch.isfinite(method.backward(*batch()))


def test_1_sam_refuses_a_label_that_the_loss_ignores():
    inputs, targets = batch()
    targets[3] = -100
    with pytest.raises(ValueError, match="^targets: has the label -100 that the loss ignores"):
        OneSAM(network(), loss_fn, rho=RHO).backward(inputs, targets)


CLEAN = batch(seed=5)[1]


@pytest.mark.parametrize("descent", ["clean", "all"])
def test_clean_sam_takes_only_rightly_labeled_samples(descent):
    def direction(model, inputs, targets):
        right = targets == CLEAN
        assert 0 < right.sum() < 16
        g = gradient(model, inputs[right], targets[right])
        part = right if descent == "clean" else torch.ones_like(right)
        return gradient(model, inputs[part], targets[part], RHO * g / g.norm())

    model = network()
    followed(
        CleanSAM(model, loss_fn, rho=RHO, clean_targets=CLEAN, descent=descent), model, [direction, direction]
    )


@pytest.mark.parametrize("descent", ["clean", "all"])
def test_clean_sam_without_a_clean_sample(descent):
    model, plain = network(), network()
    inputs, _ = batch()
    wrong = (CLEAN + 1) % 4
    CleanSAM(model, loss_fn, rho=RHO, clean_targets=CLEAN, descent=descent).backward(
        inputs, wrong, torch.arange(16)
    )
    if descent == "clean":
        assert all(g is None for g in grads(model))
    else:
        Plain(plain, loss_fn).backward(inputs, wrong)
        assert torch.equal(flat(grads(model)), flat(grads(plain)))


@pytest.mark.parametrize("descent", ["clean", "all"])
def test_clean_sam_takes_a_single_clean_sample_for_none_where_batch_norm_cannot_take_it(descent):
    model, plain = network(batch_norm=True), network(batch_norm=True)
    inputs, _ = batch()
    labels = (CLEAN + 1) % 4
    labels[3] = CLEAN[3]
    method = CleanSAM(model, loss_fn, rho=RHO, clean_targets=CLEAN, descent=descent)
    method.backward(inputs, labels, torch.arange(16))
    if descent == "clean":
        assert all(g is None for g in grads(model))
    else:
        Plain(plain, loss_fn).backward(inputs, labels)
        assert torch.equal(flat(grads(model)), flat(grads(plain)))


def test_a_batch_without_a_gradient_is_no_step_under_a_scaler():
    model = network()
    method = CleanSAM(model, loss_fn, rho=RHO, clean_targets=CLEAN)
    method.passes.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = flat(model.parameters()).clone()
    method.backward(batch()[0], (CLEAN + 1) % 4, torch.arange(16))
    optimizer_step(method, optimizer, max_gradient_norm=1.0)
    assert torch.equal(flat(model.parameters()), before)
    method.backward(batch()[0], CLEAN, torch.arange(16))
    optimizer_step(method, optimizer, max_gradient_norm=1.0)
    assert not torch.equal(flat(model.parameters()), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: LookSAM(m, loss_fn, rho=RHO, every=0), "^every: must be at least 1"),
        (lambda m: LookSAM(m, loss_fn, rho=RHO, alpha=-1), "^alpha"),
        (lambda m: WSAM(m, loss_fn, rho=RHO, gamma=1), "^gamma: must be at least 0 and below 1"),
        (lambda m: CleanSAM(m, loss_fn, rho=RHO, clean_targets=CLEAN, descent="both"), "^descent"),
        (lambda m: CleanSAM(m, loss_fn, rho=RHO, clean_targets=CLEAN).backward(*batch()), "^indices"),
    ],
)
def test_what_cannot_be_done_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(network())
