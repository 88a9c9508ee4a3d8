"""A stream that does not fit into memory: random images, made when they are read, and never on disk.

    python bench/stream.py                              # 20 GB; each row reads them twice, with the check of the stream
    python bench/stream.py --gigabytes 1 --rows "loss;gradient"

Each row is a process of its own. It reports its peak memory beside that of the same measurement on one batch that is
held in memory, which is what the model needs. The goal is less than two batches more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from timing import table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from landscape import Objective, trace

SHAPE = (3, 224, 224)
BATCH = 64
BATCH_BYTES = BATCH * 4 * 3 * 224 * 224
MEASURES: dict[str, Callable[[Objective], object]] = {
    "loss": lambda objective: objective.value(),
    "gradient": lambda objective: objective.gradient(),
    "product": lambda objective: objective.hvp(torch.ones_like(objective.theta)),
    "trace, 2 probes": lambda objective: trace(objective, max_products=2, method="hutchinson"),
}


class RandomImages(Dataset[tuple[Tensor, Tensor]]):
    """Batches of random images in float32 with labels of ten classes. Each is drawn from a seed of its own."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        draw = np.random.Generator(np.random.SFC64(index))
        pixels = torch.from_numpy(draw.integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8))
        return pixels.float().div_(255), torch.from_numpy(draw.integers(0, 10, BATCH))


def network() -> nn.Module:
    """Patches of 16 x 16 pixels, of which a small network makes ten scores."""
    torch.manual_seed(0)
    patches = nn.Conv2d(3, 16, 16, stride=16)
    return nn.Sequential(
        patches, nn.GELU(), nn.Conv2d(16, 32, 3, stride=2), nn.GELU(), nn.Flatten(), nn.LazyLinear(10)
    )


def memory(field: str) -> int:
    """Bytes: VmRSS, what the process holds now; VmHWM, the most that it held."""
    with open("/proc/self/status") as status:
        return 1024 * int(next(line for line in status if line.startswith(field)).split()[1])


def measured(row: str, batches: int, keep: str) -> dict[str, float]:
    """Peak memory and seconds of one measurement."""
    torch.set_num_threads(1)
    model = network()
    model(torch.zeros(1, *SHAPE))
    loader = DataLoader(RandomImages(batches), batch_size=None)
    before, started = memory("VmRSS"), time.perf_counter()
    objective = Objective(model, nn.CrossEntropyLoss(), loader, keep=keep, chunk_size=BATCH)
    ready = time.perf_counter()
    MEASURES[row](objective)
    return {
        "bytes": memory("VmHWM") - before,
        "setup": ready - started,
        "seconds": time.perf_counter() - ready,
    }


def in_a_process(row: str, batches: int, keep: str) -> dict[str, float]:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--one", row, str(batches), keep]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(row: str, batches: int) -> list[str]:
    """The cells of a row."""
    needed, found = in_a_process(row, 1, "all"), in_a_process(row, batches, "none")
    more = (found["bytes"] - needed["bytes"]) / BATCH_BYTES
    numbers = found["setup"], found["seconds"], needed["bytes"] / 1e6, found["bytes"] / 1e6
    return [row, *(f"{number:.0f}" for number in numbers), f"{more:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--rows", default=";".join(MEASURES), help="separated by semicolons")
    parser.add_argument("--one", nargs=3, metavar=("ROW", "BATCHES", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        row, batches, keep = arguments.one
        print(json.dumps(measured(row, int(batches), keep)))
        return
    batches = round(arguments.gigabytes * 1e9 / BATCH_BYTES)
    table(
        f"{batches * BATCH_BYTES / 1e9:.1f} GB in batches of {BATCH_BYTES / 1e6:.1f} MB",
        ["measured", "first pass, s", "measuring, s", "one batch, MB", "stream, MB", "batches more"],
        (row_of(row, batches) for row in arguments.rows.split(";")),
    )


if __name__ == "__main__":
    main()
