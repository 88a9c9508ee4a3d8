import numpy as np
import pytest
import scipy.integrate
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils import prune

from landscape import Objective, direction_to, line, low_loss_bend, path, paths
from tests.conftest import build

cross_entropy = nn.CrossEntropyLoss()


def ring():
    """L = (|w|^2 - 1)^2 of two weights, at (-1, 0): minima on a circle, with a barrier of 1 across."""

    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[-1.0], [0.0]], dtype=torch.float64))

        def forward(self, x):
            return self.weight.T.expand(len(x), -1)

    def loss_fn(z, _):
        return ((z.square().sum(1) - 1) ** 2).mean()

    return Objective(Weights(), loss_fn, (torch.zeros(4, 1), torch.zeros(4)))


OTHER_SIDE = torch.tensor([1.0, 0.0], dtype=torch.float64)


def test_a_straight_path_has_the_loss_of_each_point_and_its_barrier():
    found = path(ring(), OTHER_SIDE, steps=21)
    np.testing.assert_allclose(found.loss, ((2 * found.position - 1) ** 2 - 1) ** 2, atol=1e-15)
    assert (found.barrier, found.barrier_position) == (1, 0.5)
    assert found.distance == found.length == 2


def test_the_barrier_is_measured_from_the_line_between_unequal_ends():
    far = torch.tensor([2.0, 0.0], dtype=torch.float64)
    found = path(ring(), far, steps=31)
    t = found.position
    truth = (((3 * t - 1) ** 2 - 1) ** 2) - 9 * t
    assert found.barrier == pytest.approx(truth.max(), abs=1e-12)


def test_a_bent_path_goes_round_the_barrier():
    objective = ring()
    # Adam in two weights needs a push off the symmetric line
    start = torch.tensor([1.0, 1e-3], dtype=torch.float64)
    bend = low_loss_bend(objective, start, steps=400, batch_size=4, learning_rate=0.05)
    found = path(objective, start, bend=bend, steps=51)
    # the best quadratic through the ends of a half circle stays within a few percent
    assert found.barrier < 0.2
    assert found.kind == "quadratic Bezier"

    def speed(t):
        a, b, c = objective.theta.numpy(), bend.vector.numpy(), start.numpy()
        return np.linalg.norm(2 * (1 - t) * (b - a) + 2 * t * (c - b))

    assert found.length == pytest.approx(scipy.integrate.quad(speed, 0, 1)[0], rel=1e-5)
    again = low_loss_bend(objective, start, steps=400, batch_size=4, learning_rate=0.05)
    assert torch.equal(bend.vector, again.vector)


def test_every_point_of_a_bezier_path_is_on_the_curve():
    model, inputs, targets = build("relu-mlp")
    objective = Objective(model, cross_entropy, (inputs, targets))
    other = objective.theta.flip(0)
    bend = low_loss_bend(objective, other, steps=5, batch_size=20)
    found = path(objective, other, bend=bend, steps=4)
    for t, loss in zip(found.position, found.loss, strict=True):
        point = (1 - t) ** 2 * objective.theta + 2 * t * (1 - t) * bend.vector + t**2 * other
        assert loss == pytest.approx(objective.value(point), rel=1e-10)


def test_a_bend_lowers_the_loss_between_two_networks():
    model, inputs, targets = build("relu-mlp")
    first = Objective(model, cross_entropy, (inputs, targets))
    other = 3 * torch.randn(
        first.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    bend = low_loss_bend(first, other, steps=100, batch_size=37, learning_rate=0.1)
    straight = path(first, other).loss.mean()
    assert path(first, other, bend=bend).loss.mean() < 0.7 * straight


def test_batch_norm_is_recalibrated_so_that_both_ends_are_right():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    objective = Objective(model, cross_entropy, (inputs, targets))
    other, _, _ = build("cnn-batchnorm-dropout")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-1.5)
    found = paths({"train": objective}, other, steps=3)["train"]
    assert found.batch_norm == "recalibrate"
    other[1].train()
    other[1].momentum = 1.0
    with torch.no_grad():
        other(inputs)
        truth = cross_entropy(other.eval()(inputs), targets).item()
    assert found.loss[-1] == pytest.approx(truth, rel=1e-10)
    assert path(objective, other, steps=3, batch_norm="eval").batch_norm == "eval"
    # its training is with the batch's statistics, and moves none that are stored
    before = objective.model[1].running_mean.clone()
    low_loss_bend(objective, other, steps=2, batch_size=10)
    assert torch.equal(objective.model[1].running_mean, before)


def test_frozen_layers_that_differ_are_refused_for_the_path_would_not_end_at_the_other():
    one, other = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double() for _ in range(2))
    one[0].requires_grad_(False)
    inputs, targets = torch.eye(3).double(), torch.tensor([0, 1, 0])
    objective = Objective(one, nn.CrossEntropyLoss(), (inputs, targets))
    for call, options in ((path, {}), (low_loss_bend, {"batch_size": 2})):
        with pytest.raises(ValueError, match="^other: its '0.weight' differs"):
            call(objective, other, **options)
    other[0].load_state_dict(one[0].state_dict())
    truth = nn.functional.cross_entropy(other(inputs), targets).item()
    assert path(objective, other, steps=3).loss[-1] == pytest.approx(truth, rel=1e-12)


WAYS = {
    "path": lambda objective, other: path(objective, other, steps=3).loss[-1],
    "bend": lambda objective, other: low_loss_bend(objective, other, steps=1, batch_size=2),
    "line": lambda objective, other: line(objective, direction_to(objective, other), alpha=[0, 1]).loss[1],
}
FORMS = {
    "module": lambda other: other,
    "DataParallel": nn.DataParallel,
    "torch.compile": torch.compile,
    "state_dict": lambda other: other.state_dict(),
}


class Shifted(nn.Module):
    """A network with a constant in a buffer, one in an attribute, and a number of steps without an effect."""

    def __init__(self, shift=0.0, scale=1.0, steps=0, seed=0):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(steps))
        self.scale = scale

    def forward(self, x):
        return self.scale * self.inner(x - self.shift)


def pruned(seed):
    model = Shifted(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(4, 3, generator=generator) < 0.5).double()
    prune.custom_from_mask(model.inner[0], "weight", mask)
    return model.eval()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("one", "other", "cause"),
    [
        (Shifted(), Shifted(shift=2.0, seed=1), "its 'shift' differs"),
        (pruned(0), pruned(1), "its 'inner.0.weight_mask' differs"),
        (Shifted(), Shifted(scale=3.0, seed=1), "its outputs are not those"),
        (Shifted(), Shifted(steps=7, seed=1), None),
        (pruned(0), pruned(0), None),
    ],
    ids=["buffer", "pruned otherwise", "attribute", "number of steps", "pruned alike"],
)
def test_a_way_to_another_network_ends_at_its_loss_or_is_refused(one, other, cause, way, form):
    inputs, targets = torch.eye(3).double(), torch.tensor([0, 1, 0])
    objective = Objective(one, cross_entropy, (inputs, targets))
    if cause and not (form == "state_dict" and "outputs" in cause):
        with pytest.raises(ValueError, match=f"^other: {cause}"):
            WAYS[way](objective, FORMS[form](other))
        return
    found = WAYS[way](objective, FORMS[form](other))
    if way != "bend" and not cause:
        assert found == pytest.approx(cross_entropy(other(inputs), targets).item(), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_wrapped_networks_with_other_frozen_layers_are_refused(way):
    one, other = Shifted(), Shifted(seed=1)
    one.inner[0].requires_grad_(False)
    objective = Objective(one, cross_entropy, (torch.eye(3).double(), torch.tensor([0, 1, 0])))
    for form in FORMS.values():
        with pytest.raises(ValueError, match=r"^other: its 'inner.0.weight' differs \(and 1 more\)"):
            WAYS[way](objective, form(other))


class InATrainer(Shifted):
    """A network that can be neither copied nor run by itself."""

    def __deepcopy__(self, _):
        raise RuntimeError("holds an open file")


@pytest.mark.parametrize("way", WAYS)
def test_a_network_that_cannot_be_copied_is_taken_by_its_tensors(way):
    inputs, targets = torch.eye(3).double(), torch.tensor([0, 1, 0])
    objective = Objective(Shifted(), cross_entropy, (inputs, targets))
    found, expected = (WAYS[way](objective, kind(seed=1)) for kind in (InATrainer, Shifted))
    if way != "bend":
        assert found == expected
    with pytest.raises(ValueError, match=r"^other: its 'shift' differs"):
        WAYS[way](objective, InATrainer(shift=2.0, seed=1))


def test_a_buffer_that_matters_for_the_last_sample_alone_is_compared():
    def masked(last):
        model = nn.Sequential(nn.Linear(9, 9, bias=False), nn.Linear(9, 2)).double()
        prune.custom_from_mask(model[0], "weight", torch.diag(torch.tensor([1.0] * 8 + [last])))
        return model

    torch.manual_seed(0)
    one, other = masked(1.0), masked(0.0)
    other[0].weight_orig.data = one[0].weight_orig.data.clone()
    inputs, targets = torch.eye(9).double(), torch.arange(9) % 2
    objective = Objective(one, cross_entropy, (inputs, targets), chunk_size=4)
    for form in (other, other.state_dict()):
        with pytest.raises(ValueError, match=r"^other: its '0.weight_mask' differs"):
            path(objective, form)


def test_the_state_dict_of_a_network_with_batch_norm_gives_the_path_of_the_network():
    model, inputs, targets = build("cnn-batchnorm-dropout")
    other, _, _ = build("cnn-batchnorm-dropout")
    with torch.no_grad():
        other[1].running_mean += 1
        other[1].num_batches_tracked += 5
        for parameter in other.parameters():
            parameter.mul_(-1.5)
    objective = Objective(model, cross_entropy, (inputs, targets))
    of_module, of_dict = (path(objective, each, steps=3) for each in (other, other.state_dict()))
    np.testing.assert_array_equal(of_module.loss, of_dict.loss)
    bends = [low_loss_bend(objective, each, steps=2, batch_size=8) for each in (other, other.state_dict())]
    assert torch.equal(bends[0].vector, bends[1].vector)
    direction_to(objective, other.state_dict())


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda o: path(o, o.theta, steps=1), "steps"),
        (lambda o: paths({}, o.theta), "objectives"),
        (lambda o: path(o, o.theta[:1]), "weights"),
        (lambda o: low_loss_bend(o, o.theta, steps=0), "steps"),
        (lambda o: low_loss_bend(o, o.theta, batch_size=5), "batch_size"),
        (lambda o: low_loss_bend(o, o.theta, batch_size=2, learning_rate=0), "learning_rate"),
    ],
)
def test_bad_arguments_are_named(call, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        call(ring())


class Checkpointed(nn.Module):
    """A block that the backward pass runs again."""

    def __init__(self, inner, use_reentrant):
        super().__init__()
        self.inner, self.use_reentrant = inner, use_reentrant

    def forward(self, x):
        if self.use_reentrant is None:
            return self.inner(x)
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


def test_a_bend_of_a_model_with_activation_checkpoints_is_that_without():
    """The backward pass ran the block with the weights of the model instead of those of the point."""
    found = []
    for use_reentrant in (None, False):
        model, inputs, targets = build("mlp")
        objective = Objective(
            nn.Sequential(model[0], model[1], Checkpointed(model[2:], use_reentrant)),
            cross_entropy,
            (inputs, targets),
        )
        found.append(low_loss_bend(objective, objective.theta.flip(0), steps=5, batch_size=20).vector)
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
