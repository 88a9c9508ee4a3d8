"""Small random models of timm."""

import pytest
import torch
from torch import nn

from landscape import Objective
from ncsam import SAM
from tests.clients.client import CHECKS, Client, D, generic

timm = pytest.importorskip("timm")

CLASSES = 3
MODELS = {
    "resnet18": {"channels": (4, 4, 8, 8)},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)},
    "efficientnet_b0": {"channel_multiplier": 0.2, "depth_multiplier": 0.3},
    "mobilenetv3_small_050": {"drop_rate": 0.0},
}
HEADS = ("fc.weight", "head.weight", "head.fc.weight", "classifier.bias", "bn1.weight")


def model_of(name):
    if name == "efficientnet_b0":
        # by name it has one size only
        return timm.models.efficientnet._gen_efficientnet(name, num_classes=CLASSES, **MODELS[name])
    return timm.create_model(name, num_classes=CLASSES, **MODELS[name])


def client_of(name):
    torch.manual_seed(0)
    model = generic(model_of(name))
    inputs = torch.randn(6, 3, 32, 32, dtype=D, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(6) % CLASSES
    loss_fn = nn.CrossEntropyLoss()
    return Client(
        model,
        lambda model: nn.functional.cross_entropy(model(inputs), targets),
        Objective(model, loss_fn, (inputs, targets), chunk_size=4),
        tuple(name for name, p in model.named_parameters() if name in HEADS and p.numel() < 100),
        lambda model, rho: SAM(model, loss_fn, rho=rho),
        (inputs, targets),
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", MODELS)
def test_all_measures_are_those_of_plain_torch(name, check):
    CHECKS[check](client_of(name))
