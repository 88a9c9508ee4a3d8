"""Permuting units changes no function, and matching finds the permutation again."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective, matched, path
from landscape.connectivity.permutable_units import units_of
from landscape.connectivity.permutations import permuted
from tests.conftest import Attention


class Block(nn.Module):
    """A residual block; the shortcut pads new channels with zeros, or convolves."""

    def __init__(self, before, after, stride, projects):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride) if projects else None
        self.stride, self.new = stride, after - before

    def forward(self, x):
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            return torch.relu(y + self.shortcut(x))
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(x, (0, 0, 0, 0, 0, self.new)))


def network(name, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "mlp":
            model = nn.Sequential(
                nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)
            )
        elif name == "cnn":
            model = nn.Sequential(
                nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 1),
                nn.GELU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
            )  # fmt: skip
        else:
            projects = name == "resnet-projections"
            model = nn.Sequential(
                nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Block(4, 4, 1, False),
                Block(4, 8, 2, projects), Block(8, 8, 1, False), Block(8, 11, 1, projects),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(11, 3),
            )  # fmt: skip
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 2)
    return model.double().eval()


NAMES = ("mlp", "cnn", "resnet-padding", "resnet-projections")
INPUTS = torch.randn(11, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(64), nn.Softmax(1), nn.Linear(64, 3)
        ),
        lambda: Averaged((-1, 2), 4),
        lambda: nn.Sequential(
            nn.Flatten(2), nn.Conv1d(2, 5, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(85, 4), nn.BatchNorm1d(4),
            nn.Linear(4, 2),
        ),
    ],
)  # fmt: skip
def test_flattened_norms_and_means_over_space_are_followed(make):
    model = make().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
    other = shuffled(model)
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(other(INPUTS), model(INPUTS), rtol=1e-12, atol=1e-13)


def shuffled(model, seed=0):
    structure = units_of(model)
    generator = torch.Generator().manual_seed(seed)
    permutations = {group: torch.randperm(group.size, generator=generator) for group in structure.groups}
    other = copy.deepcopy(model)
    other.load_state_dict(permuted(dict(model.state_dict()), structure, permutations))
    return other


@pytest.mark.parametrize("name", NAMES)
def test_every_group_can_be_permuted_without_changing_the_function(name):
    model = network(name)
    other = shuffled(model)
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(other(INPUTS), model(INPUTS), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mlp", [9, 7]),
        ("cnn", [5, 6, 8]),
        ("resnet-padding", [4, 4, 8, 4, 8, 11, 3]),
        ("resnet-projections", [4, 4, 8, 8, 8, 11, 11]),
    ],
)
def test_all_units_that_may_move_are_in_a_group(name, sizes):
    """With padding the channels of a stage stay those of the one before, and only the new ones move apart."""
    assert sorted(group.size for group in units_of(network(name)).groups) == sorted(sizes)


@pytest.mark.parametrize("name", NAMES)
def test_matching_undoes_a_permutation(name):
    model = network(name)
    found, matching = matched(model, shuffled(model))
    assert matching.converged
    assert matching.distance_before > 1
    assert matching.distance_after == 0
    for key, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", NAMES)
def test_the_matched_network_is_the_other_one_nearer_by(name):
    model, other = network(name, 0), network(name, 1)
    before = copy.deepcopy(other.state_dict())
    found, matching = matched(model, other)
    with torch.no_grad():
        torch.testing.assert_close(found(INPUTS), other(INPUTS), rtol=1e-12, atol=1e-13)
    assert matching.distance_after < matching.distance_before
    pairs = zip(model.parameters(), found.parameters(), strict=True)
    distance = sum((p - q).square().sum().item() for p, q in pairs) ** 0.5
    assert matching.distance_after == pytest.approx(distance)
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def test_a_single_hidden_layer_gets_the_best_of_all_permutations():
    model, other = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double() for _ in range(2))
    _, matching = matched(model, other)
    first = torch.cat([model[0].weight, model[0].bias[:, None], model[2].weight.T], 1)
    second = torch.cat([other[0].weight, other[0].bias[:, None], other[2].weight.T], 1)
    rest = (model[2].bias - other[2].bias).square().sum()
    orders = torch.cartesian_prod(*[torch.arange(5)] * 5)
    orders = orders[(orders.sort(1).values == torch.arange(5)).all(1)]
    distances = ((first - second[orders]).square().sum((1, 2)) + rest).sqrt()
    assert matching.distance_after == pytest.approx(distances.min().item())


def test_a_straight_path_to_a_permuted_copy_has_a_barrier_that_matching_removes():
    model = network("mlp")
    targets = model(INPUTS).argmax(1)
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, targets))
    other = shuffled(model, seed=3)
    assert path(objective, other).barrier > 0.01
    assert path(objective, matched(model, other)[0]).barrier == pytest.approx(0, abs=1e-12)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(x) * self.scale


class Chunked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x):
        return self.inner(x)[:, :2]


class Twice(nn.Module):
    def __init__(self, *, tied):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.again = nn.Linear(4, 4)
        if tied:
            self.again.weight = self.inner.weight
        else:
            self.again = self.inner

    def forward(self, x):
        return self.last(self.again(self.inner(self.first(x).relu()).relu()).relu())


class Averaged(nn.Module):
    def __init__(self, dim, features):
        super().__init__()
        self.conv, self.last, self.dim = nn.Conv2d(2, 4, 3), nn.Linear(features, 3), dim

    def forward(self, x):
        return self.last(self.conv(x).relu().mean(self.dim))


UNFOLLOWED = {
    "attention": Attention(),
    "a parameter of its own": Shared(),
    "a selection of units": Chunked(),
    "a grouped convolution": nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2)),
    "a module used twice": Twice(tied=False),
    "tied weights": Twice(tied=True),
    "weights made of others": nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2)
    ),
    "a norm over groups": nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4, affine=False), nn.Conv2d(4, 3, 4)
    ),
    "a norm over neighbors": nn.Sequential(nn.Conv2d(2, 4, 3), nn.LocalResponseNorm(2), nn.Conv2d(4, 3, 4)),
    "units that are shuffled": nn.Sequential(nn.Conv2d(2, 4, 3), nn.ChannelShuffle(2), nn.Conv2d(4, 3, 4)),
    "a pool over units": nn.Sequential(nn.Linear(6, 8), nn.AvgPool1d(3, 1, 1), nn.Linear(8, 3)),
    "a layer over the width": nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Linear(4, 5), nn.Flatten(), nn.Linear(80, 3)
    ),
    "units behind other axes flattened": nn.Sequential(nn.Linear(6, 8), nn.Flatten(), nn.Linear(16, 3)),
    "a mean over units": Averaged(1, 4),
}


@pytest.mark.parametrize("model", UNFOLLOWED.values(), ids=UNFOLLOWED)
def test_a_network_whose_units_cannot_be_followed_is_refused(model):
    with pytest.raises(ValueError, match="^model: .*cannot be followed"):
        units_of(model)


class Sequences(nn.Module):
    """A norm over the positions of a sequence, of which there are as many as units."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


class Squeezed(nn.Module):
    """Rows of a feature map, of which there are as many as channels."""

    def __init__(self, pool):
        super().__init__()
        self.conv, self.pool, self.last = nn.Conv2d(2, 4, 3), pool, nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.pool(self.conv(x).relu()).squeeze())


class Padded(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.first, self.last, self.mode = nn.Linear(4, 5), nn.Linear(9, 3), mode

    def forward(self, x):
        return self.last(nn.functional.pad(self.first(x).relu(), (2, 2), mode=self.mode))


def with_other_weights(make):
    """Two networks in float64, whose norms move and scale."""
    generator = torch.Generator().manual_seed(5)
    networks = [make().double().eval() for _ in range(2)]
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
    return networks


VECTORS, POSITIONS = INPUTS[:, 0, 0, :4], INPUTS[:, 0, :5, :4]
SHAPES_LEFT_OPEN = {
    "norm of units": (Sequences, VECTORS, True),
    "norm of positions": (Sequences, POSITIONS, False),
    "squeezed to units": (lambda: Squeezed(nn.AvgPool2d(4)), INPUTS, True),
    "squeezed to rows": (lambda: Squeezed(nn.AdaptiveAvgPool2d((4, 1))), INPUTS, False),
}


@pytest.mark.parametrize(("make", "inputs", "is_right"), SHAPES_LEFT_OPEN.values(), ids=SHAPES_LEFT_OPEN)
def test_shapes_that_the_graph_leaves_open_are_compared_for_inputs_or_warned_of(make, inputs, is_right):
    model, other = with_other_weights(make)
    with pytest.warns(UserWarning, match="^model: it is assumed that .* inputs="):
        found, _ = matched(model, other)
    assert torch.allclose(found(inputs), other(inputs), rtol=1e-12) == is_right
    if is_right:
        found, _ = matched(model, other, inputs=inputs)
        torch.testing.assert_close(found(inputs), other(inputs), rtol=1e-12, atol=0)
    else:
        with pytest.raises(ValueError, match="^model: its units cannot be followed.*it was assumed that"):
            matched(model, other, inputs=inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 4), nn.BatchNorm1d(4),
            nn.Linear(4, 2),
        ),
        lambda: Squeezed(nn.AdaptiveAvgPool2d(1)),
    ],
)  # fmt: skip
def test_nothing_is_assumed_where_the_graph_tells_the_shapes(make):
    model, other = with_other_weights(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = matched(model, other)
    torch.testing.assert_close(found(INPUTS), other(INPUTS), rtol=1e-12, atol=0)
    half = [copy.deepcopy(each).float() for each in (model, other)]
    matched(*half, inputs=INPUTS.float())


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_units_that_padding_repeats_are_refused(mode):
    with pytest.raises(ValueError, match="^model: the operation 'pad'"):
        matched(Padded(mode), Padded(mode))


def test_zeros_beside_the_units_are_followed():
    model, other = with_other_weights(lambda: Padded("constant"))
    found, _ = matched(model, other, inputs=VECTORS)
    torch.testing.assert_close(found(VECTORS), other(VECTORS), rtol=1e-12, atol=0)


def test_hooks_that_treat_units_differently_are_found_by_inputs():
    model, other = with_other_weights(lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    other[1].register_forward_hook(lambda _module, _inputs, outputs: outputs * torch.arange(5))
    with pytest.raises(ValueError, match="^model: its units cannot be followed"):
        matched(model, other, inputs=VECTORS)


def test_layers_that_are_connected_otherwise_are_refused():
    class Connected(nn.Module):
        def __init__(self, adds):
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
            self.adds = adds

        def forward(self, x):
            x = self.first(x).relu()
            return self.last(x + self.inner(x).relu() if self.adds else self.inner(x).relu())

    with pytest.raises(ValueError, match="^other: its layers are connected otherwise"):
        matched(Connected(True), Connected(False))


def test_another_architecture_and_no_sweeps_are_refused():
    with pytest.raises(ValueError, match="^other"):
        matched(network("mlp"), network("cnn"))
    with pytest.raises(ValueError, match="^max_sweeps"):
        matched(network("mlp"), network("mlp"), max_sweeps=0)


def test_one_sweep_says_that_it_has_not_converged():
    matching = matched(network("resnet-padding"), network("resnet-padding", 1), max_sweeps=1)[1]
    assert not matching.converged
    assert matching.sweeps == 1
    assert len(matching.order) == len(matching.group) == sum(np.bincount(matching.group))
