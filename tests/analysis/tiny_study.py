"""A study of two runs that take a moment, for tests that run it again and again."""

import io
import os
import signal
import subprocess
import sys
import time

from rich.console import Console

from analysis.engine import Resources
from analysis.engine.whole_study import run_study
from analysis.plan import read_study
from tests.analysis.small_study import STUDIES

TINY = (STUDIES / "tiny.toml").read_text()

UNMEASURED = f"measured = false\n{TINY}"
"""Without the measurements, which take most of its time, for tests that look at trainings, files and words."""

LONGER = TINY.replace("epochs = 3", "epochs = 200")
"""Long enough to be killed in."""

LONG_TRAINING = UNMEASURED.replace("epochs = 3", "epochs = 120")
"""Long enough to be killed in at its first checkpoint."""


def run_tiny(folder, out, text=TINY, engine="serial", workers=1, scheduler=None, data_dir=None):
    """(what the study's call did, what it printed)."""
    path = folder / "tiny.toml"
    path.write_text(text)
    printed = io.StringIO()
    outcome = run_study(
        read_study(path),
        out,
        # as many threads as these tests' own process has: the same bits need the same number
        Resources(engine, workers, data_dir=data_dir, threads=1, scheduler=scheduler),
        console=Console(file=printed, width=300),
    )
    return outcome, printed.getvalue()


def finished_tiny(folder, text=TINY):
    """The results of a study in which no run failed."""
    outcome, _ = run_tiny(folder, folder / "out", text)
    assert not outcome.failed
    return folder / "out"


def interrupted_in_training(study, out, *options):
    """Runs `ncsam study` and presses Ctrl-C at the first checkpoint: (exit status, printed, errors)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis.cli", "study", str(study), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background jobs, and so these tests if they are one, have Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(out.rglob("*.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=10)
    return process.returncode, printed, errors


def killed_at(mark, work):
    """Does the work in a process of its own, and kills it when it has made the file `mark`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended before it came to the mark"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    mark.unlink()


def mark_and_wait(mark):
    """What a process does to be killed just here."""
    mark.touch()
    time.sleep(60)
