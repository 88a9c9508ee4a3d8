import pytest
import torch

from ncsam.models import MODELS, build_model


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # He et al. (2016), table 6, gives 0.27M and 0.46M; to the digit in their released code
    [(20, 269_722), (32, 464_154)],
)
def test_resnets_have_the_published_number_of_parameters(depth, parameters):
    model = build_model("resnet", (3, 32, 32), 10, seed=0, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_architecture_takes_images_and_is_drawn_from_its_seed(name, shape):
    model, again, other = (build_model(name, shape, 7, seed=seed).eval() for seed in (1, 1, 2))
    inputs = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    assert model(inputs).shape == (4, 7)
    assert torch.equal(model(inputs), again(inputs))
    assert not torch.equal(model(inputs), other(inputs))


@pytest.mark.parametrize("depth", [2, 18])
def test_depths_that_resnets_do_not_have_are_refused(depth):
    with pytest.raises(ValueError, match="^depth"):
        build_model("resnet", (3, 32, 32), 10, seed=0, depth=depth)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        # (784 + 1) 64 + (64 + 1) 64 + (64 + 1) 10
        ("mlp", {"hidden": [64, 64]}, 55_050),
        # 9 (1 * 16 + 16 * 32 + 32 * 64) + 2 (16 + 32 + 64) + (64 + 1) 10
        ("cnn", {}, 24_058),
    ],
)
def test_models_have_the_counted_parameters_and_draw_them_from_the_seed(name, options, parameters):
    before = torch.get_rng_state()
    model, again, other = (build_model(name, (1, 28, 28), 10, seed=s, **options) for s in (1, 1, 2))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    pairs = list(zip(model.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "options"), [("vit", {}), ("mlp", {"widths": [3]})])
def test_unknown_models_and_options_are_named(name, options):
    with pytest.raises(ValueError, match="^model"):
        build_model(name, (1, 8, 8), 10, seed=0, **options)
