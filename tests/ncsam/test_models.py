import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vmap

from ncsam.models import MODELS, build_model, model_options

OF_IMAGES = [name for name in MODELS if name != "transformer"]

SMALL = {
    "mlp": {"hidden": [8, 6]},
    "cnn": {"channels": [4, 8]},
    "resnet": {"depth": 8, "width": 4},
    "resnet18": {"width": 4},
    "resnet34": {"width": 4},
    "preact-resnet18": {"width": 4},
    "preact-resnet34": {"width": 4},
    "vgg19-bn": {"width": 4},
    "wrn": {"depth": 10, "widening": 1, "dropout": 0.3},
}
"""Options under which an architecture is built and run in a moment."""


def small(name, shape=(3, 32, 32), classes=7, seed=1):
    return build_model(name, shape, classes, seed=seed, **SMALL.get(name, {}))


def images(n, shape):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options", "shape", "parameters"),
    [
        # (784 + 1) 64 + (64 + 1) 64 + (64 + 1) 10
        ("mlp", {"hidden": [64, 64]}, (1, 28, 28), 55_050),
        # 9 (1 * 16 + 16 * 32 + 32 * 64) + 2 (16 + 32 + 64) + (64 + 1) 10
        ("cnn", {}, (1, 28, 28), 24_058),
        # the 61,706 of LeNet-5 with full second layer, and 5 * 5 * 2 * 6 more for three colors
        ("lenet", {}, (1, 28, 28), 61_706),
        ("lenet", {}, (3, 32, 32), 62_006),
        # He et al. 2016, table 6: 0.27M, 0.46M; to the digit in their released code
        ("resnet", {"depth": 20}, (3, 32, 32), 269_722),
        ("resnet", {"depth": 32}, (3, 32, 32), 464_154),
        # the CIFAR networks of github.com/kuangliu/pytorch-cifar, as listed in tables that use it
        ("resnet18", {}, (3, 32, 32), 11_173_962),
        ("resnet34", {}, (3, 32, 32), 21_282_122),
        ("preact-resnet18", {}, (3, 32, 32), 11_171_146),
        ("preact-resnet34", {}, (3, 32, 32), 21_279_306),
        ("vgg19-bn", {}, (3, 32, 32), 20_040_522),
        # Zagoruyko and Komodakis 2016, table 4: 36.5M, 17.2M, 2.2M, 35.7M; to the digit in implementations' tables
        ("wrn", {}, (3, 32, 32), 36_479_194),
        ("wrn", {"depth": 22, "widening": 8}, (3, 32, 32), 17_158_106),
        ("wrn", {"depth": 40, "widening": 2}, (3, 32, 32), 2_243_546),
        ("wrn", {"depth": 40, "widening": 8}, (3, 32, 32), 35_748_314),
        ("wrn", {"depth": 16, "widening": 10}, (3, 32, 32), 17_116_634),
    ],
)
def test_models_have_the_published_number_of_parameters(name, options, shape, parameters):
    with torch.device("meta"):
        model = MODELS[name](shape, 10, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_architecture_takes_images_and_is_drawn_from_its_seed(name, shape):
    before = torch.get_rng_state()
    model, again, other = (small(name, shape, seed=seed).eval() for seed in (1, 1, 2))
    inputs = images(4, shape)
    assert model(inputs).shape == (4, 7)
    assert torch.equal(model(inputs), again(inputs))
    assert not torch.equal(model(inputs), other(inputs))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "total"),
    # sum of the weights' sizes under seed 3: results of earlier versions can be repeated
    [("mlp", 9226.321345), ("cnn", 929.819077)],
)
def test_the_first_architectures_draw_the_weights_that_they_always_drew(name, total):
    model = build_model(name, (3, 32, 32), 10, seed=3)
    assert sum(p.double().abs().sum() for p in model.parameters()).item() == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_last_module_is_a_linear_head_on_the_features(name):
    model = small(name).eval()
    *_, head = model.modules()
    assert isinstance(head, nn.Linear)
    seen = []
    hook = head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    outputs = model(images(3, (3, 32, 32)))
    hook.remove()
    assert seen[0].shape == (3, head.in_features)
    torch.testing.assert_close(outputs, head(seen[0]))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_model_is_differentiated_forwards_as_backwards(name):
    model = small(name).double().eval()
    inputs = images(2, (3, 32, 32)).double()
    weights = {key: p.detach() for key, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in weights.items()}

    def outputs(point):
        return functional_call(model, point, (inputs,))

    _, forwards = jvp(outputs, (weights,), (direction,))
    _, pull_back = torch.func.vjp(outputs, weights)
    probe = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    (gradient,) = pull_back(probe)
    backwards = sum((gradient[k] * direction[k]).sum() for k in weights)
    torch.testing.assert_close((forwards * probe).sum(), backwards)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_model_runs_over_many_weights_at_once(name):
    model = small(name).eval()
    inputs = images(2, (3, 32, 32))
    weights = {key: torch.stack([p.detach(), p.detach() * 0.5]) for key, p in model.named_parameters()}
    together = vmap(lambda point: functional_call(model, point, (inputs,)))(weights)
    # float32 through up to 34 layers
    torch.testing.assert_close(together[0], model(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_memory_layout_changes_nothing(name):
    model = small(name).double().eval()
    inputs = images(2, (3, 32, 32)).double()
    plain = model(inputs)
    layout = model.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
    torch.testing.assert_close(layout, plain)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_training_leaves_the_inputs_as_they_were(name):
    model = small(name)
    inputs = images(4, (3, 32, 32))
    before = inputs.clone()
    model(inputs.requires_grad_()).sum().backward()
    assert torch.equal(inputs, before)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet", "resnet18", "preact-resnet18", "vgg19-bn", "wrn"])
def test_published_networks_start_with_hes_variance(name):
    options = {"depth": 10, "widening": 4} if name == "wrn" else {"width": 32}
    model = build_model(name, (3, 32, 32), 10, seed=0, **options)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        fan_out = module.out_channels * math.prod(module.kernel_size)
        expected = math.sqrt(2 / fan_out)
        # the relative standard error of a standard deviation is 1 / sqrt(2 n)
        tolerance = 5 / math.sqrt(2 * module.weight.numel())
        assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
        assert module.bias is None or not module.bias.any()


def test_preactivation_shortcuts_are_those_of_the_paper():
    block = small("preact-resnet18").eval()[3]
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    activated = torch.relu(block.norm1(x))
    branch = block.conv2(torch.relu(block.norm2(block.conv1(activated))))
    torch.testing.assert_close(block(x), branch + block.shortcut(activated))
    block = small("preact-resnet18").eval()[1]
    branch = block.conv2(torch.relu(block.norm2(block.conv1(torch.relu(block.norm1(x))))))
    torch.testing.assert_close(block(x), branch + x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 48)])
@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name != "lenet"])
def test_other_sizes_of_images_are_taken(name, shape):
    assert small(name, shape).eval()(images(2, shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("vit", {}, "model: unknown name 'vit'; known: cnn, lenet"),
        ("mlp", {"widths": [3]}, "widths: 'mlp' has no such option; it takes hidden"),
        ("lenet", {"width": 3}, "width: 'lenet' has no such option; it takes none"),
        ("resnet", {"depth": 2}, "depth"),
        ("resnet", {"depth": 18}, "depth"),
        ("resnet", {"depth": 20.0}, "depth: must be a whole number from 1 to 65536, got 20.0"),
        ("resnet18", {"width": 0}, "width"),
        ("wrn", {"depth": 20}, "depth"),
        ("wrn", {"dropout": 1.0}, "dropout"),
        ("wrn", {"dropout": float("nan")}, "dropout"),
        ("mlp", {"hidden": [8, 0]}, "hidden: must be a list of whole numbers from 1"),
        ("mlp", {"hidden": 8}, "hidden"),
    ],
)
def test_unknown_models_and_options_are_named(name, options, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        build_model(name, (3, 32, 32), 10, seed=0, **options)


def test_lenet_says_how_small_an_image_may_be():
    assert build_model("lenet", (1, 12, 12), 3, seed=0)(torch.zeros(1, 1, 12, 12)).shape == (1, 3)
    with pytest.raises(ValueError, match="^input_shape: .* at least 12 x 12, got 11 x 12"):
        build_model("lenet", (1, 11, 12), 3, seed=0)


def test_the_options_show_their_defaults():
    assert model_options("wrn") == {"depth": 28, "widening": 10, "dropout": 0.0}
    assert list(model_options("mlp")) == ["hidden"]
    assert model_options("lenet") == {}
