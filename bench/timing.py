"""Shared parts of the benchmarks: command lines, timings that take turns, and tables in Markdown and CSV."""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch


def parser_of(description: str | None, *, with_device: bool = False) -> argparse.ArgumentParser:
    """A command line whose help is the benchmark's docstring, line by line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if with_device:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def now(device: str) -> float:
    """Seconds on the clock, after the device has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(
    tasks: dict[str, Callable[[], Any]], rounds: int, device: str, *, warmups: int = 0
) -> dict[str, float]:
    """The median time of each task. The tasks take turns, after some rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(-warmups, rounds):
        for name, task in tasks.items():
            start = now(device)
            task()
            elapsed = now(device) - start
            if number >= 0:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def last_line(error: BaseException | str) -> str:
    """The end of an error, short enough for a table."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160].replace("|", "/") if lines else "no message"


def table(title: str, header: list[str], rows: Iterable[list[str]]) -> None:
    """Prints a Markdown table, each row as soon as it is known, so that a stopped run has printed its results."""
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print(flush=True)


def write_table(path: Path, fields: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Writes a CSV table after each row, so that a stopped run has written its results. Prints the rows too."""
    written: list[tuple[str, ...]] = [tuple(fields)]
    for row in rows:
        print(" | ".join(row), flush=True)
        written.append(row)
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(written)
