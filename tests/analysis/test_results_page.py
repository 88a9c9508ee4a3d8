"""docs/results.md is the schema of the run files: every line of it, and nothing beside it."""

import re
import shutil
import subprocess

import h5py
import pytest
import xarray
from h5py import h5t

from tests.analysis.tiny_study import TINY, run_tiny

EVERYTHING = (
    ("seeds = [0, 1]", "seeds = [0]"),
    ("epochs = 3\nalignment_batches = 0", "epochs = 2\nprobe_epochs = [1]\nprobe_samples = 20"),
    ('name = "plain"\nlabel = "SGD"', 'name = "ncsam"\nrho = [0.1, 0.2]\nflip_ratio = 0.4\nstrength = 0.1'),
    ("[measure]", "[measure]\nbound = true\nby_sample = true\nsurface_rates = [0.4]\nsurface_seeds = [0]"),
    ("[measure]", "[measure]\nsurface_adaptive = true"),
    ("samples = 20\neigen", "samples = 20\nline_steps = 3\nsurface_steps = 13\ndensity_steps = 3\neigen"),
)
"""Everything that a run file may hold."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    text = TINY
    for old, new in EVERYTHING:
        assert old in text
        text = text.replace(old, new, 1)
    outcome, _ = run_tiny(folder, folder / "out", text)
    assert not outcome.failed
    return folder / "out/runs/digits/symmetric-0.4/ncsam/seed0.h5"


@pytest.fixture(scope="module")
def page(pytestconfig):
    return (pytestconfig.rootpath / "docs/results.md").read_text()


def documented(page):
    """Pattern of a data set's path -> (type, shape, unit, meaning)."""
    schema = page.split("## A run file")[1].split("## The index")[0]
    found = {}
    for group, section in re.findall(r"### `(/\S+)`\n(.*?)(?=\n### |\Z)", schema, flags=re.S):
        for row in re.findall(r"^\| `([^@].*?)` \|(.*)\|$", section, flags=re.M):
            pattern = re.sub(r"<\w+>", "[^/]+", re.escape(f"{group}/{row[0]}"))
            found[pattern] = tuple(
                cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row[1])
            )
    return found


def datasets(path):
    """Path -> the data set's type, shape, unit and meaning; not the scales of dimensions without coordinates."""
    found = {}
    with h5py.File(path) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and not has_no_coordinates(item):
                kind = "text" if h5py.check_string_dtype(item.dtype) else item.dtype.name
                about = (item.attrs.get("units", ""), item.attrs.get("description", ""))
                found[f"/{name}"] = (kind, shape_of(item), *about)

        file.visititems(visit)
    return found


def has_no_coordinates(item):
    return item.is_scale and item.attrs["NAME"].startswith(b"This is a netCDF dimension but not")


def shape_of(item):
    if item.shape == ():
        return "scalar"
    if item.is_scale:
        return f"({item.name.split('/')[-1]},)"
    if not all(len(dim) for dim in item.dims):
        return "any"
    names = [dim[0].name.split("/")[-1] for dim in item.dims]
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def test_the_page_has_every_data_set_with_its_type_shape_unit_and_meaning_and_no_other(run, page):
    lines, left = documented(page), set(documented(page))
    for path, says in datasets(run).items():
        (pattern,) = [pattern for pattern in lines if re.fullmatch(pattern, path)]
        assert lines[pattern] == says, path
        left.discard(pattern)
    assert not left


def test_the_page_has_every_group_and_every_attribute(run, page):
    headings = [re.sub(r"<\w+>", "[^/]+", name) for name in re.findall(r"### `(/\S+)`", page)]
    attributes = set(re.findall(r"`@(\w+)`", page))
    with h5py.File(run) as file:

        def visit(name, item):
            if isinstance(item, h5py.Group) and not all(
                isinstance(part, h5py.Group) for part in item.values()
            ):
                assert any(re.fullmatch(heading, f"/{name}") for heading in headings), name
            assert set(item.attrs) <= attributes, name

        file.visititems(visit)
        assert set(file["config"].attrs) == set(
            re.findall(r"`@(\w+)`", page.split("### `/config`")[1].split("### ")[0])
        )


def test_types_are_those_that_every_reader_of_hdf5_knows(run):
    """MATLAB's h5read and older netCDF have no types of variable length but text, and no compounds of them."""
    plain = {h5t.INTEGER, h5t.FLOAT, h5t.STRING}
    with h5py.File(run) as file:

        def visit(_, item):
            if isinstance(item, h5py.Dataset):
                kind = item.id.get_type()
                is_truth = kind.get_class() == h5t.ENUM and kind.get_super().get_size() == 1
                assert kind.get_class() in plain or is_truth, item.name

        file.visititems(visit)


def test_xarray_opens_every_group_with_its_dimensions(run):
    found = {}
    for path, (_, shape, *_) in datasets(run).items():
        group, _, name = path.rpartition("/")
        if "clean" in group:
            continue  # as "observed"
        found.setdefault(group, {})[name] = tuple(
            part for part in re.findall(r"\w+", shape) if part != "scalar"
        )
    weights = found.pop("/weights")
    for group, dims in found.items():
        with xarray.open_dataset(run, group=group, engine="h5netcdf") as opened:
            assert {str(name): variable.dims for name, variable in opened.variables.items()} == dims, group
    with xarray.open_dataset(run, group="weights", engine="h5netcdf", phony_dims="access") as opened:
        assert set(opened.variables) == set(weights)


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="the types are checked above without it")
def test_h5dump_reads_the_whole_file(run):
    done = subprocess.run(["h5dump", run], capture_output=True, text=True, check=True)
    assert "STRPAD" in done.stdout
    assert "error" not in done.stderr
