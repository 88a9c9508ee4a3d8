"""Curvature beside PyHessian, hessian-eigenthings and curvlinops: errors, products, seconds and memory.

    pip install -c constraints.txt -e '.[data,bench]'
    python bench/curvature.py                    # some 20 minutes on 2 cores
    python bench/curvature.py --device cuda      # 4,096 samples, without what needs no GPU; under 90 seconds

All tools run in one process with the same allocator, threads and data. Timings that are compared take turns. Our
numbers are in full float32. On a GPU the peers run with torch's defaults, that is with convolutions in TF32.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import LOSS, Case, trained
from dense_spectrum import bench_density, bench_trace, small_dense
from eigenvalues import bench_eigenvalues, bench_goals
from kernels import kernels_of
from peers import Peers
from timing import last_line, median_seconds, now, parser_of, table
from torch import Tensor

from landscape import Objective, tune_allocator
from ncsam import build_model

MODELS = {
    "MLP 256-256": ("mlp", {"hidden": [256, 256]}),
    "CNN 16-32-64, BatchNorm": ("cnn", {"channels": [16, 32, 64]}),
    "ResNet-8": ("resnet", {"depth": 8}),
}
PARTS = ("products", "sizes", "kernels", "graphs", "goals", "eigenvalues", "trace", "density", "memory")
ON = {
    "cpu": ("products", "sizes", "goals", "eigenvalues", "trace", "density", "memory"),
    "cuda": ("products", "sizes", "kernels", "graphs", "goals"),
}
"""Parts that run by default: on a GPU, those that use it well."""
SIZES = {"cpu": (1000, [250], 500, [64, 256, 1024, 2700]), "cuda": (4096, [1024, 4096], 1024, [1024, 2700])}
"""Samples, chunks, samples for tasks of many products, and widths of the MLPs."""


def products_of(case: Case, chunk: int, budget: int) -> Iterator[tuple[str, Callable[[], Callable[[], Any]]]]:
    """Name of each task -> set-up, which returns the task."""
    model, inputs, targets = case

    def ours(linearize: bool, **options: Any) -> Objective:
        return Objective(
            model, LOSS, case[1:], chunk_size=chunk, linearize=linearize, memory_budget=budget, **options
        )

    def plain_gradient() -> Any:
        return [
            torch.autograd.grad(LOSS(model(x), y), list(model.parameters()))
            for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True)
        ]

    def with_vector(make: Callable[[], Callable[[Tensor], Tensor]]) -> Callable[[], Any]:
        product, vector = make(), probe(case)
        return lambda: product(vector)

    yield "gradient (plain PyTorch)", lambda: plain_gradient
    yield "gradient (ours)", lambda: ours(True).gradient
    yield "Gauss-Newton, linearized", lambda: with_vector(lambda: ours(True).ggnvp)
    yield "ours, linearized", lambda: with_vector(lambda: ours(True).hvp)
    yield "ours, direct", lambda: with_vector(lambda: ours(False).hvp)
    for who, make in Peers(case, chunk).products().items():
        yield who, lambda make=make: with_vector(make)


def probe(case: Case) -> Tensor:
    """The vector that all tools multiply."""
    length = sum(parameter.numel() for parameter in case[0].parameters())
    return torch.randn(length, generator=torch.Generator().manual_seed(0)).to(case[1].device)


def rows_of_products(
    cases: dict[str, Case], chunks: list[int], rounds: int, budget: int
) -> Iterator[list[str]]:
    """A row for each way to compute a product. The row of a way that fails says why."""
    for title, case in cases.items():
        device = case[1].device.type
        exact = Objective(case[0], LOSS, case[1:], dtype=torch.float64, chunk_size=chunks[0])
        truth = exact.hvp(probe(case).double())
        del exact
        for chunk in chunks:
            tasks: dict[str, Callable[[], Any]] = {}
            setups: dict[str, float] = {}
            for name, make in products_of(case, chunk, budget):
                start = now(device)
                try:
                    tasks[name] = make()
                    tasks[name]()
                except Exception as failure:
                    tasks.pop(name, None)
                    yield [title, str(chunk), name, f"failed ({last_line(failure)})", "", "", "", ""]
                setups[name] = now(device) - start
            seconds = median_seconds(tasks, rounds, device, warmups=2)
            base, own = (
                seconds.get(key, float("nan")) for key in ("gradient (plain PyTorch)", "ours, linearized")
            )
            for name, task in tasks.items():
                value = task()
                # a gradient and the Gauss-Newton product cannot be compared with the Hessian product
                compared = "gradient" not in name and "Gauss" not in name
                error = f"{relative(value, truth):.0e}" if compared else ""
                yield [
                    title, str(chunk), name, f"{seconds[name] * 1e3:.2f}", f"{seconds[name] / base:.2f}",
                    f"{seconds[name] / own:.2f}", error, f"{setups[name]:.1f}",
                ]  # fmt: skip
            tasks.clear()
            gc.collect()


def rows_of_kernels(cases: dict[str, Case], chunks: list[int], budget: int) -> Iterator[list[str]]:
    """Number and time of the kernels of each product. If starting them dominates, they run far shorter than it."""
    for title, case in cases.items():
        device = case[1].device.type
        for chunk in chunks:
            for name, make in products_of(case, chunk, budget):
                try:
                    task = make()
                    milliseconds = 1e3 * median_seconds({name: task}, 5, device, warmups=2)[name]
                    found = kernels_of(task, device)
                except Exception as failure:
                    yield [title, str(chunk), name, f"failed ({last_line(failure)})", "", "", ""]
                    continue
                share = 1e3 * found.seconds / milliseconds
                yield [title, str(chunk), name, f"{milliseconds:.2f}", str(found.count), f"{1e3 * found.seconds:.2f}",
                       f"{share:.0%}"]  # fmt: skip


def bench_kernels(cases: dict[str, Case], chunks: list[int], budget: int) -> None:
    header = ["model", "chunk", "what", "ms", "kernels", "ms that they run", "of the time"]
    table("Kernels (CPU: operations of torch) of one product", header, rows_of_kernels(cases, chunks, budget))


def bench_products(cases: dict[str, Case], chunks: list[int], rounds: int, budget: int) -> None:
    header = [
        "model",
        "chunk",
        "what",
        "ms",
        "in plain gradients",
        "in our products",
        "relative error",
        "s, set-up and first",
    ]
    samples = len(next(iter(cases.values()))[1])
    table(
        f"One product, {samples} samples (PyHessian: one batch)",
        header,
        rows_of_products(cases, chunks, rounds, budget),
    )


def relative(value: Tensor, truth: Tensor) -> float:
    return ((value.flatten().double() - truth).norm() / truth.norm()).item()


def rows_of_graphs(title: str, case: Case, chunks: list[int], rounds: int) -> Iterator[list[str]]:
    """The product of the smallest model: plain, compiled, and replayed as a CUDA graph."""
    device = case[1].device.type
    modes = {"as traced": None, "compiled": "default"}
    if device == "cuda":
        modes["CUDA graph"] = "reduce-overhead"
    for chunk in chunks:
        for name, mode in modes.items():
            start = now(device)
            try:
                objective = Objective(
                    case[0], LOSS, case[1:], chunk_size=chunk, linearize=True, compile_mode=mode
                )
                vector = probe(case)
                # a CUDA graph is recorded at the second and third call
                for _ in range(4):
                    objective.hvp(vector)
                setup = now(device) - start
                milliseconds = (
                    1e3 * median_seconds({name: lambda o=objective, v=vector: o.hvp(v)}, rounds, device)[name]
                )
            except Exception as failure:
                yield [title, str(chunk), name, f"failed ({last_line(failure)})", ""]
            else:
                yield [title, str(chunk), name, f"{milliseconds:.2f}", f"{setup:.1f}"]


def bench_graphs(cases: dict[str, Case], chunks: list[int], rounds: int) -> None:
    title, case = next(iter(cases.items()))
    header = ["model", "chunk", "our product", "ms", "s, set-up"]
    table("Compiled products", header, rows_of_graphs(title, case, chunks, rounds))


def rows_of_sizes(device: str, widths: list[int], samples: int, rounds: int) -> Iterator[list[str]]:
    for width in widths:
        for count in (samples // 4, samples):
            generator = torch.Generator().manual_seed(0)
            inputs = torch.rand(count, 1, 28, 28, generator=generator).to(device)
            targets = torch.randint(0, 10, (count,), generator=generator).to(device)
            model = build_model("mlp", (1, 28, 28), 10, seed=0, hidden=[width, width]).to(device)
            objective = Objective(model, LOSS, (inputs, targets), linearize=True, chunk_size=samples)
            vector = torch.ones(objective.n_parameters, device=device)
            tasks = {"gradient": objective.gradient, "product": lambda o=objective, v=vector: o.hvp(v)}
            seconds = median_seconds(tasks, rounds, device, warmups=2)
            scale = objective.n_parameters * count
            yield [
                f"{objective.n_parameters:.1e}", str(count), f"{seconds['product'] * 1e3:.2f}",
                f"{seconds['product'] / seconds['gradient']:.2f}", f"{seconds['product'] / scale * 1e12:.2f}",
            ]  # fmt: skip


def bench_sizes(device: str, widths: list[int], samples: int, rounds: int) -> None:
    header = ["parameters", "samples", "ms a product", "in gradients", "ps a parameter and sample"]
    table("Size of an MLP", header, rows_of_sizes(device, widths, samples, rounds))


def resident(key: str) -> float:
    """A line of this process's memory status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) / 2**10


def peak_of(who: str, budget: int, queue: Any) -> None:
    """The peak memory, above the start, of two products of a ResNet-8 on 1,024 images in a separate process."""
    torch.set_num_threads(2)
    model = build_model("resnet", (3, 32, 32), 10, seed=0, depth=8).eval()
    inputs = torch.rand(1024, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(1024) % 10
    small = Objective(model, LOSS, (inputs[:2], targets[:2]), linearize=True)
    small.hvp(small.theta)
    # on Linux this resets the peak to the current memory
    Path("/proc/self/clear_refs").write_text("5")
    start = resident("VmRSS")
    if who == "gradient":
        Objective(model, LOSS, (inputs, targets), chunk_size=256).gradient()
    elif who == "ours":
        objective = Objective(
            model, LOSS, (inputs, targets), chunk_size=256, linearize=True, memory_budget=budget
        )
        for _ in range(2):
            objective.hvp(objective.theta)
    else:
        product = Peers((model, inputs, targets), 256).products()[who]()
        vector = torch.cat([p.detach().flatten() for p in model.parameters()])
        for _ in range(2):
            product(vector)
    queue.put(resident("VmHWM") - start)


def rows_of_memory() -> Iterator[list[str]]:
    context = multiprocessing.get_context("spawn")
    asks = [("gradient", 0), ("ours", 0), ("ours", 256), ("ours", 2048)]
    asks += [(who, 0) for who in ("PyHessian (graph kept)", "hessian-eigenthings", "curvlinops")]
    for who, budget in asks:
        queue = context.Queue()
        process = context.Process(target=peak_of, args=(who, budget * 2**20, queue))
        process.start()
        yield [who + (f", budget {budget} MiB" if who == "ours" else ""), f"{queue.get():.0f}"]
        process.join()


def bench_memory() -> None:
    title = "Memory: ResNet-8, 1,024 images 3 x 32 x 32 in chunks of 256 (PyHessian: one batch)"
    table(title, ["who", "peak above start, MiB"], rows_of_memory())


def machine_peak(device: str) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    matrix = torch.rand(4096, 4096, device=device)
    seconds = median_seconds({"matmul": lambda: matrix @ matrix}, 5, device, warmups=1)["matmul"]
    return 2 * 4096**3 / seconds


def parsed() -> argparse.Namespace:
    parser = parser_of(__doc__, with_device=True)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="by default those that are work for the device"
    )
    parser.add_argument("--samples", type=int)
    parser.add_argument("--chunks", type=int, nargs="+")
    parser.add_argument(
        "--iterative-samples", type=int, help="of eigenvalues and traces, which take many products"
    )
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--draws", type=int, default=100, help="of estimates on the dense matrix")
    parser.add_argument("--trace-draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--budget", type=float, help="GiB that our products may keep: 2, on a GPU 16")
    parser.add_argument(
        "--limit",
        type=float,
        help="seconds of a call after which dearer settings are not tried: 60, on a GPU 1",
    )
    args = parser.parse_args()
    samples, chunks, few, widths = SIZES[args.device]
    args.parts = args.parts or ON[args.device]
    args.samples, args.chunks = args.samples or samples, args.chunks or chunks
    args.iterative_samples, args.widths = args.iterative_samples or few, args.widths or widths
    args.budget = args.budget or {"cpu": 2, "cuda": 16}[args.device]
    args.limit = args.limit or {"cpu": 60, "cuda": 1}[args.device]
    return args


def main() -> None:
    args = parsed()
    torch.set_num_threads(2)
    tuned = tune_allocator()
    print(
        f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, allocator tuned: {tuned}"
    )
    print(f"matrix product in float32: {machine_peak(args.device) / 1e9:.0f} GFLOP/s", flush=True)
    cases, smaller = {}, {}
    if {"products", "graphs", "goals", "eigenvalues"} & set(args.parts):
        for title in args.models:
            name, options = MODELS[title]
            model, inputs, targets = trained(name, options, args.samples, args.epochs, args.device)
            cases[title] = model, inputs, targets
            smaller[title] = model, inputs[: args.iterative_samples], targets[: args.iterative_samples]
    chunk = args.chunks[0]
    tasks: dict[str, Callable[[], None]] = {
        "products": lambda: bench_products(cases, args.chunks, args.rounds, int(args.budget * 2**30)),
        "sizes": lambda: bench_sizes(args.device, args.widths, args.samples, args.rounds),
        # last, because the profiler may slow later timings
        "kernels": lambda: bench_kernels(cases, args.chunks, int(args.budget * 2**30)),
        "graphs": lambda: bench_graphs(cases, args.chunks[-1:], args.rounds),
        "goals": lambda: bench_goals(smaller, chunk, args.trace_draws, args.limit),
        "eigenvalues": lambda: bench_eigenvalues(smaller, chunk),
        "memory": bench_memory,
    }
    for part, task in tasks.items():
        if part in args.parts:
            task()
    if {"trace", "density"} & set(args.parts):
        matrix, eigenvalues = small_dense()
        if "trace" in args.parts:
            bench_trace(matrix, args.draws)
        if "density" in args.parts:
            bench_density(matrix, eigenvalues, max(args.draws // 5, 1))


if __name__ == "__main__":
    main()
