"""The study that the tests of whole studies run, and how its files are compared."""

from pathlib import Path

import h5py
import numpy as np

from analysis import cli

STUDIES = Path(__file__).parent / "studies"
SGD_ALONE = (STUDIES / "small.toml").read_text()
STUDY = (
    SGD_ALONE
    + """
[[methods]]
name = "ncsam"
label = "NCSAM"
rho = [0.1, 0.3]
strength = 0.1
flip_ratio = 0.4
[measure]
samples = 60
trace_max_products = 20
sharpness_steps = 2
surface_rates = [0.4]
surface_seeds = [0]
surface_steps = 5
line_steps = 5
"""
)


def write_study(folder, text=STUDY):
    path = folder / "small.toml"
    path.write_text(text)
    return path


def study(path, out, *options):
    return cli.main(["study", str(path), "--out", str(out), "--engine", "serial", *options])


def contents(path):
    """All numbers of a run file but times."""
    found = {}
    with h5py.File(path) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and name != "history/seconds":
                found[name] = item[()]

        file.visititems(visit)
    return found


def assert_same_results(first, second):
    one, other = contents(first), contents(second)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
