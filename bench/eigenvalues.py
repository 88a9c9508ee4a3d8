"""Eigenvalues and the trace beside the peers, with settings from cheap to expensive: errors, products, seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hessian_eigenthings
import numpy as np
import scipy.sparse.linalg
import torch
from cases import LOSS, Case
from peers import Peers
from timing import last_line, median_seconds, now, table

from landscape import Objective, TraceEstimate, top_eigenvalues
from landscape import trace as estimated_trace

GOAL = 1e-3
"""Relative error of eigenvalues that each tool has time to reach."""
TRACE_GOAL = 0.01
"""Relative error of the trace that each tool has time to reach, in root mean square over the draws."""
BUDGETS = (15, 30, 60, 120, 240, 480, 960)
"""Numbers of products for a trace."""


@dataclass(frozen=True)
class Found:
    """The result of one call: values, counted products, and stated error."""

    values: Any
    products: int | None
    states: str


Setting = tuple[str, str, Callable[[], Found]]
"""(name of the tool, its settings, the call with its set-up)."""


class Counted:
    """A SciPy operator that counts its products."""

    def __init__(self, inner: Any) -> None:
        self.products = 0

        def matvec(vector: Any) -> Any:
            self.products += 1
            return inner @ vector

        self.operator = scipy.sparse.linalg.LinearOperator(inner.shape, matvec=matvec, dtype=inner.dtype)


def eigenvalue_settings(case: Case, chunk: int, k: int) -> Iterator[Setting]:
    """Calls for the k eigenvalues of largest magnitude, for each tool with settings from cheap to expensive."""
    peers = Peers(case, chunk)

    def ours(options: dict[str, Any]) -> Found:
        objective = Objective(case[0], LOSS, case[1:], chunk_size=chunk)
        found = top_eigenvalues(objective, k, which="magnitude", **options)
        return Found(found.values, found.products, f"{(found.errors / np.abs(found.values)).max():.0e}")

    def power_iteration(tol: float) -> Found:
        torch.manual_seed(0)
        values, _ = peers.pyhessian().eigenvalues(maxIter=1000, tol=tol, top_n=k)
        return Found(np.array(values), None, "none")

    def eigenthings(steps: int) -> Found:
        found = hessian_eigenthings.lanczos(peers.eigenthings(), k=k, max_iter=steps, seed=0)
        return Found(found.eigenvalues.detach().cpu().numpy()[:k], steps, "flag")

    def eigsh() -> Found:
        counted = Counted(peers.curvlinops().to_scipy())
        values = scipy.sparse.linalg.eigsh(
            counted.operator, k, which="LM", tol=1e-3, return_eigenvectors=False
        )
        return Found(values, counted.products, "none")

    own = {"tol 0.03, block 1": {"tol": 0.03, "block": 1}, "tol 0.03": {"tol": 0.03}, "tol 0.001": {}}
    for label, options in own.items():
        if k > 1 or label != "tol 0.03":
            yield "ours", label, lambda options=options: ours(options)
    # the tolerance is that of a step, not that of the error
    for tol in (1e-3, 1e-4, 1e-5, 1e-6):
        yield "PyHessian", f"tol {tol:.0e}", lambda tol=tol: power_iteration(tol)
    for steps in (10, 20, 40):
        yield "hessian-eigenthings", f"{steps} steps", lambda steps=steps: eigenthings(steps)
    yield "curvlinops + eigsh", "tol 1e-3", eigsh


def worst_error(values: Any, truth: Any) -> float:
    """The largest relative error of the eigenvalues of largest magnitude."""
    ordered = values[np.argsort(-np.abs(values))]
    truth = truth[: len(values)]
    return float(np.max(np.abs(ordered - truth) / np.abs(truth)))


def exact_eigenvalues(case: Case, chunk: int) -> Any:
    """The five eigenvalues of largest magnitude, in float64."""
    exact = Objective(case[0], LOSS, case[1:], dtype=torch.float64, chunk_size=chunk)
    return top_eigenvalues(exact, 5, which="magnitude", tol=1e-6, block=1, max_products=400).values


def all_eigenvalues(cases: dict[str, Case], chunk: int) -> Iterator[list[str]]:
    """A row for each setting; for PyHessian up to the first setting that reaches the goal."""
    for title, case in cases.items():
        truth = exact_eigenvalues(case, chunk)
        for k in (1, 5):
            reached: set[str] = set()
            for who, label, call in eigenvalue_settings(case, chunk, k):
                if who == "PyHessian" and who in reached:
                    continue
                start = now(case[1].device.type)
                found = call()
                seconds = now(case[1].device.type) - start
                error = worst_error(found.values, truth)
                if error <= GOAL:
                    reached.add(who)
                spent = "" if found.products is None else str(found.products)
                yield [
                    title,
                    str(k),
                    f"{who}, {label}",
                    f"{error:.0e}",
                    found.states,
                    spent,
                    f"{seconds:.1f}",
                ]


def bench_eigenvalues(cases: dict[str, Case], chunk: int) -> None:
    header = [
        "model",
        "k",
        "who",
        "worst relative error",
        "error it states",
        "products",
        "seconds, set-up included",
    ]
    table("Eigenvalues of largest magnitude", header, all_eigenvalues(cases, chunk))


def eigenvalues_to_the_goal(cases: dict[str, Case], chunk: int, limit: float) -> Iterator[list[str]]:
    """For each tool, the first setting that reaches the goal, and the median time of three calls."""
    for title, case in cases.items():
        device = case[1].device.type
        truth = exact_eigenvalues(case, chunk)
        for k in (1, 5):
            own = float("nan")
            done: set[str] = set()
            tried: dict[str, str] = {}
            for who, label, call in eigenvalue_settings(case, chunk, k):
                if who in done:
                    continue
                try:
                    start = now(device)
                    found = call()
                    first = now(device) - start
                    error = worst_error(found.values, truth)
                    tried[who] = f"{label}: {error:.0e}"
                    if error > GOAL:
                        if first > limit:
                            done.add(who)
                        continue
                    seconds = median_seconds({who: call}, 3, device)[who]
                except Exception as failure:
                    done.add(who)
                    tried[who] = last_line(failure)
                    continue
                done.add(who)
                del tried[who]
                own = seconds if who == "ours" else own
                spent = "" if found.products is None else str(found.products)
                yield [
                    title,
                    f"k = {k}",
                    who,
                    label,
                    f"{error:.0e}",
                    spent,
                    f"{seconds:.3f}",
                    f"{seconds / own:.2f}",
                ]
            for who, reason in tried.items():
                yield [title, f"k = {k}", who, f"not reached ({reason})", "", "", "", ""]


def trace_settings(case: Case, chunk: int) -> Iterator[tuple[str, str, Callable[[int], Found]]]:
    """Functions of the draw that return the trace, for each tool with settings from cheap to expensive."""
    import curvlinops

    peers = Peers(case, chunk)

    def ours(seed: int) -> Found:
        objective = Objective(case[0], LOSS, case[1:], chunk_size=chunk)
        found = estimated_trace(objective, rtol=TRACE_GOAL, seed=seed)
        half = (found.high - found.low) / 2 / abs(found.value)
        return Found(found.value, found.products, f"{half:.1e}")

    def pyhessian(seed: int, tol: float) -> Found:
        torch.manual_seed(seed)
        values = peers.pyhessian().trace(maxIter=BUDGETS[-1], tol=tol)
        return Found(float(np.mean(values)), len(values), "none")

    def eigenthings(seed: int, products: int) -> Found:
        found = hessian_eigenthings.trace(peers.eigenthings(), num_matvecs=products, seed=seed)
        return Found(float(found.estimate), products, "error")

    def hutchpp(seed: int, products: int) -> Found:
        torch.manual_seed(seed)
        return Found(curvlinops.hutchpp_trace(peers.curvlinops(), products).item(), products, "none")

    yield "ours", f"rtol {TRACE_GOAL:g}", ours
    for tol in (1e-2, 1e-3, 1e-4, 1e-5):
        yield "PyHessian", f"tol {tol:.0e}", lambda seed, tol=tol: pyhessian(seed, tol)
    for count in BUDGETS:
        yield "hessian-eigenthings", f"{count} products", lambda seed, m=count: eigenthings(seed, m)
    for count in BUDGETS:
        yield "curvlinops, Hutch++", f"{count} products", lambda seed, m=count: hutchpp(seed, m)


def traces_to_the_goal(cases: dict[str, Case], chunk: int, draws: int, limit: float) -> Iterator[list[str]]:
    """For each tool, the first setting whose error over the draws is within the goal."""
    for title, case in cases.items():
        accurate = accurate_trace(case, chunk)
        truth = accurate.value
        error = f"{accurate.standard_error / abs(truth):.1e}"
        yield [
            title,
            "trace",
            "what all are compared with",
            accurate.method,
            error,
            str(accurate.products),
            "",
            "",
        ]
        own = float("nan")
        done: set[str] = set()
        tried: dict[str, str] = {}
        for who, label, call in trace_settings(case, chunk):
            if who in done:
                continue
            try:
                call(0)
                found, seconds = draws_of(call, draws, case[1].device.type)
            except Exception as failure:
                done.add(who)
                tried[who] = last_line(failure)
                continue
            error = float(np.sqrt(np.mean([(one.values / truth - 1) ** 2 for one in found])))
            tried[who] = f"{label}: {error:.1%}"
            # our method decides by itself when it is done; its row is shown for any error
            if error <= TRACE_GOAL or who == "ours":
                done.add(who)
                del tried[who]
                own = seconds if who == "ours" else own
                spent = f"{np.mean([one.products for one in found]):.0f}"
                yield [
                    title,
                    "trace",
                    who,
                    label,
                    f"{error:.1e}",
                    spent,
                    f"{seconds:.3f}",
                    f"{seconds / own:.2f}",
                ]
            elif seconds > limit:
                done.add(who)
        for who, reason in tried.items():
            yield [title, "trace", who, f"not reached ({reason})", "", "", "", ""]


def draws_of(call: Callable[[int], Found], draws: int, device: str) -> tuple[list[Found], float]:
    """The results of several draws, and the median of their seconds."""
    found, seconds = [], []
    for seed in range(draws):
        start = now(device)
        found.append(call(seed))
        seconds.append(now(device) - start)
    return found, float(np.median(seconds))


def accurate_trace(case: Case, chunk: int) -> TraceEstimate:
    """The trace from 300 products, which is more accurate than the goal. The table shows its error."""
    objective = Objective(case[0], LOSS, case[1:], chunk_size=chunk, linearize=True)
    return estimated_trace(objective, rtol=TRACE_GOAL / 10, max_products=300, seed=1000)


def bench_goals(cases: dict[str, Case], chunk: int, draws: int, limit: float) -> None:
    samples = len(next(iter(cases.values()))[1])
    header = [
        "model",
        "what",
        "who",
        "with",
        "relative error",
        "products",
        "seconds, set-up included",
        "of ours",
    ]
    title = f"Seconds to a relative error of {GOAL:g} (eigenvalues, {samples} samples)"
    table(title, header, eigenvalues_to_the_goal(cases, chunk, limit))
    title = f"Seconds to a relative error of {TRACE_GOAL:g} (trace, {samples} samples, {draws} draws)"
    table(title, header, traces_to_the_goal(cases, chunk, draws, limit))
