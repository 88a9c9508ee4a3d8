"""Architectures by name, one file a family. Each model is a plain `torch.nn.Module`.

model = build_model("resnet18", dataset.input_shape, dataset.num_classes, seed=0)

The last module of every model, `list(model.modules())[-1]`, is its linear head. The head's inputs are the penultimate
features, which a forward pre-hook sees. No module works in place, so that all models run under `torch.func`, forward
mode included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ncsam.models.cnn import cnn
from ncsam.models.lenet import lenet
from ncsam.models.mlp import mlp
from ncsam.models.preact_resnet import preact_resnet18, preact_resnet34
from ncsam.models.resnet import resnet
from ncsam.models.resnet18 import resnet18, resnet34
from ncsam.models.transformer import transformer
from ncsam.models.vgg import vgg19_bn
from ncsam.models.wide_resnet import wide_resnet
from ncsam.options import Registry
from ncsam.plain_numbers import with_plain_numbers
from ncsam.random_state import borrowed_generators

__all__ = ["MODELS", "MODEL_REGISTRY", "build_model", "model_options"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "lenet": lenet,
    "mlp": mlp,
    "preact-resnet18": preact_resnet18,
    "preact-resnet34": preact_resnet34,
    "resnet": resnet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "transformer": transformer,
    "vgg19-bn": vgg19_bn,
    "wrn": wide_resnet,
}
"""Name -> (input_shape, num_classes, options by name) -> model."""


MAX_WIDTH = 65_536
"""More channels or layers than this are refused as a slip."""

MODEL_REGISTRY = Registry("model", MODELS, whole_numbers=(1, MAX_WIDTH))
"""The architectures with their options; widths and depths are whole numbers."""


MAX_LAYERS = 2_000
"""ResNet-1202 is the deepest published network. A model with tens of thousands of layers takes minutes to build."""


def check_model_options(name: str, options: Mapping[str, Any]) -> None:
    """Checks the options of an architecture before it is made.

    Raises:
        ValueError: the name or an option is unknown, a value has another type, or the model has too many layers.
    """
    MODEL_REGISTRY.check(name, options)
    for key, value in options.items():
        layers = value if key == "depth" else len(value) if isinstance(value, Sequence) else 0
        if layers > MAX_LAYERS:
            raise ValueError(f"{key}: makes {layers:,} layers; at most {MAX_LAYERS:,} are allowed")


def model_options(name: str) -> dict[str, Any]:
    """The options of an architecture, each with its default. The default has the option's type: list, int or float.

    Raises:
        ValueError: the name is unknown.
    """
    return {key: option.default for key, option in MODEL_REGISTRY.options(name).items()}


@with_plain_numbers
def build_model(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    seed: int,
    **options: Sequence[int] | int | float,
) -> nn.Module:
    """Builds a model with weights drawn from `seed`; the global random state stays as it was.

    Args:
        name: one of `MODELS`.
        input_shape: channels, height, width of one image; the length of a sequence.
        num_classes: number of outputs.
        seed: seed of the initial weights.
        options: options of the architecture, as `model_options` lists them.

    Raises:
        ValueError: the name or an option is unknown, or a value is out of range.
    """
    check_model_options(name, options)
    with borrowed_generators(seed=seed):
        return MODELS[name](input_shape, num_classes, **options)
