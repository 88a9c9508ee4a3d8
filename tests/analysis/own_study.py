"""A study of parts of one's own, of every kind."""

import contextlib

from analysis import cli
from analysis.claims import CLAIMS, QUANTITIES
from analysis.plan import own_parts
from analysis.run.measurements import MEASURES
from analysis.store import OWN_COLUMNS
from ncsam import DATASETS, LOSSES, METHODS, MODELS, NOISE_KINDS

REGISTRIES = (
    METHODS,
    MODELS,
    DATASETS,
    LOSSES,
    NOISE_KINDS,
    MEASURES,
    CLAIMS,
    QUANTITIES,
    own_parts.LOADED,
    OWN_COLUMNS,
)

MINE = '''
from __future__ import annotations

import torch
from torch import nn

from analysis.claims import Claim, Level, Quantity, Variant, register, register_quantity
from analysis.run.own_measures import register_measure
from ncsam import (
    DATASET_REGISTRY, LOSS_REGISTRY, METHOD_REGISTRY, MODEL_REGISTRY, NOISE_REGISTRY, SAM, Corruption, NoiseKind,
    make_dataset,
)


@METHOD_REGISTRY.register("scaled-sam")
class ScaledSAM(SAM):
    """SAM with a radius that is multiplied."""

    def __init__(self, model: nn.Module, loss_fn, *, rho: float, factor: float = 2.0) -> None:
        super().__init__(model, loss_fn, rho=factor * rho)


@MODEL_REGISTRY.register("linear")
def linear(input_shape, num_classes, *, bias: int = 1):
    """One layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes, bias=bool(bias)))


@DATASET_REGISTRY.register("blobs")
def blobs(folder):
    """Two clouds."""
    draw = torch.Generator().manual_seed(0)
    targets = torch.arange(200) % 2
    pixels = torch.randn(200, 3, generator=draw) + 2 * targets[:, None]
    return make_dataset("blobs", (pixels[:120], targets[:120]), (pixels[120:], targets[120:]))


@LOSS_REGISTRY.register("brier")
class Brier(nn.Module):
    """The squared error of the probabilities."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs, targets):
        """The mean."""
        truth = nn.functional.one_hot(targets, outputs.shape[1])
        return self.weight * (outputs.softmax(1) - truth).square().sum(1).mean()


def first_ones(clean, classes, rate, generator, *, shift: int = 1):
    """The first samples are wrong."""
    observed = clean.clone()
    wrong = round(rate * len(clean))
    observed[:wrong] = (observed[:wrong] + shift) % classes
    return Corruption(observed)


NOISE_REGISTRY.register("first")(NoiseKind(first_ones))


def margin(subject):
    """How sure the network is."""
    outputs = subject.model(subject.data.held_out.inputs).softmax(1)
    return {"mean_confidence": outputs.max(1).values.mean().item()}


register_measure("confidence", ["mean_confidence"], margin)
register_quantity("confidence", Quantity("mean confidence on test data", ("mean_confidence",), "share", margin=0.01))
register(
    Claim(
        id="X1",
        statement="Scaled SAM is confident.",
        place="here",
        predictions=[Level("confidence", Variant("scaled SAM", "scaled-sam"), sign=1)],
    )
)
'''

STUDY = """
name = "own"
dataset = "blobs"
seeds = [0]
claims = ["x1", "L1"]
[model]
name = "linear"
[noise]
kind = "first"
rates = [0.25]
shift = 1
[training]
epochs = 2
optimizer = "adamw"
alignment_batches = 0
[[methods]]
name = "scaled-sam"
label = "Scaled"
rho = [0.1, 0.2]
factor = 3.0
loss = "brier"
[measure]
samples = 20
eigenvalues = 1
trace_max_products = 10
sharpness_steps = 2
"""


@contextlib.contextmanager
def forgotten_at_the_end():
    """Puts back what is registered meanwhile; the function that is given forgets it at once, as a new process would."""
    before = [dict(registry) for registry in REGISTRIES]

    def forget():
        for registry, content in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(content)

    yield forget
    forget()


def study(*arguments, engine="serial"):
    return cli.main(["study", "own.toml", "--out", "out", "--engine", engine, "--threads", "1", *arguments])
