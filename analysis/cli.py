"""The command `ncsam`."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.markup import escape

from analysis import store
from analysis.claims import CLAIMS, Judgement, judge, read_claims, write_json
from analysis.closed_output import ClosedOutput
from analysis.engine import ENGINES, cores
from analysis.engine.measured_again import measure_study
from analysis.engine.whole_study import run_study
from analysis.engine.work import Outcome
from analysis.plan import read_study
from analysis.printable import printable
from analysis.report import figure_files
from analysis.report.console import claims_table, results_table, verdicts_table
from analysis.report.page import markdown, write_report
from analysis.run.measurements import MEASURES
from landscape import tune_allocator

MAX_THREADS = 1024
"""With very many, libraries fail in ways that name something else."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status.

    0; 1 if runs failed; 2 for what cannot be done as asked; 130 after Ctrl-C.
    """
    tune_allocator()
    # a verdict must not fail for want of a letter such as λ in the terminal's alphabet
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = _parser()
    options = parser.parse_args(arguments)
    # a daemon may have closed it
    width = None if sys.stdout is not None and sys.stdout.isatty() else 150
    output: Any = None if sys.stdout is None else ClosedOutput(sys.stdout)
    console = Console(file=output, width=width, soft_wrap=False)
    try:
        status: int = options.command(options, console)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True).print(
            f"ncsam: error: {escape(printable(text))}", style="red", highlight=False
        )
        return 2
    except KeyboardInterrupt:
        console.print("\nstopped; what is finished is kept, and the same command goes on from there")
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ncsam",
        description="Loss landscapes of learning with noisy labels: train, measure, judge, plot.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_study(commands)
    _add_measure(commands)
    _add_claims(commands)
    _add_report(commands)

    drawing = commands.add_parser("figures", help="draw the figures of a study's results as PNG and PDF")
    drawing.add_argument("results", type=Path, help="a study's folder")
    drawing.set_defaults(command=_figures)

    info = commands.add_parser("info", help="what a run file holds")
    info.add_argument("file", type=Path)
    info.set_defaults(command=_info)
    return parser


def _add_study(commands: Any) -> None:
    study = commands.add_parser("study", help="train and measure every run of a study, then judge and plot")
    study.add_argument("study", type=Path, help="a study file, such as studies/quick.toml")
    study.add_argument(
        "--out", type=Path, required=True, help="the study's folder; what is there is not done again"
    )
    study.set_defaults(command=_study)
    _add_resources(study)


def _add_measure(commands: Any) -> None:
    measuring = commands.add_parser(
        "measure", help="measure the stored weights of a study's runs again, without training"
    )
    measuring.add_argument("results", type=Path, help="a study's folder")
    measuring.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="MEASURE,...",
        help=f"some of {', '.join(MEASURES)} (default: all)",
    )
    measuring.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="a study file whose [measure] settings are taken (default: those in the folder)",
    )
    measuring.set_defaults(command=_measure)
    _add_resources(measuring)


def _add_claims(commands: Any) -> None:
    claims = commands.add_parser(
        "claims", help="judge the claims on a study's results and print the verdicts"
    )
    claims.add_argument(
        "results", type=Path, nargs="*", help="a study's folder, or several that are judged as one study"
    )
    claims.add_argument("--list", action="store_true", help="print what each claim predicts and needs")
    claims.add_argument(
        "--claim", action="append", metavar="ID", help="print only this claim (may be repeated)"
    )
    claims.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the verdicts as a Markdown table"
    )
    claims.set_defaults(command=_claims)
    _add_claims_of_your_own(claims)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="write report.html, a Markdown table of the verdicts and a CSV of all runs"
    )
    report.add_argument("results", type=Path, help="a study's folder")
    report.add_argument(
        "--parquet", action="store_true", help="write the runs as runs.parquet too (needs ncsam[parquet])"
    )
    _add_claims_of_your_own(report)
    report.set_defaults(command=_report)


def _add_claims_of_your_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with",
        dest="own",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers claims of your own",
    )


def _add_resources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, help="default: processes; serial on one core or one GPU")
    parser.add_argument("--workers", type=int, help="worker processes (default: one a core, or one a GPU)")
    parser.add_argument(
        "--threads", type=int, help="threads of each run (default: the cores divided among the workers)"
    )
    parser.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--data-dir", type=Path, help="where data files are, for data sets that need them")


class Resources(NamedTuple):
    """Where and with what runs are done, as `run_study` takes it."""

    engine: str
    workers: int
    device: str
    data_dir: Path | None
    threads: int | None
    scheduler: str | None


def _resources(options: argparse.Namespace) -> Resources:
    device = _device(options.device)
    places = torch.cuda.device_count() if device == "cuda" else cores()
    workers = places if options.workers is None else options.workers
    for name, value in (("workers", workers), ("threads", options.threads)):
        if value is not None and value < 1:
            raise ValueError(f"--{name}: must be at least 1, got {value}")
    if options.threads is not None and options.threads > MAX_THREADS:
        raise ValueError(f"--threads: must be at most {MAX_THREADS}, got {options.threads}")
    if options.scheduler is not None and options.engine != "dask":
        raise ValueError("--scheduler: is for --engine dask")
    if options.data_dir is not None and not options.data_dir.exists():
        raise FileNotFoundError(f"--data-dir: {options.data_dir} does not exist")
    engine = options.engine or ("serial" if workers == 1 or device.startswith("cuda:") else "processes")
    return Resources(engine, workers, device, options.data_dir, options.threads, options.scheduler)


def _study(options: argparse.Namespace, console: Console) -> int:
    study = read_study(options.study)
    outcome = run_study(study, options.out, console=console, **_resources(options)._asdict())
    return _show(options.out, outcome, console)


def _measure(options: argparse.Namespace, console: Console) -> int:
    study = options.study and read_study(options.study)
    resources = _resources(options)._asdict()
    outcome = measure_study(options.results, options.only, study=study, console=console, **resources)
    return _show(options.results, outcome, console)


def _show(root: Path, outcome: Outcome, console: Console) -> int:
    """Judges and draws what is finished, and tells what failed."""
    if outcome.table.empty:
        console.print("no run has finished", style="red")
    else:
        _judge([root], console)
        if figure_files.is_current(root):
            _say(console, f"figures: {root / 'figures'} (drawn before)")
        else:
            _draw(root, console)
    for path, error in outcome.failed.items():
        console.print(printable(f"failed: {path}: {error}"), style="red", markup=False, highlight=False)
    return 1 if outcome.failed else 0


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device: unknown {name!r}; known: auto, cpu, cuda, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: unknown {name!r}; known: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device: {name!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return name


def _claims(options: argparse.Namespace, console: Console) -> int:
    for path in options.own:
        read_claims(path)
    unknown = [name for name in options.claim or [] if name not in CLAIMS]
    if unknown:
        raise ValueError(f"--claim: unknown {unknown[0]!r}; known: {', '.join(CLAIMS)}")
    asked = options.claim or list(CLAIMS)
    if options.list:
        console.print(claims_table(CLAIMS[name] for name in asked))
        return 0
    if not options.results:
        raise ValueError("results: name a study's folder, or --list the claims")
    judgements = _judge(options.results, console, asked)
    if options.markdown:
        store.write_text(options.markdown, markdown(judgements))
        _say(console, f"written: {options.markdown}")
    return 0


def _judge(roots: Sequence[Path], console: Console, asked: Sequence[str] = ()) -> list[Judgement]:
    """Prints verdicts, and leaves them in the folder if there is just one."""
    table = store.read_tables(roots)
    judgements = judge(table)
    if len(roots) == 1:
        try:
            write_json(judgements, roots[0] / "claims.json")
        except OSError as error:
            # such as the folder of somebody else, whose results can be judged all the same
            words = f"claims.json is not written into {roots[0]}: {error.strerror}"
            console.print(printable(words), style="yellow", markup=False, highlight=False, soft_wrap=True)
    if not asked or set(asked) == set(CLAIMS):
        console.print(results_table(table))
    printed = [j for j in judgements if not asked or j.claim.id in asked]
    console.print(verdicts_table(printed))
    return printed


def _say(console: Console, text: str) -> None:
    """Prints a path unchanged: its brackets are no markup, and it stays on one line."""
    console.print(printable(text), markup=False, soft_wrap=True)


def _report(options: argparse.Namespace, console: Console) -> int:
    for path in options.own:
        read_claims(path)
    with console.status("writing the report"):
        written = write_report(options.results, parquet=options.parquet)
    for path in written:
        _say(console, f"written: {path}")
    return 0


def _figures(options: argparse.Namespace, console: Console) -> int:
    _draw(options.results, console)
    return 0


def _draw(root: Path, console: Console) -> None:
    with console.status("drawing figures"):
        folder = figure_files.draw_all(root)
    _say(console, f"figures: {folder}")


def _info(options: argparse.Namespace, console: Console) -> int:
    stored = store.read_config(options.file)
    _say(console, f"{options.file}: run {stored.config.fingerprint[:12]}, trained on {stored.device}")
    console.print_json(
        ensure_ascii=True,
        data={
            "config": stored.config.as_plain(),
            "hyperparameters": stored.hyperparameters,
            "versions": stored.versions,
        },
    )
    for name, value in store.scalars(options.file).items():
        if not (isinstance(value, float) and math.isnan(value)):
            console.print(
                printable(f"  {name}: {value:.6g}" if isinstance(value, float) else f"  {name}: {value}"),
                markup=False,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
