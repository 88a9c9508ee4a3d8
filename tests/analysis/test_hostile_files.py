"""Run files and indexes that somebody changed and sealed anew: they are read, or one line names the file."""

import contextlib
import io
import json
import math
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import landscape
from analysis import store
from analysis.report.page import csv
from analysis.report.results import print_results
from ncsam.seal import sealed, without_seal
from tests.analysis.test_trust import FIRST
from tests.drawn import drawn

WORDS = [
    "",
    "x",
    "é",
    "\x1b[31m",
    "\n",
    "[/red]",
    "nan",
    "{}",
    "[]",
    "null",
    "[[[[",
    '{"a": 1}',
    "a" * 1000,
    "../..",
]
NUMBERS = [0, 1, -1, 2, 3, 99, 2**31, 2**63 - 1, -(2**63), 0.5, math.nan, math.inf, -math.inf, 1e308]
words = st.sampled_from(WORDS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
numbers = st.sampled_from(NUMBERS) | st.floats() | st.integers(-(2**63), 2**63 - 1)
types = st.sampled_from(["f8", "f2", "i8", "u8", "u1", "?", "c16", "S3", "S0", "V4"])
shapes = st.sampled_from([(), (0,), (1,), (2,), (3,), (2, 2), (0, 5), (1, 1, 1)])
arrays = st.builds(lambda kind, shape: np.zeros(shape, kind), types, shapes)
scalars = words | numbers | st.booleans() | st.binary(max_size=5).filter(lambda text: b"\0" not in text)
anything = scalars | arrays | st.lists(words, max_size=2) | st.just(h5py.Empty("f8"))


def changed_copy(path, content, change):
    """Writes a file to `path` with the content of another, changed in memory and sealed anew."""
    with h5py.File(h5py.h5f.open_file_image(content, flags=h5py.h5f.FILE_IMAGE_OPEN_RW)) as file:
        change(file)
        file.flush()
        path.write_bytes(sealed(file.id.get_file_image()))


def names_of_attributes(content):
    """(object, attribute) of all that are read; those of the configuration as often as all others together."""
    config, others = [], []
    with h5py.File(h5py.h5f.open_file_image(content)) as file:

        def visit(name, item):
            keys = [key for key in item.attrs if key not in ("DIMENSION_LIST", "REFERENCE_LIST")]
            (config if name == "config" else others).extend((name, key) for key in keys)

        file.visititems(visit)
    return config * (len(others) // len(config)) + others


@pytest.fixture(scope="module")
def slim(undisturbed, tmp_path_factory):
    """The folder of a study whose runs keep one result each, because a test reads them hundreds of times."""
    out = tmp_path_factory.mktemp("slim") / "out"
    shutil.copytree(undisturbed, out)
    for path in out.rglob("seed*.h5"):
        with store.run_file_changed(path) as file:
            kept = file["curvature/observed"]
            for name in [name for name in kept if name != "trace"]:
                del kept[name]
            for name in [name for name in file if name not in ("config", "history", "labels", "curvature")]:
                del file[name]
            del file["curvature/clean"]
    (out / "study.h5").write_bytes(b"")
    assert len(store.read_table(out)) == 2
    return out


@pytest.fixture(scope="module")
def run_file(slim):
    """The bytes of a run file, and the names of its attributes."""
    content = without_seal((slim / FIRST).read_bytes())
    return content, names_of_attributes(content)


@drawn(40)
@given(st.lists(st.tuples(st.integers(0, 10**6), anything | st.none()), min_size=1, max_size=2))
def test_whatever_attributes_say_a_run_file_is_read_or_named(run_file, tmp_path, edits):
    content, names = run_file

    def change(file):
        for number, value in edits:
            place, key = names[number % len(names)]
            if value is None:
                file[place].attrs.pop(key, None)
            else:
                file[place].attrs[key] = value

    path = tmp_path / "run.h5"
    changed_copy(path, content, change)
    for read in (store.read_record, store.read_history, read_trace):
        try:
            read(path)
        except (ValueError, KeyError) as error:
            message = str(error.args[0])
            assert message.startswith(("file: ", "name: ")), message
            assert str(path) in message
            assert "\n" not in message


def read_trace(path):
    landscape.load(path, "curvature/observed/trace")


WORD = h5py.string_dtype()
columns = st.sampled_from(["f8", "f4", "f2", "i8", "u8", "i1", "?", "c16", "S3", "V4", WORD])
lengths = st.sampled_from([(), (0,), (1,), (2,), (3,), (2, 1), (10**12,)])
fills = st.sampled_from([None, 0, 1, -1, math.nan, math.inf, "x", "[/red]", "\x1b[31m", "\n", "=1+1", "é"])


ORDERS = {
    "as it was": lambda names: names,
    "backward": lambda names: names[::-1],
    "one": lambda names: names[:1],
    "one twice": lambda names: [*names, names[0]],
    "one that is not there": lambda names: [*names, "more"],
    "a number": lambda _: [1],
    "no list": lambda _: {},
    "nothing": lambda _: None,
}


@pytest.fixture(scope="module")
def index(slim):
    """The bytes of an index, and the names of its columns."""
    content = without_seal((slim / "study.h5").read_bytes())
    with h5py.File(h5py.h5f.open_file_image(content)) as file:
        return content, json.loads(file["table"].attrs["order"])


def fill_column(group, name, kind, shape, fill):
    """A column of another type and length takes the place of one, as far as HDF5 can hold it."""
    if name in group:
        del group[name]
    with contextlib.suppress(TypeError, ValueError, OSError, UnicodeError):
        if fill is None or math.prod(shape) > 100:
            group.create_dataset(name, shape, kind, chunks=(1024,) if math.prod(shape) > 100 else None)
        else:
            group.create_dataset(name, data=np.full(shape, fill), dtype=kind)


edits_of_columns = st.tuples(st.integers(0, 10**6), columns, lengths, fills)


@drawn(25)
@given(edits=st.lists(edits_of_columns, min_size=1, max_size=3), order=st.sampled_from([*ORDERS]))
def test_whatever_columns_an_index_has_its_table_is_shown_or_made_anew(index, slim, tmp_path, edits, order):
    content, names = index
    out = tmp_path / "out"
    shutil.copytree(slim, out, dirs_exist_ok=True)
    places = [*names, "more", "a/b", "é"]

    def change(file):
        for number, kind, shape, fill in edits:
            fill_column(file["table"], places[number % len(places)], kind, shape, fill)
        file["table"].attrs["order"] = json.dumps(ORDERS[order](names))

    changed_copy(out / "study.h5", content, change)
    table = store.read_table(out)
    assert len(table) == 2
    assert all(map(str.isprintable, table.columns))
    print_results(table, Console(file=io.StringIO(), width=100))
    csv(table)
