"""Trainings that once went wrong without a word: each is right, or refused with its cause."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from ncsam import ASAM, GSAM, NCSAM, SAM, SANER, FriendlySAM, OneSAM, Plain, Split, fit, human_labels

cross_entropy = nn.CrossEntropyLoss()


def batch(count=16):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *layers, nn.Tanh(), nn.Linear(8, 3))


class OwnBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.ones(8))

    def forward(self, x):
        return nn.functional.batch_norm(x, self.mean, self.variance, None, None, self.training, 0.1, 1e-5)


class Centered(nn.Module):
    """As DINO's center, or a codebook; by a write, or by a new tensor."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training and self.writes:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        elif self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


STATEFUL = {
    "BatchNorm": lambda: network(nn.BatchNorm1d(8)),
    "own BatchNorm": lambda: network(OwnBatchNorm()),
    "written center": lambda: network(Centered(writes=True)),
    "new center": lambda: network(Centered(writes=False)),
    "spectral norm": lambda: network(parametrizations.spectral_norm(nn.Linear(8, 8))),
    "InstanceNorm": lambda: network(
        nn.Unflatten(1, (4, 2)), nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten()
    ),
    "scripted": lambda: torch.jit.script(network(nn.BatchNorm1d(8))),
}
METHODS = {
    "SAM": lambda model: SAM(model, cross_entropy, rho=0.5),
    "GSAM": lambda model: GSAM(model, cross_entropy, rho=0.5),
    "NCSAM": lambda model: NCSAM(model, cross_entropy, rho=0.5, flip_ratio=0.4, strength=1.0, warmup=0.0),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", STATEFUL)
def test_every_buffer_moves_once_a_step(model, method):
    """davda54/sam#17: at the perturbed weights statistics moved a second time."""
    model = STATEFUL[model]()
    once = copy.deepcopy(model)
    once(batch()[0])
    of_batch = METHODS[method](model)
    of_batch.progress = 0.9
    of_batch.backward(*batch())
    for (name, found), right in zip(model.named_buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(found, right, msg=name)


@pytest.mark.parametrize("method_type", [SAM, ASAM, GSAM, SANER, FriendlySAM])
def test_an_optimizer_that_steps_in_the_backward_pass_is_refused(method_type):
    """pytorch/tutorials#2568: its steps from the perturbed weights were taken back, and nothing was trained."""
    model = network()
    model[0].weight.register_post_accumulate_grad_hook(print)
    with pytest.raises(
        ValueError, match=r"model: '0\.weight' has a hook .* remove the hook and call optimizer\.step"
    ):
        method_type(model, cross_entropy, rho=0.1).backward(*batch())


def test_an_optimizer_that_steps_in_the_backward_pass_trains_by_plain_gradients():
    model = network()
    optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in model.parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda own: optimizers[own].step())
    right = copy.deepcopy(network())
    cross_entropy(right(batch()[0]), batch()[1]).backward()
    torch.optim.SGD(right.parameters(), 0.1).step()
    Plain(model, cross_entropy).backward(*batch())
    for found, expected in zip(model.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_sparse_gradients_give_the_step_of_dense_ones(method):
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Flatten(), nn.Linear(16, 3))
        of_batch = METHODS[method](model)
        of_batch.progress = 0.9
        of_batch.backward(torch.arange(64).view(16, 4) % 9, batch()[1])
        gradients.append([parameter.grad.to_dense() for parameter in model.parameters()])
    for found, right in zip(*gradients, strict=True):
        torch.testing.assert_close(found, right)


def test_friendly_sam_averages_each_parameter_from_its_first_step_on():
    model, other = network(), network()
    method, fresh = (FriendlySAM(each, cross_entropy, rho=0.1) for each in (model, other))
    model[0].requires_grad_(False)
    method.backward(*batch())
    model[0].requires_grad_(True)
    model.zero_grad()
    for each in (method, fresh):
        each.backward(*batch())
    assert all(parameter.grad is not None for parameter in model.parameters())
    # the average of what was frozen begins as that of a new method does
    assert not torch.allclose(model[2].weight.grad, other[2].weight.grad)


WEIGHTS = torch.tensor([1.0, 2.0, 5.0])
PARTLY_IGNORED = torch.where(torch.arange(16) < 6, -100, torch.arange(16) % 3)
SUM = partial(nn.functional.cross_entropy, reduction="sum")


class Own(nn.CrossEntropyLoss):
    pass


def step(loss_fn, targets, size=None):
    model = network()
    method = SAM(model, loss_fn, rho=0.5)
    method.passes.micro_batch_size = size
    method.backward(batch()[0], targets)
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("loss_fn", "targets"),
    [
        (nn.functional.cross_entropy, PARTLY_IGNORED),
        (partial(nn.functional.cross_entropy, weight=WEIGHTS), batch()[1]),
        (SUM, batch()[1]),
        (Own(reduction="sum"), batch()[1]),
        (Own(weight=WEIGHTS), PARTLY_IGNORED),
    ],
    ids=["ignored", "weights", "sum", "own sum", "own weights"],
)
def test_micro_batches_of_torchs_functions_are_weighted_as_those_of_its_modules(loss_fn, targets):
    """They were weighted by samples: 12 to 67% off."""
    for found, right in zip(step(loss_fn, targets, 5), step(loss_fn, targets), strict=True):
        torch.testing.assert_close(found, right)


def contrastive(outputs, _):
    return cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


@pytest.mark.parametrize("method_type", [SAM, Plain])
@pytest.mark.parametrize(
    ("loss_fn", "targets"),
    [
        (lambda outputs, labels: cross_entropy(outputs, labels), PARTLY_IGNORED),
        (lambda outputs, labels: SUM(outputs, labels), batch()[1]),
        (contrastive, batch()[1]),
    ],
    ids=["ignored", "sum", "contrastive"],
)
def test_micro_batches_of_losses_that_are_no_mean_are_refused(method_type, loss_fn, targets):
    options = {"rho": 0.5} if method_type is SAM else {}
    method = method_type(network(), loss_fn, **options)
    method.passes.micro_batch_size = 5
    with pytest.raises(ValueError, match=r"micro_batch_size: the loss of the batch is .* give count="):
        method.backward(batch()[0], targets)


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda outputs, labels: nn.functional.cross_entropy(outputs, labels, weight=WEIGHTS),
        lambda outputs, labels: SUM(outputs, labels),
        contrastive,
    ],
    ids=["weights", "sum", "contrastive"],
)
def test_one_sam_refuses_losses_that_are_no_mean_over_the_samples(loss_fn):
    with pytest.raises(ValueError, match="loss_fn: the loss of the batch is .* the mean over its pieces"):
        OneSAM(network(), loss_fn, rho=0.1).backward(*batch())


def of_closure(closure):
    return lambda: SAM(network(), cross_entropy, rho=0.1).backward(closure=closure)


INPUTS, CLASSES = batch()


def of_loss(loss_fn, inputs=INPUTS, targets=CLASSES):
    return lambda: SAM(network(), loss_fn, rho=0.1).backward(inputs, targets)


def calls_backward(model):
    loss = cross_entropy(model(batch()[0]), batch()[1])
    loss.backward()
    return loss


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        return checkpoint(self.network[2:], self.network[:2](x), use_reentrant=True)


def of_labels(label):
    method = NCSAM(
        network(), lambda o, t: SUM(o, t, ignore_index=label), rho=0.1, flip_ratio=0.4, strength=0.1
    )
    method.progress = 0.9
    return lambda: method.backward(batch()[0], torch.where(torch.arange(16) < 6, label, batch()[1]))


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (
            of_closure(lambda: cross_entropy(network()(batch()[0]), batch()[1])),
            "depends on no trainable param",
        ),
        (
            of_loss(lambda outputs, targets: cross_entropy(outputs.detach(), targets)),
            "depends on no trainable",
        ),
        (torch.no_grad()(of_loss(cross_entropy)), "depends on no trainable .* outside of torch.no_grad"),
        (of_loss(lambda outputs, targets: {"loss": cross_entropy(outputs, targets)}), "got dict"),
        (of_loss(cross_entropy, targets=batch()[1].int()), r"fails on outputs .* \(16,\) torch.int32"),
        (of_loss(cross_entropy, inputs=batch()[0].double()), r"inputs: are in torch.float64.*inputs\.to"),
        (
            lambda: SAM(Reentrant(), cross_entropy, rho=0.1).backward(*batch()),
            "model: .* use_reentrant=False",
        ),
        (of_labels(-100), "targets: has the label -100, which is none of the 3 classes"),
        (of_labels(-1), "targets: has the label -1, which is none of the 3 classes"),
    ],
)
def test_steps_that_would_learn_nothing_or_fail_are_refused_with_cause_and_remedy(train, says):
    with pytest.raises(ValueError, match=says):
        train()


def test_a_fit_of_features_in_float64_names_the_dtypes():
    """NumPy's own dtype."""
    model, data = network(), Split(INPUTS.double(), CLASSES)
    method, labels = SAM(model, cross_entropy, rho=0.1), human_labels(CLASSES, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"inputs: are in torch.float64.*inputs\.to\(torch.float32\)"):
        fit(method, optimizer, data, labels, data, epochs=1, batch_size=8, seed=0)


def test_a_closure_that_calls_backward_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"closure: calls backward\(\) itself"):
        SAM(model, cross_entropy, rho=0.1).backward(closure=lambda: calls_backward(model))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_classes_may_be_integers_of_any_size(dtype):
    gradients = []
    for targets in (batch()[1], batch()[1].to(dtype)):
        model = network()
        method = METHODS["NCSAM"](model)
        method.progress = 0.9
        method.backward(batch()[0], targets)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for found, right in zip(*gradients, strict=True):
        assert torch.equal(found, right)
