"""Direct and traced products of five networks: which is faster, and which one an Objective chooses by measurement.

    pip install -c constraints.txt -e '.[data,bench]' torchvision
    python bench/tracing.py                      # some 5 minutes on one core
    python bench/tracing.py --models "MLP 128" Transformer

Each network has random weights, because time does not depend on them. A row of `docs/tables/tracing.csv` holds the
network, its weights, the samples, the seconds of a gradient by plain PyTorch, and of a direct and of a traced product
in such gradients, the share of the direct time that the traced one takes, what the Objective chose, the seconds of the
choice beside the products (tracing and timing), and the product of PyHessian (its graph kept) in gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import LOSS
from timing import median_seconds, now, parser_of, write_table
from torch import Tensor, nn

from landscape import Hessian, Objective
from ncsam import build_model

TABLE = Path(__file__).parents[1] / "docs" / "tables" / "tracing.csv"
FIELDS = (
    *("network", "weights", "samples", "gradient_s", "direct", "traced", "ratio", "chosen"),
    *("choice_s", "pyhessian"),
)


def torchvision_resnet18() -> nn.Module:
    """torchvision's ResNet-18 for ten classes."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=10)
    return model


def built(name: str, shape: tuple[int, ...], classes: int, **options: Any) -> Callable[[], nn.Module]:
    """A function that builds one of our models."""
    return lambda: build_model(name, shape, classes, seed=0, **options)


def words(samples: int) -> Tensor:
    """Tokens of random words."""
    return torch.randint(1, 27, (samples, 12), generator=torch.Generator().manual_seed(0))


def images(*shape: int) -> Callable[[int], Tensor]:
    """A function that draws images of a shape."""
    return lambda samples: torch.randn(samples, *shape, generator=torch.Generator().manual_seed(0))


Network = tuple[Callable[[], nn.Module], Callable[[int], Tensor], int]
"""(model, samples -> inputs, samples)."""

MODELS: dict[str, Network] = {
    "MLP 128": (built("mlp", (1, 8, 8), 10, hidden=[128]), images(1, 8, 8), 1000),
    "CNN 32-64-64": (built("cnn", (1, 28, 28), 10, channels=[32, 64, 64]), images(1, 28, 28), 500),
    "ResNet-20": (built("resnet", (3, 32, 32), 10, depth=20), images(3, 32, 32), 64),
    "Transformer": (built("transformer", (12,), 9), words, 1000),
    "torchvision ResNet-18": (torchvision_resnet18, images(3, 32, 32), 8),
}


def row_of(name: str, rounds: int) -> tuple[str, ...]:
    make, draw, samples = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    inputs, targets = draw(samples), torch.arange(samples) % 9
    ways = {
        way: Objective(model, LOSS, (inputs, targets), chunk_size=500, linearize=way)
        for way in (False, True, "measured")
    }
    vector = torch.randn(ways[True].n_parameters, generator=torch.Generator().manual_seed(1))
    for way in (False, True):
        ways[way].hvp(vector)
    chosen = ways["measured"]
    chosen.hvp(vector)
    start = now("cpu")
    chosen.hvp(vector)
    plain = now("cpu") - start
    # as many as any measure could ask for, so that the choice is made now
    Hessian(chosen).expect(10**9)
    start = now("cpu")
    chosen.hvp(vector)
    choice = now("cpu") - start - plain
    tasks: dict[str, Callable[[], Any]] = {
        "gradient": lambda: [
            torch.autograd.grad(LOSS(model(x), y), list(model.parameters()))
            for x, y in zip(inputs.split(500), targets.split(500), strict=True)
        ],
        "direct": lambda: ways[False].hvp(vector),
        "traced": lambda: ways[True].hvp(vector),
        **peer(model, inputs, targets, vector),
    }
    seconds = median_seconds(tasks, rounds, "cpu", warmups=1)
    base = seconds.pop("gradient")
    in_gradients = {task: f"{value / base:.2f}" for task, value in seconds.items()}
    return (
        *(
            name,
            str(len(vector)),
            str(samples),
            f"{base:.4f}",
            in_gradients["direct"],
            in_gradients["traced"],
        ),
        f"{seconds['traced'] / seconds['direct']:.2f}",
        "traced" if Hessian(chosen).is_traced else "direct",
        f"{choice:.1f}",
        in_gradients.get("pyhessian", "none"),
    )


def peer(model: nn.Module, inputs: Tensor, targets: Tensor, vector: Tensor) -> dict[str, Callable[[], Any]]:
    """PyHessian's product, if it is installed."""
    try:
        from peers import Peers
    except ImportError:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        product = Peers((model, inputs, targets), 500).products()["PyHessian (graph kept)"]()
    return {"pyhessian": lambda: product(vector)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    write_table(args.table, FIELDS, (row_of(name, args.rounds) for name in args.models))


if __name__ == "__main__":
    main()
