"""The cost of a step of each method, and of an epoch of `fit` beside a plain DataLoader loop.

    pip install -c constraints.txt -e '.[data,bench]'
    python bench/training.py                     # some 10 minutes on 2 cores
    python bench/training.py --device cuda       # --compile: with torch.compile, after a minute of compiling

All that is compared takes turns in one process with the same allocator, threads and data. Before an epoch is timed, a
first one loads the libraries of a GPU and compiles models; the additional time of the first epoch is printed
separately.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# before torch is imported: two OpenMP teams that spin at their barriers slow each other down many times over
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytorch_optimizer
import torch
from kernels import kernels_of
from timing import last_line, median_seconds, now, parser_of, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from landscape import tune_allocator
from ncsam import (
    SAM,
    Augmentation,
    NoisyLabels,
    Split,
    build_method,
    build_model,
    corrupt_labels,
    fit,
    in_fastest_layout,
    load_dataset,
)

LOSS = nn.CrossEntropyLoss()
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP 256-256": ("mlp", {"hidden": [256, 256]}),
    "LeNet": ("lenet", {}),
    "CNN 16-32-64, BatchNorm": ("cnn", {"channels": [16, 32, 64]}),
    "ResNet-8": ("resnet", {"depth": 8}),
}
FLIP_RATIO = 0.4
COMPENSATED = {"rho": 0.1, "flip_ratio": FLIP_RATIO, "strength": 0.1, "warmup": 0.0}
METHODS: dict[str, tuple[str, dict[str, Any], float]] = {
    # name: (method, settings, gradients a step)
    "SAM": ("sam", {"rho": 0.1}, 2),
    "ASAM": ("asam", {"rho": 0.5}, 2),
    "GSAM": ("gsam", {"rho": 0.1}, 2),
    "FriendlySAM": ("friendly-sam", {"rho": 0.1}, 2),
    "SANER": ("saner", {"rho": 0.1}, 2),
    "BSAM": ("bsam", {"rho": 0.1}, 3),
    "NCSAM": ("ncsam", COMPENSATED, 2 + FLIP_RATIO),
    "NCSAM, clusters": ("cluster-ncsam", COMPENSATED, 2 + FLIP_RATIO),
    "SAM, oracle": ("oracle-sam", {"rho": 0.1}, 2),
}


def stepper(
    method_name: str, settings: dict[str, Any], model: nn.Module, inputs: Tensor, targets: Tensor
) -> Callable[[], None]:
    """One training step on a batch, with the step of the optimizer."""
    method = build_method(method_name, model, LOSS, seed=0, clean_targets=targets, **settings)
    method.progress = 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    indices = torch.arange(len(targets), device=targets.device)

    def step() -> None:
        optimizer.zero_grad()
        method.backward(inputs, targets, indices)
        optimizer.step()

    return step


def davda54_stepper(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """The same step, by the widely used wrapper with two calls."""
    optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=1e-3, momentum=0.9)
    return lambda: davda54_step(optimizer, model, inputs, targets)


def davda54_step(optimizer: Any, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    LOSS(model(inputs), targets).backward()
    optimizer.first_step(zero_grad=True)
    LOSS(model(inputs), targets).backward()
    optimizer.second_step(zero_grad=True)


def gradient_alone(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """Only the gradient of the drawn samples, which NCSAM needs beside a step of SAM."""

    def run() -> None:
        torch.autograd.grad(LOSS(model(inputs), targets), list(model.parameters()))

    return run


def rows_of_steps(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Two rows for each model: the time of a step of each method, and the number of operations that it starts."""
    shapes = {"mlp": (1, 28, 28), "lenet": (1, 28, 28)}
    yield ["gradients", "", "1", *(f"{count:g}" for *_, count in METHODS.values()), "2", f"{FLIP_RATIO:g}"]
    generator = torch.Generator().manual_seed(0)
    device = arguments.device
    measured: dict[str, dict[str, Callable[[], None]]] = {}
    for title in arguments.models:
        name, options = MODELS[title]
        shape = shapes.get(name, (3, 32, 32))
        inputs = torch.randn(arguments.batch_size, *shape, generator=generator).to(device)
        targets = torch.randint(0, 10, (arguments.batch_size,), generator=generator).to(device)

        def model(
            name: str = name, shape: tuple[int, ...] = shape, options: dict[str, Any] = options
        ) -> nn.Module:
            return in_fastest_layout(build_model(name, shape, 10, seed=0, **options).to(device))

        tasks = {
            method: stepper(method_name, settings, model(), inputs, targets)
            for method, (method_name, settings, _) in {"SGD": ("plain", {}, 1), **METHODS}.items()
        }
        tasks["pytorch-optimizer's SAM"] = davda54_stepper(model(), inputs, targets)
        drawn = int(FLIP_RATIO * arguments.batch_size)
        tasks["g*"] = gradient_alone(model(), inputs[:drawn].clone(), targets[:drawn])
        # other work of the machine disturbs steps of a few milliseconds more
        rounds = arguments.rounds * (5 if name in shapes else 1)
        seconds = median_seconds(tasks, rounds, device, warmups=3)
        base = seconds["SGD"]
        yield [title, f"{1e3 * base:.2f}", *(f"{one / base:.2f}" for one in seconds.values())]
        measured[title] = tasks
    # last, because the profiler may slow later timings
    for title, tasks in measured.items():
        try:
            counts = {method: kernels_of(task, device).count for method, task in tasks.items()}
        except Exception as failure:
            yield [f"{title}: not counted ({last_line(failure)})", *[""] * (len(tasks) + 1)]
        else:
            base = counts["SGD"]
            yield [f"{title}: kernels", str(base), *(f"{count / base:.2f}" for count in counts.values())]


def costs_of_steps(arguments: argparse.Namespace) -> None:
    header = [
        "model",
        "SGD, ms or kernels",
        "SGD",
        *METHODS,
        "pytorch-optimizer's SAM",
        "gradient of g* alone",
    ]
    title = (
        f"Cost of a step in steps of SGD, batches of {arguments.batch_size} (first row: gradients; kernels: what is "
        "started on the GPU, on the CPU operations of torch)"
    )
    table(title, header, rows_of_steps(arguments))


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images of bytes, which are cropped, mirrored and normalized one by one as torchvision's transforms do."""

    def __init__(self, split: Split, targets: Tensor) -> None:
        self.split, self.targets = split, targets
        self.mean, self.std = split.mean.view(-1, 1, 1), split.std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = nn.functional.pad(self.split.pixels[index], (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image[:, top : top + self.split.input_shape[1], left : left + self.split.input_shape[2]]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() - self.mean) / self.std, int(self.targets[index])


@dataclass(frozen=True)
class Epochs:
    """Seconds of the first epoch and of the later ones, and the accuracy on the test set after the last epoch."""

    first: float
    later: list[float]
    accuracy: float


def by_epoch(run: Callable[[Callable[[], None]], None], device: str) -> tuple[float, list[float]]:
    """Runs a function that calls its argument after each epoch; returns the seconds of the first and other epochs."""
    ends = [now(device)]
    run(lambda: ends.append(now(device)))
    first, *later = (end - start for start, end in itertools.pairwise(ends))
    return first, later


def plain_loop(
    model: nn.Module, loader: DataLoader[Any], splits: tuple[Split, Split], epochs: int, device: str
) -> Epochs:
    """Epochs of the loop that most users write, with the evaluations on training and test set that `fit` makes."""
    optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.05, momentum=0.9)

    def run(epoch_ends: Callable[[], None]) -> None:
        for _ in range(epochs):
            model.train()
            for inputs, targets in loader:
                davda54_step(optimizer, model, inputs.to(device), targets.to(device))
            for split in splits:
                accuracy(model, split)
            epoch_ends()

    return Epochs(*by_epoch(run, device), accuracy(model, splits[1]))


def fitted(
    model: nn.Module,
    data: tuple[Split, NoisyLabels, Split],
    seed: int,
    augmented: bool,
    arguments: argparse.Namespace,
) -> Epochs:
    """The same epochs by `fit`, compiled if asked for."""
    # all models share a limited amount of compiled code, so that of earlier models would count for this one
    torch._dynamo.reset()
    # and each model has several: for each batch size, with and without gradients, autocast and moving statistics
    torch._dynamo.config.recompile_limit = 64
    method = SAM(torch.compile(model) if arguments.compile else model, LOSS, rho=0.1)  # type: ignore[arg-type]
    if arguments.device == "cuda":
        method.passes.autocast_dtype = torch.bfloat16
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def run(epoch_ends: Callable[[], None]) -> None:
        fit(
            method,
            optimizer,
            *data,
            epochs=1 + arguments.epochs,
            batch_size=arguments.batch_size,
            seed=seed,
            augmentation=Augmentation(crop=4, flip=True) if augmented else None,
            on_epoch=lambda *_: epoch_ends(),
        )

    return Epochs(*by_epoch(run, arguments.device), accuracy(model, data[2]))


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    model.eval()
    hits = 0
    for indices in torch.arange(len(split), device=split.targets.device).split(500):
        hits += int((model(split.batch(indices)).argmax(1) == split.targets[indices]).sum())
    return hits / len(split)


def rows_of_epochs(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """A row for each model."""
    dataset = load_dataset("mnist-5k")
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.2, seed=0)
    mean, std = dataset.mean.repeat(3), dataset.std.repeat(3)
    images, tests = (
        Split(split.pixels.repeat(1, 3, 1, 1), split.targets, mean, std)
        for split in (dataset.train, dataset.test)
    )
    for title in arguments.models:
        name, options = MODELS[title]
        augmented = name in ("cnn", "resnet")
        label = title + (", crop and flip" if augmented else "")
        train, test = (images, tests) if augmented else (dataset.train, dataset.test)
        if augmented:
            source: Dataset[Any] = Augmented(train, labels.observed)
        else:
            source = TensorDataset(train.inputs, labels.observed)
        data = train.to(arguments.device), labels.to(arguments.device), test.to(arguments.device)
        plain, ours = [], []
        try:
            for seed in range(arguments.seeds):
                torch.manual_seed(seed)
                model = build_model(name, train.input_shape, 10, seed=seed, **options).to(arguments.device)
                copied = in_fastest_layout(copy.deepcopy(model))
                loader = DataLoader(source, arguments.batch_size, shuffle=True)
                epochs = 1 + arguments.epochs
                plain.append(plain_loop(model, loader, (data[0], data[2]), epochs, arguments.device))
                ours.append(fitted(copied, data, seed, augmented, arguments))
        except Exception as failure:
            yield [label, f"failed ({last_line(failure)})", *[""] * 5]
            continue
        seconds = [statistics.median(s for run in runs for s in run.later) for runs in (plain, ours)]
        ratios = [
            statistics.median(a.later) / statistics.median(b.later) for a, b in zip(plain, ours, strict=True)
        ]
        yield [
            label,
            *(f"{one:.3f}" for one in seconds),
            f"{statistics.median(ratios):.2f}",
            f"{ours[0].first - seconds[1]:.1f}",
            *(f"{100 * statistics.mean(run.accuracy for run in runs):.1f}" for runs in (plain, ours)),
        ]


def epochs_of_fit(arguments: argparse.Namespace) -> None:
    mode = ", fit compiled" if arguments.compile else ""
    precision = ", fit in bfloat16" if arguments.device == "cuda" else ""
    header = [
        "model",
        "DataLoader loop, s",
        "fit, s",
        "times faster",
        "fit's first epoch, s more",
        "accuracy of the loop, %",
        "of fit, %",
    ]
    table(
        f"An epoch of SAM on 4,000 images, batches of {arguments.batch_size}{mode}{precision}; accuracy after "
        f"{1 + arguments.epochs} epochs, mean of {arguments.seeds} seeds",
        header,
        rows_of_epochs(arguments),
    )


def main() -> None:
    parser = parser_of(__doc__, with_device=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--epochs", type=int, default=3, help="that are timed, after one that is not")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the model that fit trains")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--only", choices=("steps", "epochs"))
    parser.add_argument("--default-allocator", action="store_true", help="glibc's malloc as it comes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.default_allocator:
        tune_allocator()
    allocator = "default" if arguments.default_allocator else "tuned"
    print(
        f"torch {torch.__version__}, {arguments.threads} threads, {arguments.device}, {allocator} allocator",
        flush=True,
    )
    if arguments.only != "epochs":
        costs_of_steps(arguments)
    if arguments.only != "steps":
        epochs_of_fit(arguments)


if __name__ == "__main__":
    main()
