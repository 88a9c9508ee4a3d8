"""What the command says on one screen, at once, and of what is misspelt."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from analysis import cli, store
from analysis.cli import commands
from analysis.cli.arguments import ENGINES, parser
from analysis.cli.commands import _resources
from analysis.engine import ENGINES as ENGINES_THERE_ARE
from analysis.plan import Choice, final_runs, read_study
from analysis.report.chosen import judge_studies
from analysis.report.figure_files import KINDS
from analysis.run import RunContext, execute
from analysis.run.forecast import seconds_of_training
from analysis.run.measurements import MEASURES
from tests.analysis.tiny_study import TINY, UNMEASURED

NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?"

WITHOUT_TORCH = """
import sys
from analysis import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as end:
    print("status", end.code)
print("loaded", [name for name in ("torch", "pandas", "matplotlib", "scipy") if name in sys.modules])
"""


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_terminal_of_40_columns_cuts_no_digit(finished, capsys, monkeypatch):
    # judged once: at each width the same is printed
    judgements = judge_studies([finished[1]])
    monkeypatch.setattr(commands, "judge_studies", lambda _: judgements)
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.main(["results", str(finished[1])]) == 0
    assert cli.main(["claims", str(finished[1])]) == 0
    wide = set(re.findall(NUMBER, capsys.readouterr().out))
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["results", str(finished[1])]) == 0
    assert cli.main(["claims", str(finished[1])]) == 0
    assert set(re.findall(NUMBER, capsys.readouterr().out)) <= wide


def test_a_folder_whose_name_is_not_utf_8_is_worked_in_and_shown(study_file, tmp_path, capsys):
    study_file.write_text(f'claims = ["L1"]\n{UNMEASURED}')
    out = tmp_path / os.fsdecode(b"out-\xff")
    assert cli.main(["study", str(study_file), "--out", str(out), "--engine", "serial"]) == 0
    for command in ("results", "claims"):
        assert cli.main([command, str(out)]) == 0
    assert cli.main(["info", str(out / "runs/digits/symmetric-0.4/sgd/seed0.h5")]) == 0
    assert "out-\\udcff" in capsys.readouterr().out
    assert (out / "report.html").read_text(encoding="utf-8")


def test_head_does_not_end_a_study(study_file, tmp_path):
    study_file.write_text(f'claims = ["L1"]\n{UNMEASURED}')
    command = [sys.executable, "-m", "analysis.cli", "study", str(study_file), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, "--engine", "serial"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert (tmp_path / "out/figures/drawn").is_file()


def test_a_study_prints_one_screen_at_any_width(undisturbed, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    command = ["study", str(undisturbed.parent / "tiny.toml"), "--out", str(out), "--engine", "serial"]
    # the second call finds the report and the figures of the first
    for width in (60, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert cli.main(command) == 0
        printed = capsys.readouterr().out
        lines = printed.splitlines()
        assert len(lines) < 45
        paths = [line for line in lines if str(out) in line]
        assert all(len(line) <= width for line in lines if line not in paths)
        assert [line.split(":")[0] for line in paths] == ["report", "figures", "details"]
        assert (out / "report.html").is_file()
        (unmeasured,) = [line for line in printed.split("\n") if line.startswith("not measured: ")]
        assert "T1 T2 T3" in unmeasured
        (method,) = [line for line in lines if line.startswith("SGD ")]
        assert re.search(r"\d+\.\d ± \d+\.\d", method)


def test_figures_for_a_paper_are_chosen_and_written_as_asked(finished, tmp_path, capsys):
    root = tmp_path / "study"
    shutil.copytree(finished[1], root, ignore=shutil.ignore_patterns("figures"))
    asked = ["--width", "3.3", "--font", "serif", "--size", "8", "--only", "contours", "--no-caption"]
    assert cli.main(["figures", str(root), *asked, "--method", "NCSAM", "--format", "svg"]) == 0
    printed = capsys.readouterr().out
    written = sorted((root / "figures").iterdir())
    assert written
    assert all(str(path) in printed for path in written)
    assert {path.suffix for path in written} == {".svg"}
    assert all(path.name.startswith("contours_") for path in written)
    for path in written:
        text = path.read_text()
        width = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', text)[1])
        assert width == pytest.approx(3.3 * 72)
        assert "NCSAM" in text
        assert ">SAM<" not in text
        assert "trained model" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "contour"], "--only: unknown 'contour'; known: .*did you mean 'contours'"),
        (["--method", "NCSAN"], "--method: unknown 'NCSAN'.*did you mean 'NCSAM'"),
        (["--format", "pdff"], "--format: unknown 'pdff'.*did you mean 'pdf'"),
        (["--width", "0.1"], "--width: must be between 1 and 100 inches, got 0.1"),
        (["--size", "0"], "--size: must be between 1 and 100 points, got 0"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused_with_the_option(arguments, says, finished, capsys):
    assert cli.main(["figures", str(finished[1]), *arguments]) == 2
    assert re.search(says, " ".join(capsys.readouterr().err.split()))


def test_the_help_names_what_can_be_drawn_alone():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "figures", "--help"], capture_output=True, text=True, check=True
    )
    assert ", ".join(KINDS) in " ".join(done.stdout.split())


def test_details_and_results_are_printed_on_request(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["claims", str(finished[1]), "-v", "--claim", "m1"]) == 0
    assert "control  cosine" in capsys.readouterr().out
    assert cli.main(["results", str(finished[1])]) == 0
    printed = capsys.readouterr().out
    assert "0% wrong labels:" in printed
    assert "40% wrong labels:" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "usage: ncsam"),
        (["study", "--help"], "--dry-run"),
        (["--version"], "ncsam "),
    ],
)
def test_help_and_version_load_nothing_heavy(arguments, says):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=True
    )
    assert says in done.stdout
    assert "status 0\nloaded []" in done.stdout


def test_the_help_of_the_package_run_as_a_module_loads_nothing_heavy():
    code = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("ncsam", run_name="__main__", alter_sys=True)
except SystemExit as end:
    print("status", end.code)
print("loaded", [name for name in ("torch", "pandas", "matplotlib", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: ncsam" in done.stdout
    assert "status 0\nloaded []" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["studdy", "x.toml"], "study"), (["claims", "x", "--verbos", "--markdwn", "f"], "--markdown")],
)
def test_a_misspelt_command_or_option_is_answered_with_the_nearest(arguments, meant, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_an_option_of_another_command_is_no_suggestion(capsys):
    with pytest.raises(SystemExit):
        cli.main(["report", "x", "--nosuch"])
    error = capsys.readouterr().err
    assert "ncsam report: error: unrecognized arguments: --nosuch\n" in error


def resources_of(*arguments):
    return _resources(parser().parse_args(["study", "x.toml", "--out", "y", "--device", "cpu", *arguments]))


def test_the_serial_engine_has_one_worker(monkeypatch):
    monkeypatch.setattr("analysis.cli.commands.cores", lambda: 8)
    assert resources_of("--engine", "serial").workers == 1
    assert resources_of("--engine", "processes").workers == resources_of().workers == 8
    with pytest.raises(ValueError, match=r"^--workers: engine 'serial' has one, got 3; .*--engine processes"):
        resources_of("--engine", "serial", "--workers", "3")


def test_a_dry_run_tells_the_runs_and_does_none(undisturbed, study_file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["study", str(study_file), "--out", str(out), "--engine", "serial"]
    assert cli.main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "trainings: 2 to judge and 0 to choose hyper-parameters; 2 are left" in printed
    assert "epochs left: 6" in printed
    assert re.search(r"memory of a run: \d+ MiB for the data and the vectors of 310 parameters", printed)
    assert re.search(r"time left with \d+ workers: \d+ s( to \d+ s)?, by a step of each method", printed)
    assert not out.exists()
    shutil.copytree(undisturbed, out)
    (out / "runs/digits/symmetric-0.4/sgd/seed1.h5").unlink()
    assert cli.main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "1 are left" in printed
    assert re.search(
        r"time left with \d+ workers: \d+ s( to \d+ s)?, .*without measurements, whose time", printed
    )


def test_help_names_the_engines_and_measures_that_there_are(capsys):
    assert ENGINES == ENGINES_THERE_ARE
    with pytest.raises(SystemExit):
        cli.main(["measure", "--help"])
    assert f"some of {', '.join(MEASURES)}" in " ".join(capsys.readouterr().out.split())


def test_a_dry_run_without_the_data_says_what_is_missing(study_file, tmp_path, capsys):
    study_file.write_text(TINY.replace('dataset = "digits"', 'dataset = "npz"'))
    assert cli.main(["study", str(study_file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "memory of a run: not known without the data (dataset 'npz': pass data_dir" in printed
    assert "not known before a run is done" in printed


def test_a_dry_run_refuses_what_the_study_would_refuse(study_file, tmp_path, capsys):
    study_file.write_text(TINY.replace("eigenvalues = 1", "eigenvalues = 400"))
    assert cli.main(["study", str(study_file), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "measure.eigenvalues: 400 of a model with 310 parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (("epochs = 3", "epochs = 4"), "has other settings than the study (training.epochs: 3 there, 4 now)"),
        (('name = "tiny"', 'name = "other"'), "holds the study 'tiny', not 'other'"),
    ],
)
def test_a_dry_run_refuses_a_folder_that_the_study_would_refuse(
    undisturbed, study_file, tmp_path, capsys, change, refused
):
    shutil.copytree(undisturbed, tmp_path / "out")
    assert change[0] in TINY
    study_file.write_text(TINY.replace(*change))
    for options in (["--dry-run"], []):
        command = ["study", str(study_file), "--out", str(tmp_path / "out"), "--engine", "serial", *options]
        assert cli.main(command) == 2
        assert refused in capsys.readouterr().err


def test_a_dry_run_counts_a_broken_file_as_a_run_that_is_left(undisturbed, study_file, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    path = out / "runs/digits/symmetric-0.4/sgd/seed1.h5"
    path.write_bytes(path.read_bytes()[:-1])
    assert cli.main(["study", str(study_file), "--out", str(out), "--engine", "serial", "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "has lost its checksum: it was cut short or written to; its run would be done again" in printed
    assert "1 are left" in printed
    assert path.exists()


@pytest.fixture
def clock_of_samples(monkeypatch):
    """A clock that each sample of a forward pass moves on: by a second, with a backward pass to follow by three."""
    seconds = [0]

    def count(module, inputs, _):
        if isinstance(module, torch.nn.Flatten):
            seconds[0] += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    monkeypatch.setattr(time, "perf_counter", lambda: float(seconds[0]))
    handle = register_module_forward_hook(count)
    yield
    handle.remove()


@pytest.mark.parametrize("method", ['"plain"', '"sam"\nrho = 0.1'])
def test_the_forecast_of_time_is_that_of_the_training(method, clock_of_samples, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(TINY.replace('"plain"', method))
    run = final_runs(read_study(path))[0]
    forecast = seconds_of_training(run, RunContext(tmp_path))
    execute(
        run,
        Choice(run.config.method.candidates[0], [{}], [], []),
        RunContext(tmp_path),
        report=lambda *_: None,
    )
    training = store.read_history(tmp_path / run.path)["seconds"].iloc[-1]
    evaluation = 3 * (200 + 100)  # epochs, samples of the training set and of the test set
    assert forecast == pytest.approx(training + evaluation)
    assert not list(tmp_path.rglob("*.ckpt"))
