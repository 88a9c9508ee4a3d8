"""The cost of probes: their share of a run's processor time, and the numbers of gradients and products.

    python bench/probes.py [STUDY] [METHOD ...]

By default it runs SGD, SAM and NCSAM of bench/probes.toml, one run each at 40% wrong labels, on one thread. The
rest of a run is training, the evaluation of each epoch, the alignment of its first batches, and the measures at the
end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from analysis import store
from analysis.plan import Choice, final_runs, read_study
from analysis.run import one_run, probes
from analysis.run.context import RunContext
from landscape import tune_allocator

COUNTED = {"top_eigenvalues": "products", "sharpness": "gradients"}
"""Function that a probe of the landscape calls -> field of its result that counts the work."""


def main(study: str = "bench/probes.toml", *methods: str) -> None:
    torch.set_num_threads(1)
    tune_allocator()
    spent: Counter[str] = Counter()
    for name, count in COUNTED.items():
        setattr(probes, name, counted(getattr(probes, name), count, spent))
    asked = one_run.study_probes
    one_run.study_probes = lambda *args: [
        replace(probe, measure=timed(probe.measure, spent)) for probe in asked(*args)
    ]
    print(
        "| method | run, s | probes, s | share | batch gradients of the training | Hessian products | gradients |"
    )
    print("|---|---|---|---|---|---|---|")
    runs = [found for found in final_runs(read_study(Path(study))) if found.config.noise.rate == 0.4]
    for label in methods or ("SGD", "SAM", "NCSAM"):
        chosen = next(found for found in runs if found.config.method.label == label)
        spent.clear()
        candidates = chosen.config.method.candidates
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            one_run.execute(
                chosen,
                Choice(candidates[-1], candidates, [], []),
                RunContext(Path(folder)),
            )
            whole = time.process_time() - started
            gradients = store.scalars(Path(folder) / chosen.path)["gradients"]
        print(
            f"| {label} | {whole:.1f} | {spent['seconds']:.1f} | {spent['seconds'] / whole:.1%} | {gradients:.0f} "
            f"| {spent['products']} | {spent['gradients']} |",
            flush=True,
        )


def counted(function: Callable[..., Any], count: str, spent: Counter[str]) -> Callable[..., Any]:
    """The function; each call also adds up the work that its result counts."""

    def call(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        spent[count] += getattr(result, count)
        return result

    return call


def timed(function: Callable[[], Any], spent: Counter[str]) -> Callable[[], Any]:
    """The function; each call also adds up its processor time."""

    def call() -> Any:
        started = time.process_time()
        try:
            return function()
        finally:
            spent["seconds"] += time.process_time() - started  # type: ignore[assignment]

    return call


if __name__ == "__main__":
    main(*sys.argv[1:])
