"""The arguments of the command `ncsam`. This module imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

ENGINES = ("serial", "processes", "dask")


class Parser(argparse.ArgumentParser):
    """A parser whose errors about an unknown command or option name the most similar one that is known there."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments. Unknown ones are an error of the command that was called, which has other options."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            called: Parser = _commands(self)[found.command]
            called.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Prints one line that names the most similar argument, and exits with status 2."""
        unknown = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            given = unknown[1] or unknown[2]
            near = difflib.get_close_matches(given, _words(self), 1)
            message += f"; did you mean {near[0]!r}?" if near else ""
        super().error(message)


def parser() -> Parser:
    """The parser of the whole command. Its result `command` is the name of the command."""
    whole = Parser(
        prog="ncsam",
        description="Loss landscapes of learning with noisy labels: train, measure, judge, plot.",
    )
    whole.add_argument("--version", action="version", version=f"ncsam {_version()}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_study(commands)
    _add_leaderboard(commands)
    _add_measure(commands)
    _add_detect(commands)
    _add_results(commands)
    _add_claims(commands)
    _add_report(commands)

    _add_figures(commands)

    info = commands.add_parser("info", help="what a study's folder, its study.h5 or a run file holds")
    info.add_argument("file", type=Path, help="a folder, its study.h5, or a run's .h5")
    info.add_argument(
        "part",
        nargs="*",
        help="of a run's file: settings, results, a group such as sharpness, or a column; of study.h5: a part of "
        "columns' names",
    )
    return whole


def _version() -> str:
    try:
        return version("ncsam")
    except PackageNotFoundError:
        return "(not installed: used from its source folder)"


def _words(whole: argparse.ArgumentParser) -> list[str]:
    """The names of the commands and options of this parser."""
    return [*re.findall(r"--[\w-]+", whole.format_help()), *_commands(whole)]


def _commands(whole: argparse.ArgumentParser) -> dict[str, Any]:
    """Name -> parser of each command; none for the parser of a command."""
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _add_study(commands: Any) -> None:
    study = commands.add_parser("study", help="train and measure every run of a study, then judge and plot")
    study.add_argument("study", type=Path, help="a study file, such as studies/quick.toml")
    study.add_argument(
        "--out", type=Path, required=True, help="the study's folder; finished runs in it are not run again"
    )
    study.add_argument(
        "--dry-run", action="store_true", help="check the study, print its runs and their cost, do nothing"
    )
    _add_own_parts(study)
    _add_resources(study)


def _add_leaderboard(commands: Any) -> None:
    board = commands.add_parser(
        "leaderboard", help="train every method on every data set and kind of noise, and rank the methods"
    )
    board.add_argument("board", type=Path, help="a leaderboard file, such as studies/baselines.toml")
    board.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the leaderboard's folder; finished runs in it are not run again",
    )
    board.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="DATA",
        help="train only on this data set (may be repeated); the tables have all that is there",
    )
    board.add_argument(
        "--dry-run", action="store_true", help="check the file, print its runs and their cost, do nothing"
    )
    _add_resources(board)


def _add_measure(commands: Any) -> None:
    measuring = commands.add_parser(
        "measure",
        help="measure a checkpoint of your own, or the stored weights of a study's runs again, without training",
    )
    measuring.add_argument("results", type=Path, help="a study's folder; with --model a checkpoint's file")
    measuring.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="MEASURE,...",
        help="some of curvature, sharpness, flatness, parts, critical, noise, samples, density, surfaces, bound "
        "(default: all)",
    )
    measuring.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="a study file whose [measure] settings are taken (default: those in the folder)",
    )
    _add_own_model(measuring)
    _add_own_parts(measuring)
    _add_resources(measuring)


def _add_own_model(parser: argparse.ArgumentParser) -> None:
    own = parser.add_argument_group("a checkpoint of your own")
    own.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="what builds the model, such as my_models:resnet"
    )
    own.add_argument(
        "--data",
        metavar="DATA",
        help="a packaged data set, an .npz file with inputs and targets, or module:function",
    )
    own.add_argument("--loss", metavar="MODULE:FUNCTION", help="the mean loss (default: cross-entropy)")
    own.add_argument(
        "--samples",
        type=int,
        help="most samples that are measured; of more they are drawn at random (default: 1000)",
    )
    own.add_argument("--seed", type=int, help="of the drawn samples and of probes (default: 0)")
    own.add_argument("--steps", type=int, help="points of a side of the surface (default: 21)")
    own.add_argument(
        "--along",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="earlier checkpoints of the training, in order: draws the surface along it as a GIF and a page",
    )
    own.add_argument(
        "--out", type=Path, metavar="FILE", help="where results go (default: CHECKPOINT.landscape.h5)"
    )


def _add_detect(commands: Any) -> None:
    detecting = commands.add_parser(
        "detect",
        help="train on the labels of a data set and rank its samples by how suspicious their labels are",
    )
    detecting.add_argument(
        "data",
        help="a packaged data set, or an .npz file with x_train, y_train, x_test, y_test (and observed)",
    )
    detecting.add_argument("--data-dir", type=Path, help="where data files are, for data sets that need them")
    detecting.add_argument("--labels", type=Path, metavar="FILE", help="labels that annotators gave")
    detecting.add_argument("--labels-name", metavar="NAME", help="which labels of that file, such as worst")
    detecting.add_argument("--noise", metavar="KIND", help="plant wrong labels of this kind, to try it out")
    detecting.add_argument("--rate", type=float, help="share of the labels that --noise makes wrong")
    detecting.add_argument("--model", help="default: cnn for images, mlp for other data")
    detecting.add_argument("--epochs", type=int, default=20, help="default: 20")
    detecting.add_argument("--batch-size", type=int, default=64, help="default: 64")
    detecting.add_argument("--learning-rate", type=float, default=0.05, help="of SGD (default: 0.05)")
    detecting.add_argument(
        "--folds", type=int, default=0, help="cross-validate for the confident joint (default: 0, not)"
    )
    detecting.add_argument("--seed", type=int, default=0, help="default: 0")
    detecting.add_argument(
        "--out", type=Path, default=Path("suspects.csv"), help="the table (default: suspects.csv)"
    )
    detecting.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def _add_results(commands: Any) -> None:
    results = commands.add_parser("results", help="print the table of a study's results at every noise rate")
    results.add_argument(
        "results", type=Path, nargs="+", help="a study's folder, or several that are shown as one study"
    )


def _add_claims(commands: Any) -> None:
    claims = commands.add_parser(
        "claims", help="judge the claims on a study's results and print the verdicts"
    )
    claims.add_argument(
        "results", type=Path, nargs="*", help="a study's folder, or several that are judged as one study"
    )
    claims.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print each prediction, its power, controls, what is missing",
    )
    claims.add_argument("--list", action="store_true", help="print what each claim predicts and needs")
    claims.add_argument(
        "--claim", action="append", metavar="ID", help="print only this claim (may be repeated)"
    )
    claims.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the verdicts as a Markdown table"
    )
    _add_own_parts(claims)


def _add_figures(commands: Any) -> None:
    drawing = commands.add_parser("figures", help="draw the figures of a study's results as PNG and PDF")
    drawing.add_argument("results", type=Path, help="a study's folder")
    drawing.add_argument(
        "--width", type=float, default=6.9, help="inches: 3.3 for one column, 6.9 for two (default: 6.9)"
    )
    drawing.add_argument("--font", help="family of the text, such as serif")
    drawing.add_argument("--size", type=float, help="of the text in points (default: 8)")
    drawing.add_argument(
        "--no-caption", action="store_true", help="leave out the lines below a picture that explain it"
    )
    names: dict[str, Any] = {"type": lambda text: text.split(","), "metavar": "NAME,..."}
    drawing.add_argument(
        "--only",
        default=[],
        help="some of alignment, contours, curvature, epochs, lines, page, relief, sharpness_accuracy, spectra, "
        "spectral_densities, training_curves (default: all)",
        **names,
    )
    drawing.add_argument(
        "--method", action="append", default=[], metavar="TITLE", help="only this method (may be repeated)"
    )
    drawing.add_argument(
        "--format", default=["pdf", "png"], help="pdf, png, svg, ... (default: pdf,png)", **names
    )


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="write report.html, a Markdown table of the verdicts and a CSV of all runs"
    )
    report.add_argument("results", type=Path, help="a study's folder")
    report.add_argument(
        "--parquet", action="store_true", help="write the runs as runs.parquet too (needs ncsam[parquet])"
    )
    _add_own_parts(report)


def _add_own_parts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with",
        dest="own",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers parts of your own (may be repeated)",
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
