"""Kills, threads and hostile files, again and again with fresh seeds: `make soak`, an hour or SOAK_SECONDS of them.

Each round draws a seed, which is printed: `python -m tests.soak SEED` repeats that round alone.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import h5py
import numpy as np

from analysis import store
from landscape.results.trust import ALLOWANCE, MOST_INFLATED, UntrustedError, check_trusted
from ncsam.seal import sealed
from tests.analysis.small_study import assert_same_results
from tests.analysis.tiny_study import LONGER, run_tiny

STUDY = """
import sys
from pathlib import Path
from tests.analysis.tiny_study import LONGER, run_tiny
run_tiny(Path(sys.argv[1]), Path(sys.argv[1]) / "out", LONGER)
"""


def kill_a_study(folder, undisturbed, random):
    """A study is killed at some moments; what it ends with is what it would have been."""
    for _ in range(random.randrange(1, 4)):
        process = subprocess.Popen([sys.executable, "-c", STUDY, str(folder)])
        try:
            process.wait(timeout=random.uniform(2, 12))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    outcome, _ = run_tiny(folder, folder / "out", LONGER)
    assert not outcome.failed
    for path in undisturbed.rglob("seed*.h5"):
        assert_same_results(folder / "out" / path.relative_to(undisturbed), path)
    left = [path for path in (folder / "out").rglob("*") if path.suffix in (".ckpt", ".tmp", ".failed")]
    assert not left, left


def break_files(folder, undisturbed, random):
    """Files of a study are changed: the table is that of the whole files, or one line says why there is none.

    Half of the time the changed files are sealed anew, as an attacker would: then no number is known, but nothing
    other than a table or a line comes of them either.
    """
    out = folder / "out"
    shutil.copytree(undisturbed, out)
    is_sealed = random.random() < 0.5
    for path in random.sample(sorted(out.rglob("*.h5")), 2):
        content = bytearray(path.read_bytes())
        for _ in range(random.randrange(1, 6)):
            content[random.randrange(len(content))] ^= random.randrange(1, 256)
        content = content[: random.choice([len(content), random.randrange(len(content))])]
        path.write_bytes(sealed(bytes(content)) if is_sealed else bytes(content))
    refused = ""
    try:
        table = store.read_table(out)
    except store.StoreError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused, refused
    else:
        expected = store.read_table(undisturbed)
        whole = expected[expected["seed"].isin(table["seed"])].reset_index(drop=True)
        assert is_sealed or table.equals(whole), table


def claim_memory(folder, _, random):
    """HDF5 files of random data sets are trusted only if all that they claim is little."""
    path = folder / "claims.h5"
    with h5py.File(path, "w") as file:
        for number in range(random.randrange(1, 50)):
            shape = (random.choice([1, 10**3, 10**6, 10**9]),)
            kind = random.choice(["f8", "u1", "S100", h5py.string_dtype()])
            fill = "x" * 1000 if kind == h5py.string_dtype() and random.random() < 0.5 else None
            file.create_dataset(str(number), shape, kind, fillvalue=fill)
    with h5py.File(path) as file:
        try:
            check_trusted(file)
        except UntrustedError:
            return
        claimed = sum(np.prod(item.shape) * item.dtype.itemsize for item in file.values())
    assert claimed <= ALLOWANCE + MOST_INFLATED * path.stat().st_size


THREADS = ["tests/landscape/test_threads.py", "tests/ncsam/test_threads.py"]
DRAWN = [
    *("tests/analysis/test_hostile_studies.py", "tests/analysis/test_hostile_files.py"),
    *("tests/landscape/results/test_storage.py", "tests/ncsam/test_hostile_labels.py"),
]
"""Tests whose cases are drawn, by `tests/drawn.py`."""


def in_processes(*commands):
    """Commands of this Python that must end well."""
    for command in commands:
        subprocess.run([sys.executable, "-m", *command], check=True, env={**os.environ, "FRESH_CASES": "1"})


def round_of(seed, undisturbed):
    """One of everything."""
    random = Random(seed)
    for attack in (break_files, break_files, claim_memory, kill_a_study):
        with tempfile.TemporaryDirectory() as folder:
            attack(Path(folder), undisturbed, random)
    in_processes(
        ["tests.ncsam.hostile_pickles", str(seed), "2000"],
        ["pytest", "-q", *THREADS],
        ["pytest", "-q", f"--hypothesis-seed={seed}", *DRAWN],
    )


def main():
    with tempfile.TemporaryDirectory() as folder:
        run_tiny(Path(folder), Path(folder) / "out", LONGER)
        undisturbed = Path(folder) / "out"
        if len(sys.argv) > 1:
            round_of(int(sys.argv[1]), undisturbed)
            return
        end = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "3600"))
        rounds = 0
        while time.monotonic() < end:
            seed = secrets.randbelow(2**31)
            print(f"round {rounds}, seed {seed}", flush=True)
            round_of(seed, undisturbed)
            rounds += 1
        print(f"{rounds} rounds: all numbers and refusals as they should be")


if __name__ == "__main__":
    main()
