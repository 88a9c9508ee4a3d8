"""Surfaces beside loss-landscapes, landscaper and a plain loop: seconds, evaluations, deviation.

    python -m venv /tmp/loss-landscapes
    /tmp/loss-landscapes/bin/pip install torch==2.13.0 loss-landscapes==3.0.6 scipy h5py
    python -m venv /tmp/landscaper               # topopy and nglpy, which it only plots with, do not build: left out
    /tmp/landscaper/bin/pip install torch==2.13.0 numpy tqdm scipy h5py
    /tmp/landscaper/bin/pip install --no-deps landscaper==1.3.1
    pip install -c constraints.txt -e '.[data]'
    python bench/surfaces.py --loss-landscapes /tmp/loss-landscapes --landscaper /tmp/landscaper

Every surface is computed in a process of its own, with one thread and the same allocator, on the same trained model
and data; the processes take turns. Time is that of the call, with all that it sets up but what a process imports once:
CPU time, or with `--device cuda` the time on the clock. Deviation: the largest from a loop in float64 over 25 points of
the grid, at the coordinates that each one states for them with the directions that it used, relative to the range of
the surface.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
LOSS = nn.CrossEntropyLoss()
MODELS = {
    "MLP 256-256": ("mlp", {"hidden": [256, 256]}, 1000),
    "CNN 16-32-64, BatchNorm": ("cnn", {"channels": [16, 32, 64]}, 100),
    "ResNet-20": ("resnet", {"depth": 20}, 20),
}
EPOCHS = {"mlp": 10, "cnn": 3, "resnet": 1}
CHUNK = 250
REACH = 1.0
"""Filter-normalised multiples, or for landscaper's scale the share of the model's norm."""


def trained(
    name: str, options: dict[str, Any], samples: int, epochs: int
) -> tuple[nn.Module, Tensor, Tensor]:
    """A model trained on mnist-5k with 40% symmetric label noise, and the samples to measure on."""
    from ncsam import Plain, build_model, corrupt_labels, fit, load_dataset

    dataset = load_dataset("mnist-5k")
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.4, seed=0)
    model = build_model(name, dataset.input_shape, dataset.num_classes, seed=0, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(
        Plain(model, LOSS),
        optimizer,
        dataset.train,
        labels,
        dataset.test,
        epochs=epochs,
        batch_size=128,
        seed=0,
    )
    return model.eval(), dataset.train.inputs[:samples], labels.observed[:samples]


def mean_loss(model: nn.Module, data: Any) -> float:
    """As a careful user writes it."""
    inputs, targets = data
    with torch.no_grad():
        parts = [
            LOSS(model(x), y) * len(x) for x, y in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
    return (sum(parts) / len(inputs)).item()


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def plain_loop(model: nn.Module, data: Any, steps: int) -> tuple[Any, Any, int]:
    """Sets the weights and evaluates, point by point, along the directions that ours takes."""
    from landscape import Objective, filter_normalized_directions

    objective = Objective(model, LOSS, data)
    directions = filter_normalized_directions(objective, 2, seed=0).vectors
    start, axis = objective.theta, np.linspace(-REACH, REACH, steps)
    loss = np.empty((steps, steps))
    for i, j in itertools.product(range(steps), repeat=2):
        point = start + axis[i] * directions[:, 0] + axis[j] * directions[:, 1]
        nn.utils.vector_to_parameters(point, model.parameters())
        loss[i, j] = mean_loss(model, data)
    step = 2 * REACH / (steps - 1)
    return loss, step * directions.double(), steps**2


def ours(model: nn.Module, data: Any, steps: int, *, adaptive: bool = False) -> tuple[Any, Any, int]:
    from landscape import Objective, filter_normalized_directions, surface

    objective = Objective(model, LOSS, data)
    directions = filter_normalized_directions(objective, 2, seed=0)
    plane = surface(objective, directions, extent=REACH, steps=steps, adaptive=adaptive)
    step = 2 * REACH / (steps - 1)
    return plane.loss, step * directions.vectors.double(), plane.evaluations


def loss_landscapes(model: nn.Module, data: Any, steps: int) -> tuple[Any, Any, int]:
    import loss_landscapes.main as peer
    from loss_landscapes.metrics import Loss

    made: list[Any] = []
    for name in ("rand_u_like", "orthogonal_to"):
        inner = getattr(peer, name)
        setattr(peer, name, lambda given, inner=inner: made.append(inner(given)) or made[-1])
    weights = flat(model.parameters()).norm()
    # its distance divides; after scaling a step is norm / distance / steps
    loss = peer.random_plane(
        model, Loss(LOSS, *data), distance=weights.item(), steps=steps, normalization="filter"
    )
    vectors = torch.stack([flat(direction.parameters) for direction in made], 1)
    return loss, vectors, steps**2


def landscaper(model: nn.Module, data: Any, steps: int) -> tuple[Any, Any, int]:
    # the package's own __init__ needs topopy and nglpy, which do not build
    if "landscaper" not in sys.modules:
        found = importlib.util.find_spec("landscaper")
        package = types.ModuleType("landscaper")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["landscaper"] = package
    from landscaper.compute import compute_loss_landscape

    generator = torch.Generator().manual_seed(0)
    device = data[0].device
    directions = [
        [torch.randn(p.shape, generator=generator).to(device) for p in model.parameters()] for _ in range(2)
    ]
    distance = 0.5
    loss, coordinates = compute_loss_landscape(
        model, data, directions, mean_loss, steps=steps, distance=distance, dim=2, device=device.type
    )
    # it gives each tensor of a direction the norm sqrt(entries), and the whole the model's norm at coordinate 1
    norm = flat(model.parameters()).norm()
    vectors = [flat(d * d.numel() ** 0.5 / d.norm() for d in direction) for direction in directions]
    step = coordinates[0][1] - coordinates[0][0]
    return loss, torch.stack([step * norm * v / v.norm() for v in vectors], 1), steps**2


WHO: dict[str, Any] = {
    "plain loop": plain_loop,
    "ours": ours,
    "ours, adaptive": lambda *arguments: ours(*arguments, adaptive=True),
    "loss-landscapes": loss_landscapes,
    "landscaper": landscaper,
}


def work(who: str, case: str, steps: int, device: str, out: str) -> None:
    """One surface in this process."""
    from landscape import tune_allocator

    torch.set_num_threads(1)
    tune_allocator()
    model, inputs, targets = torch.load(case, weights_only=False)
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    # what a process does but once, such as importing torch's tracer, some 2 s
    WHO[who](copy.deepcopy(model), (inputs[:2], targets[:2]), 5)
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    # all give NumPy arrays, so that the device has done its work when they return
    loss, vectors, evaluations = WHO[who](model, (inputs, targets), steps)
    seconds = clock() - start
    np.savez(out, loss=loss, vectors=vectors.cpu().numpy(), seconds=seconds, evaluations=evaluations)


def deviation(case: Path, loss: Any, vectors: Tensor) -> float:
    """The largest over 25 points, from a loop in float64, relative to the range of the surface."""
    model, inputs, targets = torch.load(case, weights_only=False)
    model, inputs = model.double(), inputs.double()
    start = flat(model.parameters())
    middle = (len(loss) - 1) / 2
    some = np.linspace(0, len(loss) - 1, 5).round().astype(int)
    worst = 0.0
    for i, j in itertools.product(some, repeat=2):
        point = start + (i - middle) * vectors[:, 0] + (j - middle) * vectors[:, 1]
        nn.utils.vector_to_parameters(point, model.parameters())
        worst = max(worst, abs(mean_loss(model, (inputs, targets)) - loss[i, j]))
    return worst / float(np.ptp(loss))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loss-landscapes", type=Path, help="environment that has it")
    parser.add_argument("--landscaper", type=Path, help="environment that has it")
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 51])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        who, case, steps, out = args.worker
        work(who, case, int(steps), args.device, out)
        return
    pythons = {"loss-landscapes": args.loss_landscapes, "landscaper": args.landscaper}
    print(f"torch {torch.__version__}, {args.device}, one thread, {args.rounds} rounds")
    print("\n| model, samples | grid | who | seconds | of ours | evaluations | deviation |")
    print("|---|---|---|---|---|---|---|")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for title, (name, options, samples) in MODELS.items():
            if title not in args.models:
                continue
            case = Path(folder) / f"{name}.pt"
            torch.save(trained(name, options, samples, epochs=EPOCHS[name]), case)
            for steps in args.steps:
                found: dict[str, list[Any]] = {}
                for _ in range(args.rounds):
                    for who in WHO:
                        if who in pythons and pythons[who] is None:
                            continue
                        python = pythons[who] / "bin/python" if who in pythons else sys.executable
                        out = Path(folder) / "out.npz"
                        command = [python, __file__, "--worker", who, case, str(steps), out]
                        command += ["--device", args.device]
                        subprocess.run(command, env=environment, check=True, capture_output=True)
                        with np.load(out) as result:
                            found.setdefault(who, []).append(dict(result))
                own = np.median([result["seconds"] for result in found["ours"]])
                for who, results in found.items():
                    seconds = np.median([result["seconds"] for result in results])
                    last = results[-1]
                    error = deviation(case, last["loss"], torch.from_numpy(last["vectors"]))
                    print(
                        f"| {title}, {samples} | {steps} x {steps} | {who} | {seconds:.1f} | {seconds / own:.2f} | "
                        f"{last['evaluations']} | {error:.0e} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
