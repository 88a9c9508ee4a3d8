"""Surfaces beside loss-landscapes, landscaper and a plain loop: seconds, evaluations, deviation.

    python -m venv /tmp/loss-landscapes
    /tmp/loss-landscapes/bin/pip install torch==2.13.0 loss-landscapes==3.0.6 scipy h5py
    python -m venv /tmp/landscaper               # without topopy and nglpy, which do not build and only plot
    /tmp/landscaper/bin/pip install torch==2.13.0 numpy tqdm scipy h5py
    /tmp/landscaper/bin/pip install --no-deps landscaper==1.3.1
    pip install -c constraints.txt -e '.[data]'
    python bench/surfaces.py --loss-landscapes /tmp/loss-landscapes --landscaper /tmp/landscaper

Every surface is computed in its own process, with one thread and the same allocator, on the same trained model and
data; the processes take turns. Time is the CPU time of the call, or with `--device cuda` the time on the clock. It
includes all set-up except for imports. The deviation is the largest difference from a loop in float64 over 25 points of
the grid, relative to the range of the surface. The loop uses the coordinates and directions that each tool states. The
row of a tool that fails says how it failed.

On a GPU, loss-landscapes fails: it makes its directions on the CPU and adds them to weights on the GPU. Here its
directions are made on the GPU, which its rows say; nothing else of it is changed.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import LOSS, Case, trained
from timing import last_line, parser_of, table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "MLP 256-256": ("mlp", {"hidden": [256, 256]}, 1000),
    "CNN 16-32-64, BatchNorm": ("cnn", {"channels": [16, 32, 64]}, 100),
    "ResNet-20": ("resnet", {"depth": 20}, 20),
}
EPOCHS = {"mlp": 10, "cnn": 3, "resnet": 1}
CHUNK = 250
REACH = 1.0
"""Largest multiple of filter-normalized directions; for landscaper, the share of the model's norm."""


def mean_loss(model: nn.Module, data: Any) -> float:
    """The mean loss, as a careful user writes it."""
    inputs, targets = data
    with torch.no_grad():
        parts = [
            LOSS(model(x), y) * len(x) for x, y in zip(inputs.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
    return (sum(parts) / len(inputs)).item()


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def plain_loop(model: nn.Module, data: Any, steps: int) -> tuple[Any, Any, int]:
    """Sets the weights and evaluates point by point, along the directions of our surface."""
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
    device = data[0].device

    def kept(inner: Any) -> Any:
        def make(given: Any) -> Any:
            # it draws on torch's default device, the CPU, and then adds the draws to weights on the GPU
            with torch.device(device):
                made.append(inner(given))
            return made[-1]

        return make

    for name in ("rand_u_like", "orthogonal_to"):
        setattr(peer, name, kept(getattr(peer, name)))
    weights = flat(model.parameters()).norm()
    # it divides by the distance; after scaling, a step is norm / distance / steps
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
    # each tensor of a direction has the norm sqrt(entries); at coordinate 1 the whole has the model's norm
    norm = flat(model.parameters()).norm()
    vectors = [flat(d * d.numel() ** 0.5 / d.norm() for d in direction) for direction in directions]
    step = coordinates[0][1] - coordinates[0][0]
    return loss, torch.stack([step * norm * v / v.norm() for v in vectors], 1), steps**2


WHO: dict[str, Any] = {
    "ours": ours,
    "plain loop": plain_loop,
    "ours, adaptive": lambda *arguments: ours(*arguments, adaptive=True),
    "loss-landscapes": loss_landscapes,
    "landscaper": landscaper,
}


def work(who: str, case: str, steps: int, device: str, out: str) -> None:
    """Computes one surface in this process."""
    from landscape import tune_allocator

    torch.set_num_threads(1)
    tune_allocator()
    model, inputs, targets = torch.load(case, weights_only=False)
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    # work that a process does only once, such as importing torch's tracer, some 2 s
    WHO[who](copy.deepcopy(model), (inputs[:2], targets[:2]), 5)
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    # all tools return NumPy arrays, so that the device has finished when they return
    loss, vectors, evaluations = WHO[who](model, (inputs, targets), steps)
    seconds = clock() - start
    np.savez(out, loss=loss, vectors=vectors.cpu().numpy(), seconds=seconds, evaluations=evaluations)


def deviation(case: Case, device: str, loss: Any, vectors: Tensor) -> float:
    """The largest difference from a loop in float64 over 25 points, relative to the range of the surface."""
    model, inputs, targets = case
    model, inputs = copy.deepcopy(model).double().to(device), inputs.double().to(device)
    data = inputs, targets.to(device)
    vectors = vectors.to(device)
    start = flat(model.parameters())
    middle = (len(loss) - 1) / 2
    some = np.linspace(0, len(loss) - 1, 5).round().astype(int)
    worst = 0.0
    for i, j in itertools.product(some, repeat=2):
        point = start + (i - middle) * vectors[:, 0] + (j - middle) * vectors[:, 1]
        nn.utils.vector_to_parameters(point, model.parameters())
        worst = max(worst, abs(mean_loss(model, data) - loss[i, j]))
    return worst / float(np.ptp(loss))


def computed(
    who: str, python: Path, case: Path, steps: int, arguments: argparse.Namespace
) -> dict[str, Any] | str:
    """The surface from a separate process, or the last line of its error."""
    out = case.with_suffix(".npz")
    command = [python, __file__, "--worker", who, case, str(steps), out, "--device", arguments.device]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    try:
        subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=arguments.limit
        )
    except subprocess.CalledProcessError as failure:
        return last_line(failure.stderr or f"exit status {failure.returncode}")
    except subprocess.TimeoutExpired:
        return f"more than {arguments.limit:g} s"
    except OSError as failure:
        return last_line(failure)
    with np.load(out) as result:
        return dict(result)


def rows_of(
    title: str, case: Case, path: Path, steps: int, pythons: dict[str, Path], arguments: argparse.Namespace
) -> Iterator[list[str]]:
    """A row for each tool. Ours is the first, because all others are compared with it."""
    own = float("nan")
    for who, python in pythons.items():
        found = [computed(who, python, path, steps, arguments) for _ in range(arguments.rounds)]
        label = f"{title}, {len(case[1])}"
        failures = [result for result in found if isinstance(result, str)]
        if failures:
            yield [label, f"{steps} x {steps}", who, f"failed ({failures[-1]})", "", "", ""]
            continue
        seconds = float(np.median([result["seconds"] for result in found]))
        own = seconds if who == "ours" else own
        last = found[-1]
        error = deviation(case, arguments.device, last["loss"], torch.from_numpy(last["vectors"]))
        moved = who == "loss-landscapes" and arguments.device == "cuda"
        yield [
            label, f"{steps} x {steps}", who + (", directions made on the GPU" if moved else ""),
            f"{seconds:.2f}", f"{seconds / own:.2f}", str(last["evaluations"]), f"{error:.0e}",
        ]  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--loss-landscapes", type=Path, help="environment that has it")
    parser.add_argument("--landscaper", type=Path, help="environment that has it")
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 51])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--samples", type=int, help="1,000 for the MLP, 100 for the CNN, 20 for the ResNet")
    parser.add_argument("--who", nargs="+", choices=WHO, default=list(WHO), metavar="WHO", help="ours always")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3600, help="seconds of one surface")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        who, case, steps, out = arguments.worker
        work(who, case, int(steps), arguments.device, out)
        return
    environments = {"loss-landscapes": arguments.loss_landscapes, "landscaper": arguments.landscaper}
    pythons = {who: Path(sys.executable) for who in WHO if who not in environments}
    pythons |= {who: place / "bin/python" for who, place in environments.items() if place is not None}
    pythons = {who: python for who, python in pythons.items() if who in ("ours", *arguments.who)}
    print(f"torch {torch.__version__}, {arguments.device}, one thread, {arguments.rounds} rounds", flush=True)
    header = ["model, samples", "grid", "who", "seconds", "of ours", "evaluations", "deviation"]
    with tempfile.TemporaryDirectory() as folder:
        for title in arguments.models:
            name, options, samples = MODELS[title]
            samples = arguments.samples or samples
            model, inputs, targets = trained(name, options, samples, EPOCHS[name], arguments.device)
            case = model.cpu(), inputs.cpu(), targets.cpu()
            path = Path(folder) / f"{name}.pt"
            torch.save(case, path)
            for steps in arguments.steps:
                rows = rows_of(title, case, path, steps, pythons, arguments)
                table(f"{title}, {steps} x {steps} points", header, rows)


if __name__ == "__main__":
    main()
