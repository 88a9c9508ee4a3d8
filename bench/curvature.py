"""Curvature beside PyHessian, hessian-eigenthings and curvlinops: errors, products, seconds and memory.

    pip install -c constraints.txt -e '.[data,bench]'
    python bench/curvature.py                    # some 15 minutes on 2 cores
    python bench/curvature.py --device cuda --samples 4096 --widths 1024 4096

All in one process with the same allocator, threads and data; timings that are compared are interleaved.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import curvlinops
import hessian_eigenthings
import numpy as np
import pyhessian
import scipy.sparse.linalg
import scipy.stats
import torch
from hessian_eigenthings.loss_fns import supervised_loss
from timing import median_seconds, table
from torch import Tensor, nn

from landscape import Objective, top_eigenvalues, tune_allocator
from landscape.krylov import Deflation, SymmetricOperator, lanczos_quadrature, moments
from ncsam import Plain, build_model, corrupt_labels, fit, load_dataset

LOSS = nn.CrossEntropyLoss()
GOAL = 1e-3
"""Relative error of eigenvalues that peers are given the time to reach."""
MODELS = {
    "MLP 256-256": ("mlp", {"hidden": [256, 256]}),
    "CNN 16-32-64, BatchNorm": ("cnn", {"channels": [16, 32, 64]}),
    "ResNet-8": ("resnet", {"depth": 8}),
}


def trained(
    name: str, options: dict[str, Any], samples: int, epochs: int
) -> tuple[nn.Module, Tensor, Tensor]:
    """A model trained on mnist-5k with 40% symmetric label noise, and the samples to measure on."""
    dataset = load_dataset("mnist-5k")
    labels = corrupt_labels(dataset.train.targets, kind="symmetric", rate=0.4, seed=0)
    model = build_model(name, dataset.input_shape, dataset.num_classes, seed=0, **options)
    method = Plain(model, LOSS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(method, optimizer, dataset.train, labels, dataset.test, epochs=epochs, batch_size=128, seed=0)
    return model.eval(), dataset.train.inputs[:samples], labels.observed[:samples]


def timed(task: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = task()
    return result, time.perf_counter() - start


class Peers:
    """The same mean loss as each peer sees it: the whole data as one batch, and in chunks."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, chunk: int) -> None:
        # PyHessian adds its gradient to what the model holds, and would measure the sum
        model = copy.deepcopy(model).requires_grad_()
        model.zero_grad(set_to_none=True)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        batches = list(zip(inputs.split(chunk), targets.split(chunk), strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.kept = pyhessian.hessian(model, LOSS, data=(inputs, targets), cuda=inputs.is_cuda)
        self.eigenthings = hessian_eigenthings.HessianOperator(model, batches, supervised_loss(LOSS))
        self.linear_operator = curvlinops.HessianLinearOperator(
            model, LOSS, self.parameters, batches, check_deterministic=False
        )

    def products(self) -> dict[str, Callable[[Tensor], Tensor]]:
        from pyhessian.utils import hessian_vector_product

        def pyhessian_product(vector: Tensor) -> Tensor:
            sizes = [p.numel() for p in self.parameters]
            parts = [v.view_as(p) for v, p in zip(vector.split(sizes), self.parameters, strict=True)]
            result = hessian_vector_product(self.kept.gradsH, self.kept.params, parts)
            return torch.cat([part.flatten() for part in result])

        return {
            "PyHessian (graph kept)": pyhessian_product,
            "hessian-eigenthings": self.eigenthings.matvec,
            "curvlinops": lambda vector: self.linear_operator @ vector,
        }


def bench_products(cases: dict[str, tuple[nn.Module, Tensor, Tensor]], chunk: int, rounds: int) -> None:
    rows = []
    for name, (model, inputs, targets) in cases.items():
        device = inputs.device.type
        exact = Objective(model, LOSS, (inputs, targets), dtype=torch.float64, chunk_size=chunk)
        vector = torch.randn(exact.n_parameters, generator=torch.Generator().manual_seed(0)).to(inputs.device)
        truth = exact.hvp(vector.double())
        objective = Objective(model, LOSS, (inputs, targets), chunk_size=chunk, linearize=True)
        direct = Objective(model, LOSS, (inputs, targets), chunk_size=chunk, linearize=False)
        _, setup = timed(lambda o=objective, v=vector: o.hvp(v))
        objective.ggnvp(vector)
        peers = Peers(model, inputs, targets, chunk)

        def plain_gradient(
            model: nn.Module = model, inputs: Tensor = inputs, targets: Tensor = targets
        ) -> None:
            for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
                torch.autograd.grad(LOSS(model(x), y), list(model.parameters()))

        products = {
            "ours, linearised": objective.hvp,
            "ours, direct": direct.hvp,
            **peers.products(),
        }
        tasks: dict[str, Callable[[], Any]] = {
            "gradient (plain PyTorch)": plain_gradient,
            "gradient (ours)": objective.gradient,
            "Gauss-Newton, linearised": lambda o=objective, v=vector: o.ggnvp(v),
        }
        tasks |= {key: lambda p=product, v=vector: p(v) for key, product in products.items()}
        seconds = median_seconds(tasks, rounds, device)
        base, own = seconds["gradient (plain PyTorch)"], seconds["ours, linearised"]
        for key in tasks:
            error = "" if key not in products else f"{relative(products[key](vector), truth):.0e}"
            kept = (
                f"{objective.kept_bytes / 2**20:.0f} MiB, {setup:.1f} s" if key == "ours, linearised" else ""
            )
            rows.append(
                [name, key, f"{seconds[key] * 1e3:.0f}", f"{seconds[key] / base:.2f}", f"{seconds[key] / own:.2f}",
                 error, kept]
            )  # fmt: skip
    header = [
        "model",
        "what",
        "ms",
        "in plain gradients",
        "in our products",
        "relative error",
        "kept, set-up",
    ]
    table("One product", header, rows)


def relative(value: Tensor, truth: Tensor) -> float:
    return ((value.flatten().double() - truth).norm() / truth.norm()).item()


def bench_eigenvalues(cases: dict[str, tuple[nn.Module, Tensor, Tensor]], chunk: int) -> None:
    rows = []
    for name, (model, inputs, targets) in cases.items():
        inputs, targets = inputs[:500], targets[:500]
        exact = Objective(model, LOSS, (inputs, targets), dtype=torch.float64, chunk_size=chunk)
        truth = top_eigenvalues(exact, 5, which="magnitude", tol=1e-6, block=1, max_products=400).values
        peers = Peers(model, inputs, targets, chunk)
        for k in (1, 5):
            for label, options in (
                ("ours, tol 0.03, block 1", {"tol": 0.03, "block": 1}),
                ("ours, tol 0.03", {"tol": 0.03}),
                ("ours, tol 0.001", {}),
            ):
                if k == 1 and label == "ours, tol 0.03":
                    continue
                objective = Objective(model, LOSS, (inputs, targets), chunk_size=chunk)
                found, seconds = timed(
                    lambda o=objective, k=k, c=options: top_eigenvalues(o, k, which="magnitude", **c)
                )
                bound = f"{(found.errors / np.abs(found.values)).max():.0e}"
                rows.append(row(name, k, label, found.values, truth, found.products, seconds, bound))
            for tol in (1e-3, 1e-4, 1e-5, 1e-6):
                (values, _), seconds = timed(
                    lambda p=peers, k=k, tol=tol: p.kept.eigenvalues(maxIter=1000, tol=tol, top_n=k)
                )
                found = np.array(values)
                rows.append(row(name, k, f"PyHessian, tol {tol:.0e}", found, truth, None, seconds, "none"))
                # its tolerance is that of a step, not of the error
                if worst_error(found, truth) <= GOAL:
                    break
            for steps in (10, 20):
                found, seconds = timed(
                    lambda p=peers, k=k, m=steps: hessian_eigenthings.lanczos(
                        p.eigenthings, k=k, max_iter=m, seed=0
                    )
                )
                values = found.eigenvalues.detach().cpu().numpy()[:k]
                rows.append(
                    row(name, k, f"hessian-eigenthings, {steps} steps", values, truth, steps, seconds, "flag")
                )
            counted = Counted(peers.linear_operator.to_scipy())
            values, seconds = timed(
                lambda c=counted, k=k: scipy.sparse.linalg.eigsh(
                    c.operator, k, which="LM", tol=1e-3, return_eigenvectors=False
                )
            )
            rows.append(
                row(name, k, "curvlinops + eigsh, tol 1e-3", values, truth, counted.products, seconds, "none")
            )
    header = [
        "model",
        "k",
        "who",
        "worst relative error",
        "error it states",
        "products",
        "seconds, set-up included",
    ]
    table("Eigenvalues of largest magnitude", header, rows)


class Counted:
    """A SciPy operator that counts its products."""

    def __init__(self, inner: Any) -> None:
        self.products = 0

        def matvec(vector: Any) -> Any:
            self.products += 1
            return inner @ vector

        self.operator = scipy.sparse.linalg.LinearOperator(inner.shape, matvec=matvec, dtype=inner.dtype)


def worst_error(values: Any, truth: Any) -> float:
    """The largest relative error of the eigenvalues of largest magnitude."""
    ordered = values[np.argsort(-np.abs(values))]
    truth = truth[: len(values)]
    return float(np.max(np.abs(ordered - truth) / np.abs(truth)))


def row(
    model: str, k: int, who: str, values: Any, truth: Any, products: int | None, seconds: float, states: str
) -> list[str]:
    error = worst_error(values, truth)
    spent = "" if products is None else str(products)
    return [model, str(k), who, f"{error:.0e}", states, spent, f"{seconds:.1f}"]


def small_dense() -> tuple[Tensor, Tensor]:
    """The whole Hessian of a small trained CNN, in float64, and its eigenvalues."""
    model, inputs, targets = trained("cnn", {"channels": [6, 8, 12]}, samples=500, epochs=40)
    objective = Objective(
        model, LOSS, (inputs, targets), dtype=torch.float64, linearize=True, chunk_size=1000
    )
    columns = torch.eye(objective.n_parameters, dtype=torch.float64)
    matrix = torch.cat([objective.hvp(block) for block in columns.split(64, dim=1)], 1)
    matrix = (matrix + matrix.T) / 2
    return matrix, torch.linalg.eigvalsh(matrix)


def bench_trace(matrix: Tensor, draws: int) -> None:
    truth, n = matrix.trace().item(), len(matrix)
    rows = []
    for products in (12, 20, 30, 40, 60):
        for method in ("xtrace", "hutch++", "hutchinson"):
            found = [
                moments(SymmetricOperator.of_matrix(matrix), method=method, rtol=None, max_products=products,
                        generator=torch.Generator().manual_seed(seed)).trace
                for seed in range(draws)
            ]  # fmt: skip
            errors = np.array([f.value for f in found]) / truth - 1
            held = np.mean([f.low <= truth <= f.high for f in found])
            rows.append(["ours", method, str(products), f"{np.sqrt(np.mean(errors**2)):.2%}", f"{held:.0%}"])
        for method in ("xtrace", "hutchpp_trace", "hutchinson_trace"):
            usable = products - products % 3 if method == "hutchpp_trace" else products
            torch.manual_seed(0)
            values = [getattr(curvlinops, method)(matrix, usable).item() for _ in range(draws)]
            error = np.sqrt(np.mean((np.array(values) / truth - 1) ** 2))
            rows.append(["curvlinops", method, str(usable), f"{error:.2%}", "none"])
    # of random signs (Hutchinson 1990)
    variance = 2 * (matrix.square().sum() - matrix.diag().square().sum()).item()
    rows.append(["theory", "hutchinson", f"{variance / (0.01 * truth) ** 2:.0f}", "1.00%", ""])
    header = ["who", "method", "products", "RMS error", "95% interval holds"]
    table(f"Trace of a trained CNN's Hessian, {n} parameters, {draws} draws", header, rows)


def bench_density(matrix: Tensor, eigenvalues: Tensor, draws: int) -> None:
    n, truth = len(matrix), eigenvalues.numpy()
    operator = hessian_eigenthings.LambdaOperator(lambda v: matrix @ v, n, dtype=torch.float64)
    rows = []
    for steps, probes in ((30, 3), (30, 5), (40, 10)):
        distances: dict[str, list[float]] = {
            "ours": [],
            "ours without deflation": [],
            "hessian-eigenthings": [],
        }
        for seed in range(draws):
            for key, deflate in (("ours", None), ("ours without deflation", Deflation.empty(n))):
                found = lanczos_quadrature(
                    SymmetricOperator.of_matrix(matrix), steps=steps, probes=probes, deflate=deflate,
                    generator=torch.Generator().manual_seed(seed),
                )  # fmt: skip
                share = (n - len(found.values)) / n / probes
                values = np.r_[found.values.numpy(), found.nodes.numpy().ravel()]
                masses = np.r_[np.full(len(found.values), 1 / n), share * found.weights.numpy().ravel()]
                distances[key].append(scipy.stats.wasserstein_distance(values, truth, masses))
            theirs = hessian_eigenthings.spectral_density(
                operator, num_runs=probes, lanczos_steps=steps, num_grid_points=10, seed=1000 * seed
            )
            distances["hessian-eigenthings"].append(
                scipy.stats.wasserstein_distance(
                    theirs.raw_eigenvalues.numpy().ravel(), truth, theirs.raw_weights.numpy().ravel()
                )
            )
        base = np.median(distances["ours without deflation"])
        for key, values in distances.items():
            rows.append([key, f"{probes} x {steps}", f"{np.median(values) / np.abs(truth).mean():.3f}",
                         f"{np.median(values) / base:.2f}"])  # fmt: skip
    header = ["who", "products", "distance to the true spectrum / mean |eigenvalue|", "of plain SLQ's"]
    table("Spectral density (1-Wasserstein distance, median)", header, rows)


def bench_sizes(device: str, widths: list[int], samples: int) -> None:
    rows = []
    for width in widths:
        for count in (samples // 4, samples):
            generator = torch.Generator().manual_seed(0)
            inputs = torch.rand(count, 1, 28, 28, generator=generator).to(device)
            targets = torch.randint(0, 10, (count,), generator=generator).to(device)
            model = build_model("mlp", (1, 28, 28), 10, seed=0, hidden=[width, width]).to(device)
            objective = Objective(model, LOSS, (inputs, targets), linearize=True, chunk_size=samples)
            vector = torch.ones(objective.n_parameters, device=device)
            objective.hvp(vector)
            tasks = {"gradient": objective.gradient, "product": lambda o=objective, v=vector: o.hvp(v)}
            seconds = median_seconds(tasks, 5, device)
            scale = objective.n_parameters * count
            rows.append(
                [f"{objective.n_parameters:.1e}", str(count), f"{seconds['product'] * 1e3:.1f}",
                 f"{seconds['product'] / seconds['gradient']:.2f}", f"{seconds['product'] / scale * 1e12:.1f}"]
            )  # fmt: skip
    header = ["parameters", "samples", "ms a product", "in gradients", "ps a parameter and sample"]
    table("Size of an MLP", header, rows)


def resident(key: str) -> float:
    """A line of this process's memory status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) / 2**10


def peak_of(who: str, budget: int, queue: Any) -> None:
    """Two products of a ResNet-8 on 1,024 images in a process of its own; its peak memory above the start."""
    torch.set_num_threads(2)
    model = build_model("resnet", (3, 32, 32), 10, seed=0, depth=8).eval()
    inputs = torch.rand(1024, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(1024) % 10
    small = Objective(model, LOSS, (inputs[:2], targets[:2]), linearize=True)
    small.hvp(small.theta)
    # Linux: sets the peak back to what is held now
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
        product = Peers(model, inputs, targets, 256).products()[who]
        vector = torch.cat([p.detach().flatten() for p in model.parameters()])
        for _ in range(2):
            product(vector)
    queue.put(resident("VmHWM") - start)


def bench_memory() -> None:
    context = multiprocessing.get_context("spawn")
    rows = []
    asks = [("gradient", 0), ("ours", 0), ("ours", 256), ("ours", 2048)]
    asks += [(who, 0) for who in ("PyHessian (graph kept)", "hessian-eigenthings", "curvlinops")]
    for who, budget in asks:
        queue = context.Queue()
        process = context.Process(target=peak_of, args=(who, budget * 2**20, queue))
        process.start()
        rows.append([who + (f", budget {budget} MiB" if who == "ours" else ""), f"{queue.get():.0f}"])
        process.join()
    header = ["who", "peak above start, MiB"]
    table("Memory: ResNet-8, 1,024 images 3 x 32 x 32 in chunks of 256 (PyHessian: one batch)", header, rows)


def machine_peak(device: str) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    matrix = torch.rand(4096, 4096, device=device)
    seconds = median_seconds({"matmul": lambda: matrix @ matrix}, 5, device)["matmul"]
    return 2 * 4096**3 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 1024, 2700])
    parser.add_argument(
        "--parts", nargs="+", default=["products", "eigenvalues", "trace", "density", "sizes", "memory"]
    )
    args = parser.parse_args()
    torch.set_num_threads(2)
    tuned = tune_allocator()
    print(
        f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, allocator tuned: {tuned}"
    )
    print(f"matrix product in float32: {machine_peak(args.device) / 1e9:.0f} GFLOP/s")
    cases = {}
    if {"products", "eigenvalues"} & set(args.parts):
        for title, (name, options) in MODELS.items():
            model, inputs, targets = trained(name, options, args.samples, epochs=10)
            cases[title] = (model.to(args.device), inputs.to(args.device), targets.to(args.device))
    if "products" in args.parts:
        bench_products(cases, args.chunk, args.rounds)
    if "eigenvalues" in args.parts:
        bench_eigenvalues(cases, args.chunk)
    if {"trace", "density"} & set(args.parts):
        matrix, eigenvalues = small_dense()
        if "trace" in args.parts:
            bench_trace(matrix, args.draws)
        if "density" in args.parts:
            bench_density(matrix, eigenvalues, args.draws // 5)
    if "sizes" in args.parts:
        bench_sizes(args.device, args.widths, args.samples)
    if "memory" in args.parts and args.device == "cpu":
        bench_memory()


if __name__ == "__main__":
    main()
