"""An epoch of ResNet-18 with SGD, SAM and NCSAM, plain and compiled, on images of CIFAR-10's size and number.

    python bench/resnet18.py --device cuda       # under 90 seconds, most of them torch.compile's
    python bench/resnet18.py --images 256 --batch-size 32 --steps 2 --width 4

Batches have 128 images with crop and flip, in bfloat16 by autocast, channels last. The images are random, because time
does not depend on them. After some steps that are not counted, 100 steps are timed and scaled to the 391 steps of an
epoch. All methods share one compiled model, so that a method compiles only passes that earlier methods had not.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timing import last_line, now, parser_of, table
from torch import Tensor, nn

from ncsam import Augmentation, Split, build_method, build_model, in_fastest_layout

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("plain", {}),
    "SAM": ("sam", {"rho": 0.1}),
    "NCSAM, flip ratio 0.4": ("ncsam", {"rho": 0.1, "flip_ratio": 0.4, "strength": 0.1, "warmup": 0.25}),
}
GOAL = 15
"""Seconds of an epoch of NCSAM on one H100."""


def random_images(count: int, device: str) -> Split:
    """Images of bytes, 3 x 32 x 32, and labels of ten classes, all on the device."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 10, (count,), generator=generator)
    return Split(pixels, targets, torch.full((3,), 127.5), torch.full((3,), 64.0)).to(device)


def stepper(
    model: nn.Module, method: tuple[str, dict[str, Any]], images: Split, batch_size: int
) -> Callable[[], Tensor]:
    """A training step on the next batch of the epoch, with its drawing and augmentation."""
    name, settings = method
    trained = build_method(
        name, model, nn.CrossEntropyLoss(), seed=0, clean_targets=images.targets, **settings
    )
    trained.progress = 1.0
    trained.passes.autocast_dtype = torch.bfloat16
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    device = images.targets.device
    generator = torch.Generator(device).manual_seed(0)
    augment = Augmentation(crop=4, flip=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(device)
    whole = [batch for batch in order.split(batch_size) if len(batch) == batch_size]
    batches = itertools.cycle(whole)

    def step() -> Tensor:
        indices = next(batches)
        inputs = images.batch(indices, lambda pixels: augment(pixels, generator))
        optimizer.zero_grad()
        loss = trained.backward(inputs, images.targets[indices], indices)
        optimizer.step()
        return loss

    return step


def rows_of(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """A row for each method, first plain, then compiled."""
    images = random_images(arguments.images, arguments.device)
    per_epoch = -(-arguments.images // arguments.batch_size)
    for compiled in (False, True)[: 1 + arguments.compile]:
        model = build_model("resnet18", (3, 32, 32), 10, seed=0, width=arguments.width).to(arguments.device)
        model = in_fastest_layout(model).train()
        # dynamic=False, because code for any size, such as that of the 51 drawn samples, would slow batches of 128
        used: Any = torch.compile(model, dynamic=False) if compiled else model
        base = float("nan")
        for label, method in METHODS.items():
            way = "compiled" if compiled else "as it is"
            try:
                step = stepper(used, method, images, arguments.batch_size)
                start = now(arguments.device)
                for _ in range(arguments.warmup_steps):
                    step()
                warm = now(arguments.device)
                for _ in range(arguments.steps):
                    loss = step()
                seconds = (now(arguments.device) - warm) / arguments.steps
            except Exception as failure:
                yield [label, way, f"failed ({last_line(failure)})", *[""] * 5]
                continue
            base = seconds if label == "SGD" else base
            state = f"{loss.item():.2f}"
            yield [
                label, way, f"{1e3 * seconds:.1f}", f"{seconds / base:.2f}", f"{seconds * per_epoch:.1f}",
                f"{arguments.batch_size / seconds:.0f}", f"{warm - start:.1f}", state,
            ]  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__, with_device=True)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--warmup-steps", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    # the steps that are not counted find the fastest convolution of each shape
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}, {arguments.images} images", flush=True)
    header = [
        "method",
        "model",
        "ms a step",
        "of SGD",
        "s an epoch",
        "images/s",
        "s of the first steps",
        "last loss",
    ]
    table(
        f"ResNet-18, bfloat16, batches of {arguments.batch_size}; goal: NCSAM under {GOAL} s",
        header,
        rows_of(arguments),
    )


if __name__ == "__main__":
    main()
