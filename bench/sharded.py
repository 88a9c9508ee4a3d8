"""Traffic and gathered weights of measurements under FSDP2, counted on two ranks, and a plan for larger models.

    python bench/sharded.py            # a minute on two cores; writes docs/tables/sharded.csv and scale.csv

Counts do not depend on the machine. Times and bytes of the plan follow from them: a rank that gathers the model once
receives its weights in float32, less its own part.
"""

from __future__ import annotations

import csv
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from landscape import Objective
from landscape.krylov.eigenpairs import most_vectors
from landscape.model import fully_sharded

TABLES = Path(__file__).parents[1] / "docs" / "tables"
WEIGHTS = (10**8, 10**9, 10**10)
RANKS = 64
BYTES = 4


class Counter:
    """Counts what is gathered and summed, in sizes of the model, and the most gathered weights that are alive.

    Attributes:
        gathered: entries that left an all-gather.
        summed: entries that entered a reduce-scatter.
        alive: most entries of gathered weights in memory at a time.
    """

    def __init__(self) -> None:
        self.gathered = self.summed = self.alive = 0
        self._all_gather, self._reduce_scatter = fully_sharded.ALL_GATHER, fully_sharded.REDUCE_SCATTER

    def __enter__(self) -> Counter:
        fully_sharded.ALL_GATHER, fully_sharded.REDUCE_SCATTER = self._gather, self._scatter
        return self

    def __exit__(self, *_: object) -> None:
        fully_sharded.ALL_GATHER, fully_sharded.REDUCE_SCATTER = self._all_gather, self._reduce_scatter

    def _gather(self, found: Tensor, own: Tensor, **options: object) -> None:
        self._all_gather(found, own, **options)
        self.gathered += found.numel()
        self.alive = max(self.alive, fully_sharded.KNOWN.alive() + found.numel())

    def _scatter(self, own: Tensor, rows: Tensor, **options: object) -> None:
        self._reduce_scatter(own, rows, **options)
        self.summed += rows.numel()


def counts(layers: int, width: int) -> list[dict[str, object]]:
    """The rows of the table: a loss, a gradient and a product of one chunk, on a stack of layers that are units each.

    Called on each rank.
    """
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    samples = torch.randn(4, width)
    objective = Objective(model, nn.MSELoss(), (samples, samples.flip(0)))
    vector = torch.ones_like(objective.theta)
    measured: dict[str, Callable[[], object]] = {
        "loss": objective.value,
        "gradient": objective.gradient,
        "product": lambda: objective.hvp(vector),
        "Gauss-Newton product": lambda: objective.ggnvp(vector),
    }
    rows: list[dict[str, object]] = []
    for name, measure in measured.items():
        measure()  # the first one is preceded by checks
        with Counter() as counter:
            measure()
        sizes = (each / objective.n_parameters for each in (counter.gathered, counter.summed))
        gathered, summed = sizes
        units = counter.alive / (objective.n_parameters / layers)
        rows.append({"measured": name, "gathered": gathered, "summed": summed, "units_in_memory": units})
    return rows


def plan(constants: list[dict[str, str]]) -> list[dict[str, object]]:
    """GiB on each of 64 ranks by the number of weights: a vector, a search for one eigenvalue, traffic of a product."""
    product = next(row for row in constants if row["measured"] == "product")
    sizes = float(product["gathered"]) + float(product["summed"])
    rows = []
    for weights in WEIGHTS:
        whole = BYTES * weights / 2**30
        rows.append(
            {
                "weights": f"{weights:.0e}",
                "vector": f"{whole / RANKS:.3g}",
                "one_eigenvalue": f"{whole / RANKS * (most_vectors(1) + 1):.3g}",
                "product_traffic": f"{sizes * whole * (RANKS - 1) / RANKS:.3g}",
            }
        )
    return rows


def write(name: str, rows: list[dict[str, object]]) -> None:
    """Writes a table."""
    with (TABLES / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(name: str) -> list[dict[str, str]]:
    """The rows of a table."""
    with (TABLES / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _rank(rank: int, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    rows = counts(layers=8, width=64)
    if rank == 0:
        write("sharded", rows)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Writes both tables."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port,), nprocs=2)  # type: ignore[no-untyped-call]
    write("scale", plan(read("sharded")))
    sys.stdout.write((TABLES / "sharded.csv").read_text() + (TABLES / "scale.csv").read_text())


if __name__ == "__main__":
    main()
