"""The commands of `ncsam`, one function each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from analysis import store
from analysis.claims import Judgement, check_own_columns, chosen_claims, claim_named, write_json
from analysis.cli.along_training import draw_along_training
from analysis.cli.checkpoint import Measurement, measure_checkpoint
from analysis.cli.dry_run import print_plan
from analysis.cli.info import print_info
from analysis.cli.leaderboard import run_leaderboard
from analysis.cli.wrong_labels import DetectionPlan, detect_wrong_labels
from analysis.engine import Resources, cores
from analysis.engine.measured_again import measure_study
from analysis.engine.whole_study import run_study
from analysis.engine.work import Outcome
from analysis.plan import read_study
from analysis.plan.own_parts import are_loaded, loaded, named, read_own_part
from analysis.printable import say
from analysis.report import figure_files
from analysis.report.chosen import judge_studies, judgements_of
from analysis.report.details import print_claims, print_details
from analysis.report.page import markdown, write_report
from analysis.report.results import print_results, print_results_of_one_rate
from analysis.report.summary import print_verdicts
from analysis.report.unfinished import print_foreign, print_unfinished
from figures.style import Style, new_figure

MAX_THREADS = 1024
"""Most threads. With more, libraries fail with messages about something else."""
OF_A_CHECKPOINT = ("data", "loss", "samples", "seed", "steps", "along", "out")
"""Options of `ncsam measure CHECKPOINT --model ...`."""
OF_A_FOLDER = ("only", "study", "engine", "workers", "threads", "scheduler")
"""Options of `ncsam measure FOLDER`."""
SAMPLES, SEED, STEPS = 1000, 0, 21
"""Defaults of `ncsam measure CHECKPOINT`, as its help tells."""


def run_command(options: argparse.Namespace, console: Console) -> int:
    """Executes the user's files that --with names, and then the command. Returns the exit status."""
    if "own" in options:
        options.own = [read_own_part(path) for path in options.own]
        check_own_columns()
    return COMMANDS[options.command](options, console)


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
    if engine == "serial":
        if options.workers not in (None, 1):
            raise ValueError(
                f"--workers: engine 'serial' has one, got {workers}; leave it out, or take --engine processes"
            )
        workers = 1
    return Resources(engine, workers, device, options.data_dir, options.threads, options.scheduler)


def _study(options: argparse.Namespace, console: Console) -> int:
    study = read_study(options.study)
    if options.own:
        study = study.model_copy(update={"own_parts": named(options.own)})
    # missing arguments are named before errors that follow from them
    loaded(study.own_parts)
    chosen_claims(study.claims)
    resources = _resources(options)
    if options.dry_run:
        print_plan(study, options.out, resources, console)
        return 0
    outcome = run_study(study, options.out, resources, console=console)
    return _show(options.out, outcome, console)


def _leaderboard(options: argparse.Namespace, console: Console) -> int:
    return run_leaderboard(
        options.board, options.out, _resources(options), options.only, console, dry_run=options.dry_run
    )


def _measure(options: argparse.Namespace, console: Console) -> int:
    if options.model is not None:
        return _measure_checkpoint(options, console)
    _refuse(options, OF_A_CHECKPOINT, "is for a checkpoint of your own, which needs --model module:function")
    study = options.study and read_study(options.study)
    resources, only = _resources(options), options.only or ()
    outcome = measure_study(options.results, only, resources=resources, study=study, console=console)
    return _show(options.results, outcome, console)


def _refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuses options that would be ignored."""
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name}: {why}")


def _measure_checkpoint(options: argparse.Namespace, console: Console) -> int:
    _refuse(options, OF_A_FOLDER, "is for a study's folder, and not for a checkpoint (--model); leave it out")
    if options.data is None:
        raise ValueError("--data: name a data set, an .npz file with inputs and targets, or module:function")
    asked = Measurement(
        model=options.model,
        data=options.data,
        loss=options.loss,
        out=options.out,
        samples=SAMPLES if options.samples is None else options.samples,
        seed=SEED if options.seed is None else options.seed,
        steps=STEPS if options.steps is None else options.steps,
        device=_device(options.device),
        data_dir=options.data_dir,
    )
    asked.check(options.results, options.along or ())
    measure_checkpoint(options.results, asked, console)
    if options.along:
        draw_along_training([*options.along, options.results], asked, console)
    return 0


def _detect(options: argparse.Namespace, console: Console) -> int:
    asked = {name: value for name, value in vars(options).items() if name != "command"}
    detect_wrong_labels(DetectionPlan(**asked | {"device": _device(options.device)}), console)
    return 0


def _show(root: Path, outcome: Outcome, console: Console) -> int:
    """Judges, draws and reports the finished runs, and names the failed ones."""
    if outcome.table.empty:
        console.print("no run has finished", style="red")
    else:
        rates = read_study(root / "study.toml").measure.surface_rates
        print_results_of_one_rate(outcome.table, rates, console)
        judgements = _judgements([root], console)
        print_verdicts(judgements, console)
        _write_what_people_see(root, judgements, console)
        say(console, f"details: ncsam results {root}; ncsam claims {root} -v")
    print_foreign(root, console)
    for path, error in outcome.failed.items():
        say(console, f"failed: {path}: {error}", style="red")
    return 1 if outcome.failed else 0


def _write_what_people_see(root: Path, judgements: list[Judgement], console: Console) -> None:
    """Writes figures and report, unless the existing ones show exactly these runs."""
    report = root / "report.html"
    if figure_files.is_current(root) and report.is_file():
        say(console, f"report: {report} (written before)")
        say(console, f"figures: {root / 'figures'} (drawn before)")
        return
    with console.status("writing the report"), _disk_errors_in_a_line(root):
        write_report(root, judgements=judgements)
    say(console, f"report: {report}")
    _draw(root, console)


@contextmanager
def _disk_errors_in_a_line(root: Path) -> Iterator[None]:
    """Names the folder that cannot be written, because the error of the system does not."""
    try:
        yield
    except OSError as error:
        if store.is_of_the_disk(error):
            raise store.cannot_write(root, error) from error
        raise


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


def _needs_with(roots: Sequence[Path]) -> str:
    """The files with which these studies were made and that were not given, as the end of an error."""
    needed = [read_study(root / "study.toml").own_parts for root in roots if (root / "study.toml").is_file()]
    names = list(dict.fromkeys(name for parts in needed if not are_loaded(parts) for name in parts))
    return f"; this study was made with {', '.join(names)}: add --with {names[0]}" if names else ""


def _claims(options: argparse.Namespace, console: Console) -> int:
    try:
        asked = [claim_named(name, "--claim") for name in options.claim or ()] or chosen_claims(None)
    except ValueError as error:
        raise ValueError(f"{error}{_needs_with(options.results)}") from error
    if options.list:
        print_claims(asked, console)
        return 0
    if not options.results:
        raise ValueError("results: name a study's folder, or --list the claims")
    judgements = _judgements(options.results, console)
    if options.claim:
        judgements = judgements_of(judgements, [claim.id for claim in asked])
    if options.verbose:
        print_details(judgements, console, with_unmeasured=bool(options.claim))
    else:
        print_verdicts(judgements, console)
    print_unfinished(options.results, console)
    if options.markdown:
        store.write_text(options.markdown, markdown(judgements))
        say(console, f"written: {options.markdown}")
    return 0


def _judgements(roots: Sequence[Path], console: Console) -> list[Judgement]:
    """The verdicts. If there is only one folder, they are also written into it."""
    judgements = judge_studies(roots)
    if len(roots) == 1:
        try:
            write_json(judgements, roots[0] / "claims.json")
        except OSError as error:
            # the folder may belong to somebody else; its results can still be judged
            say(console, f"claims.json is not written into {roots[0]}: {error.strerror}", style="yellow")
    return judgements


def _results(options: argparse.Namespace, console: Console) -> int:
    print_results(store.read_tables(options.results), console)
    print_unfinished(options.results, console)
    return 0


def _report(options: argparse.Namespace, console: Console) -> int:
    with console.status("writing the report"), _disk_errors_in_a_line(options.results):
        written = write_report(options.results, parquet=options.parquet)
    for path in written:
        say(console, f"written: {path}")
    print_unfinished([options.results], console)
    return 0


def _figures(options: argparse.Namespace, console: Console) -> int:
    try:
        style = Style(options.font, options.size, caption=not options.no_caption)
        new_figure(options.width, 1)
    except ValueError as error:
        raise ValueError(f"--{error}") from error
    wanted = figure_files.Wanted(
        options.width, style, tuple(options.only), tuple(options.method), tuple(options.format)
    )
    _draw(options.results, console, wanted)
    return 0


def _draw(root: Path, console: Console, wanted: figure_files.Wanted = figure_files.ALL) -> None:
    with console.status("drawing figures"), _disk_errors_in_a_line(root):
        written = figure_files.draw_all(root, wanted)
    for path in () if wanted.is_all else written:
        say(console, f"written: {path}")
    say(console, f"figures: {root / 'figures'}")


def _info(options: argparse.Namespace, console: Console) -> int:
    print_info(options.file, options.part, console)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "study": _study,
    "leaderboard": _leaderboard,
    "measure": _measure,
    "detect": _detect,
    "results": _results,
    "claims": _claims,
    "report": _report,
    "figures": _figures,
    "info": _info,
}
"""Name of a command -> its function, which returns the exit status."""
