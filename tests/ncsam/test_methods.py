import copy
import itertools

import pytest
import torch
from torch import nn

from ncsam import (
    NCSAM,
    SAM,
    Plain,
    build_method,
    hyperparameters,
)
from ncsam.methods.tensor_lists import norm, project_onto_ball, scaled_to
from tests.ncsam import small_network as small


@pytest.mark.parametrize("name", small.METHODS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_weights_end_as_they_were_and_batch_norm_statistics_move_once(name, batch_norm):
    model = small.network(batch_norm)
    method = small.METHODS[name](model)
    method.progress = 0.8
    inputs, targets = small.batch()
    before = small.weights_of(model)
    once = copy.deepcopy(model)
    loss = method.backward(inputs, targets, torch.arange(16))
    with torch.no_grad():
        expected = small.loss_fn(once(inputs), targets)
    torch.testing.assert_close(loss, expected)
    assert not loss.requires_grad
    for name_, weight in model.named_parameters():
        assert torch.equal(weight, before[name_])
    for statistic, moved_once in zip(model.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(statistic, moved_once)


@pytest.mark.parametrize("name", small.METHODS)
def test_gradients_accumulate_as_those_of_loss_backward_do(name):
    model = small.network()
    method = small.METHODS[name](model)
    method.progress = 0.8
    inputs, targets = small.batch()
    method.backward(inputs, targets, torch.arange(16))
    single = [g.clone() for g in small.grads(model)]
    state = method.state_dict()
    method = small.METHODS[name](model)
    method.progress = 0.8
    method.backward(inputs, targets, torch.arange(16))
    small.assert_same(small.grads(model), [2 * g for g in single])
    assert state["gradient_count"] == method.gradient_count


@pytest.mark.parametrize("name", ["sam", "ncsam", "oracle", "bsam"])
def test_weights_are_put_back_when_the_second_pass_fails(name):
    model = small.network(batch_norm=True)
    # what an iterator keeps is not put back between passes
    calls = itertools.count(1)

    def failing(outputs, targets):
        if next(calls) == {"sam": 2, "ncsam": 3, "oracle": 3, "bsam": 3}[name]:
            raise RuntimeError("out of memory")
        return small.loss_fn(outputs, targets)

    method = small.METHODS[name](model)
    method.passes.loss_fn = failing
    method.progress = 0.8
    before = small.weights_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        method.backward(*small.batch(), torch.arange(16))
    assert all(torch.equal(w, before[n]) for n, w in model.named_parameters())
    assert model[1].track_running_stats


def test_sam_is_the_gradient_at_w_plus_rho_g_over_its_norm():
    model = small.network()
    inputs, targets = small.batch()
    weights = small.weights_of(model)
    g = small.gradient_at(model, weights, inputs, targets)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    truth = small.gradient_at(model, small.shifted(weights, [0.3 * t / length for t in g]), inputs, targets)
    SAM(model, small.loss_fn, rho=0.3).backward(inputs, targets)
    small.assert_same(small.grads(model), truth)


def test_the_oracle_perturbs_with_true_labels_and_descends_with_observed_ones():
    model = small.network()
    inputs, observed = small.batch()
    clean = small.batch(seed=5)[1]
    weights = small.weights_of(model)
    g = small.gradient_at(model, weights, inputs, clean)
    length = torch.sqrt(sum(t.square().sum() for t in g))
    truth = small.gradient_at(model, small.shifted(weights, [0.3 * t / length for t in g]), inputs, observed)
    small.METHODS["oracle"](model).backward(inputs, observed, torch.arange(16))
    small.assert_same(small.grads(model), truth)


@pytest.mark.parametrize("name", [name for name in small.METHODS if name not in ("plain", "cluster-ncsam")])
def test_a_radius_of_zero_is_exactly_plain(name):
    model, plain = small.network(batch_norm=True), small.network(batch_norm=True)
    method = small.METHODS[name](model)
    method.rho = 0
    method.progress = 1.0
    method.backward(*small.batch(), torch.arange(16))
    Plain(plain, small.loss_fn).backward(*small.batch())
    assert all(torch.equal(a, b) for a, b in zip(small.grads(model), small.grads(plain), strict=True))
    assert method.gradient_count == 1


@pytest.mark.parametrize("name", small.METHODS)
def test_all_zero_gradients_stay_zero(name):
    model = nn.Sequential(nn.Linear(5, 4)).double()
    method = small.METHODS[name](model)
    method.passes.loss_fn = lambda outputs, _: (outputs * 0).mean()
    method.progress = 1.0
    method.backward(*small.batch(), torch.arange(16))
    assert all((g == 0).all() for g in small.grads(model))


@pytest.mark.parametrize(("length", "result"), [(2.0, 1.0), (1.0, 1.0), (0.4, 0.4), (0.0, 0.0)])
def test_the_projection_shortens_what_is_longer_and_leaves_the_rest(length, result):
    tensors = [torch.tensor([0.6, 0.0]) * length, torch.tensor([[0.8]]) * length]
    before = [tensor.clone() for tensor in tensors]
    longer = project_onto_ball(tensors, 1.0)
    assert norm(tensors).item() == pytest.approx(result)
    assert bool(longer) == (length > 1)
    if length <= 1:
        assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_the_projection_of_half_precision_measures_squares_that_half_precision_cannot_hold():
    tensors = [torch.full((2,), 300.0, dtype=torch.float16)]
    assert bool(project_onto_ball(tensors, 1.0))
    assert tensors[0].dtype == torch.float16
    assert norm(tensors).item() == pytest.approx(1.0, rel=1e-3)


def test_a_zero_gradient_gives_a_zero_perturbation():
    assert torch.equal(scaled_to([torch.zeros(3)], 0.5)[0], torch.zeros(3))


@pytest.mark.parametrize("name", ["sam", "ncsam"])
@pytest.mark.parametrize(("optimizer", "learning_rate"), [(torch.optim.SGD, 0.5), (torch.optim.AdamW, 0.05)])
def test_any_optimizer_scheduler_and_clipping_learn_with_it(name, optimizer, learning_rate):
    model = small.network()
    method = small.METHODS[name](model)
    method.progress = 1.0
    steps = optimizer(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(steps, total_iters=20)
    inputs, targets = small.batch()
    first = small.loss_fn(model(inputs), targets).item()
    for _ in range(60):
        steps.zero_grad()
        method.backward(inputs, targets)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        schedule.step()
    assert small.loss_fn(model(inputs), targets).item() < 0.7 * first


def test_a_parameter_the_loss_does_not_reach_is_left_alone():
    model = small.network()
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    SAM(model, small.loss_fn, rho=0.1).backward(*small.batch())
    assert torch.equal(model.unused, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("sam", {"rho": -0.1}, "rho"),
        ("asam", {"rho": 0.1, "eta": -1}, "eta"),
        ("asam", {"rho": 0.1, "normalization": "layer"}, "normalization"),
        ("gsam", {"rho": 0.1, "alpha": -1}, "alpha"),
        ("friendly-sam", {"rho": 0.1, "sigma": -1}, "sigma"),
        ("friendly-sam", {"rho": 0.1, "momentum": 1}, "momentum"),
        ("bsam", {"rho": 0.1, "rho_min": -1}, "rho_min"),
        ("saner", {"rho": 0.1, "alpha": 2}, "alpha"),
        ("cluster-ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "clusters": 0}, "clusters"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "draw": "high"}, "draw"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "labels": "third"}, "labels"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "direction": "up"}, "direction"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "schedule": "cosine"}, "schedule"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "warmup_with": "adam"}, "warmup_with"),
        ("ncsam", {"rho": 0.1, "flip_ratio": 0.2, "strength": 1, "label_smoothing": 2}, "label_smoothing"),
        ("co-teaching", {"forget_rate": 0.4}, "peer"),
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
        build_method(name, small.network(), small.loss_fn, seed=0, clean_targets=torch.zeros(1), **settings)


def test_hyperparameters_are_those_of_the_signature():
    assert list(hyperparameters("friendly-sam")) == ["rho", "warmup", "sigma", "momentum"]
    assert "seed" not in hyperparameters("ncsam")


def test_the_oracle_needs_the_samples_positions():
    with pytest.raises(ValueError, match="^indices"):
        small.METHODS["oracle"](small.network()).backward(*small.batch())


def test_what_is_no_model_or_loss_is_named():
    with pytest.raises(TypeError, match="model: must be a torch.nn.Module, got generator"):
        SAM(small.network().parameters(), torch.optim.SGD, rho=0.05)
    with pytest.raises(TypeError, match="loss_fn: .* got str; build_loss"):
        SAM(small.network(), "gce", rho=0.05)


def test_progress_is_a_share_not_the_number_of_the_epoch():
    method = NCSAM(small.network(), small.loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1)
    with pytest.raises(
        ValueError, match="progress: must be a share in .0, 1., such as epoch / epochs, got 5"
    ):
        method.progress = 5
    assert method.progress is None


class _Named(nn.Module):
    """As Hugging Face's models: outputs by name."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs):
        return {"logits": self.linear(inputs)}


def test_outputs_by_name_are_refused_with_the_remedy():
    inputs, targets = torch.randn(6, 4), torch.arange(6) % 3
    with pytest.raises(
        ValueError, match=r"loss_fn: fails .* model's dict as it is.*model\(inputs\)\['logits'\]"
    ):
        SAM(_Named(), small.loss_fn, rho=0.1).backward(inputs, targets)


def test_losses_targets_and_models_that_do_not_fit_are_named():
    inputs, targets = torch.randn(6, 4), torch.arange(6) % 3
    each = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match=r"loss_fn: must return a scalar.* got shape \(6,\)"):
        SAM(nn.Linear(4, 3), each, rho=0.1).backward(inputs, targets)
    with pytest.raises(ValueError, match="targets: 5 for 6 inputs"):
        SAM(nn.Linear(4, 3), small.loss_fn, rho=0.1).backward(inputs, targets[:5])
    with pytest.raises(ValueError, match="model: none of its parameters requires a gradient"):
        SAM(nn.Linear(4, 3).requires_grad_(False), small.loss_fn, rho=0.1).backward(inputs, targets)


@pytest.mark.parametrize(
    ("former", "requirement"),
    [
        ("needs_peer", "peer"),
        ("needs_one_process", "one_process"),
        ("mixes_inputs", "mixable_inputs"),
        ("needs_classes", "classes"),
    ],
)
def test_a_requirement_declared_in_the_former_way_is_refused_with_the_new_one(former, requirement):
    with pytest.raises(TypeError, match=rf"^Own\.{former}: declare .*Requirements\({requirement}=True\)"):
        type("Own", (SAM,), {former: True})


def test_a_method_prints_the_settings_that_it_was_given():
    method = NCSAM(torch.nn.Linear(2, 2), torch.nn.CrossEntropyLoss(), rho=0.2, flip_ratio=0.4, strength=0.1)
    assert repr(method) == "NCSAM(rho=0.2, flip_ratio=0.4, strength=0.1)"
