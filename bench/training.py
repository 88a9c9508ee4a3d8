"""The cost of a step of each method, and of an epoch of `fit` beside a plain DataLoader loop.

    pip install -c constraints.txt -e '.[data,bench]'
    python bench/training.py                     # some 10 minutes on 2 cores
    python bench/training.py --device cuda

Everything that is compared takes turns in one process with the same allocator, threads and data.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
from collections.abc import Callable
from typing import Any

# before torch is imported: two OpenMP teams that spin at their barriers slow each other down many times over
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytorch_optimizer
import torch
from timing import median_seconds, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from landscape import tune_allocator
from ncsam import (
    SAM,
    Augmentation,
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
    """One training step on a batch, the optimizer's part included."""
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
    """The same step as the widely used two-step wrapper takes it."""
    optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=1e-3, momentum=0.9)
    return lambda: davda54_step(optimizer, model, inputs, targets)


def davda54_step(optimizer: Any, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    LOSS(model(inputs), targets).backward()
    optimizer.first_step(zero_grad=True)
    LOSS(model(inputs), targets).backward()
    optimizer.second_step(zero_grad=True)


def gradient_alone(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """What NCSAM cannot do without beside SAM's step: the gradient of the drawn samples, and nothing else."""

    def run() -> None:
        torch.autograd.grad(LOSS(model(inputs), targets), list(model.parameters()))

    return run


def costs_of_steps(arguments: argparse.Namespace) -> None:
    shapes = {"mlp": (1, 28, 28), "lenet": (1, 28, 28)}
    rows = []
    generator = torch.Generator().manual_seed(0)
    for title in arguments.models:
        name, options = MODELS[title]
        shape = shapes.get(name, (3, 32, 32))
        inputs = torch.randn(arguments.batch_size, *shape, generator=generator).to(arguments.device)
        targets = torch.randint(0, 10, (arguments.batch_size,), generator=generator).to(arguments.device)
        tasks = {}
        for method, (method_name, settings, _) in {"SGD": ("plain", {}, 1), **METHODS}.items():
            model = build_model(name, shape, 10, seed=0, **options).to(arguments.device)
            tasks[method] = stepper(method_name, settings, in_fastest_layout(model), inputs, targets)
        model = in_fastest_layout(build_model(name, shape, 10, seed=0, **options).to(arguments.device))
        tasks["pytorch-optimizer's SAM"] = davda54_stepper(model, inputs, targets)
        drawn = int(FLIP_RATIO * arguments.batch_size)
        tasks["g*"] = gradient_alone(model, inputs[:drawn].clone(), targets[:drawn])
        for task in tasks.values():
            task()
        # a step of a few milliseconds is disturbed more by what else the machine does
        rounds = arguments.rounds * (5 if name in shapes else 1)
        seconds = median_seconds(tasks, rounds, arguments.device)
        rows.append(
            [title, f"{1e3 * seconds['SGD']:.1f}", *(f"{s / seconds['SGD']:.2f}" for s in seconds.values())]
        )
    gradients = ["", "", "1", *(f"{count:g}" for *_, count in METHODS.values()), "2", f"{FLIP_RATIO:g}"]
    header = ["model", "ms a step of SGD", "SGD", *METHODS, "pytorch-optimizer's SAM", "gradient of g* alone"]
    table(
        f"Cost of a step in steps of SGD, batches of {arguments.batch_size} (first row: gradients)",
        header,
        [gradients, *rows],
    )


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images of bytes that are cropped, mirrored and normalised one by one, as torchvision's transforms do."""

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


def plain_loop(
    model: nn.Module, loader: DataLoader[Any], splits: tuple[Split, Split], epochs: int, device: str
) -> Callable[[], None]:
    """Epochs of the loop that most users write, evaluated on the training and the test set, as `fit` does."""

    def run() -> None:
        optimizer = pytorch_optimizer.SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.05, momentum=0.9)
        for _ in range(epochs):
            model.train()
            for inputs, targets in loader:
                davda54_step(optimizer, model, inputs.to(device), targets.to(device))
            for split in splits:
                accuracy(model, split)

    return run


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    model.eval()
    hits = 0
    for indices in torch.arange(len(split), device=split.targets.device).split(500):
        hits += int((model(split.batch(indices)).argmax(1) == split.targets[indices]).sum())
    return hits / len(split)


def epochs_of_fit(arguments: argparse.Namespace) -> None:
    rows = []
    dataset = load_dataset("mnist-5k")
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.2, seed=0)
    images = Split(
        dataset.train.pixels.repeat(1, 3, 1, 1),
        dataset.train.targets,
        dataset.mean.repeat(3),
        dataset.std.repeat(3),
    )
    tests = Split(dataset.test.pixels.repeat(1, 3, 1, 1), dataset.test.targets, images.mean, images.std)
    for title in arguments.models:
        name, options = MODELS[title]
        augmented = name in ("cnn", "resnet")
        train, test = (images, tests) if augmented else (dataset.train, dataset.test)
        if augmented:
            source: Dataset[Any] = Augmented(train, labels.observed)
        else:
            source = TensorDataset(train.inputs, labels.observed)
        on_device = train.to(arguments.device), labels.to(arguments.device), test.to(arguments.device)
        seconds: dict[str, list[float]] = {"plain": [], "fit": []}
        accuracies: dict[str, list[float]] = {"plain": [], "fit": []}
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            model = build_model(name, train.input_shape, 10, seed=seed, **options).to(arguments.device)
            ours = in_fastest_layout(copy.deepcopy(model))
            loader = DataLoader(source, arguments.batch_size, shuffle=True)
            method = SAM(ours, LOSS, rho=0.1)
            if arguments.device == "cuda":
                method = SAM(torch.compile(ours), LOSS, rho=0.1)  # type: ignore[arg-type]
                method.passes.autocast_dtype = torch.bfloat16
            optimizer = torch.optim.SGD(ours.parameters(), lr=0.05, momentum=0.9)

            def fitted(
                method: SAM = method,
                optimizer: torch.optim.Optimizer = optimizer,
                augmented: bool = augmented,
                data: tuple[Any, ...] = on_device,
                seed: int = seed,
            ) -> None:
                fit(
                    method,
                    optimizer,
                    *data,
                    epochs=arguments.epochs,
                    batch_size=arguments.batch_size,
                    seed=seed,
                    augmentation=Augmentation(crop=4, flip=True) if augmented else None,
                )

            tasks = {
                "plain": plain_loop(
                    model, loader, (on_device[0], on_device[2]), arguments.epochs, arguments.device
                ),
                "fit": fitted,
            }
            for key, value in median_seconds(tasks, 1, arguments.device).items():
                seconds[key].append(value / arguments.epochs)
            accuracies["plain"].append(accuracy(model, on_device[2]))
            accuracies["fit"].append(accuracy(ours, on_device[2]))
        ratios = [a / b for a, b in zip(seconds["plain"], seconds["fit"], strict=True)]
        rows.append(
            [
                title + (", crop and flip" if augmented else ""),
                *(f"{statistics.median(seconds[key]):.2f}" for key in seconds),
                f"{statistics.median(ratios):.2f}",
                *(f"{100 * statistics.mean(values):.1f}" for values in accuracies.values()),
            ]
        )
    table(
        f"An epoch of SAM on {len(labels.observed)} images, batches of {arguments.batch_size}; accuracy after "
        f"{arguments.epochs} epochs, mean of {arguments.seeds} seeds",
        ["model", "DataLoader loop, s", "fit, s", "times faster", "accuracy of the loop, %", "of fit, %"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--epochs", type=int, default=3)
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
        f"torch {torch.__version__}, {arguments.threads} threads, {arguments.device}, {allocator} allocator"
    )
    if arguments.only != "epochs":
        costs_of_steps(arguments)
    if arguments.only != "steps":
        epochs_of_fit(arguments)


if __name__ == "__main__":
    main()
