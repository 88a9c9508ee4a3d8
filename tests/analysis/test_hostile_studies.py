"""Study files by people who slipped, by programs that failed and by enemies: one clear line, and nothing is done."""

import copy
import datetime
import math
import re
import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from analysis import cli
from analysis.plan import StudyError, final_runs, read_study
from analysis.plan.consistency import MAX_RUNS
from analysis.plan.study import MeasureSettings, SelectionSettings, TrainingSettings
from tests.analysis.test_study import GOOD
from tests.drawn import drawn


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


SEEDS = "seeds = [0, 1]"
CORPUS = {
    "empty": (b"", "name: is missing"),
    "not UTF-8": (b'name = "\xff"', "not a TOML file: 'utf-8' codec"),
    "zeros": (bytes(100), "not a TOML file"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(500), "not a TOML file"),
    "too large": (b"#" * (1 << 21), "has more than 1048576 bytes"),
    "deep lists": (b"seeds = " + b"[" * 50_000, "nests too deeply"),
    "deep keys": (b".".join([b"a"] * 5_000) + b" = 1", "nests too deeply"),
    "a key twice": (changed(SEEDS, f"{SEEDS}\n{SEEDS}"), "not a TOML file: Cannot overwrite a value"),
    "5000 digits": (changed("epochs = 2", "epochs = " + "9" * 5_000), "not a TOML file"),
    "an integer of 5000 hexadecimal digits": (
        changed(SEEDS, f"seeds = [0x{'f' * 5_000}]"),
        "seeds.0: must be a number of at most 63 bits, got 20000 bits",
    ),
    "10^6 runs by seeds": (
        changed(SEEDS, f"seeds = {list(range(2_000, 102_000))}").replace(b" ", b""),
        "make 600000 runs and 4 to choose between candidates; at most 100000 are allowed",
    ),
    "10^12 runs by candidates": (
        changed("rho = [0.1, 0.5]", f"rho = {[i / 1e4 for i in range(10_000)]}")
        .replace(b'name = "sam"', b'name = "ncsam"')
        .replace(
            b'label = "SAM"', b'label = "SAM"\nstrength = ' + str([i / 1e4 for i in range(10_000)]).encode()
        )
        .replace(
            b'label = "SAM"', b'label = "SAM"\nflip_ratio = ' + str([i / 1e4 for i in range(10_000)]).encode()
        ),
        "make 12 runs and 2000000000000 to choose between candidates",
    ),
    "a grid of 10^12 points": (
        changed("[noise]", "[measure]\nsurface_steps = 1000000\n[noise]"),
        "measure.surface_steps: input should be less than or equal to 1000, got 1000000",
    ),
    "NaN": (changed("rates = [0.0, 0.4]", "rates = [nan]"), "noise.rates.0: must be a number that is finite"),
    "infinity": (
        changed("epochs = 2", "epochs = 2\nlearning_rate = inf"),
        "training.learning_rate: must be a",
    ),
    "a negative number": (changed("epochs = 2", "epochs = -2"), "training.epochs: input should be greater"),
    "true for 1": (
        changed("epochs = 2", "epochs = true"),
        "training.epochs: input should be a valid integer",
    ),
    "true for 1.0": (
        changed("epochs = 2", "epochs = 2\nlearning_rate = true"),
        "training.learning_rate: input should be a valid number",
    ),
    "a float for a whole number": (changed("epochs = 2", "epochs = 2.0"), "training.epochs: input should be"),
    "a date": (changed("epochs = 2", "epochs = 2026-01-01"), "training.epochs: must not be a date"),
    "a table for a list": (
        GOOD.encode() + b"[selection.seeds]\na = 1\n",
        "selection.seeds: input should be a valid list",
    ),
    "a table for a number": (
        changed("epochs = 2", "epochs = {value = 2}"),
        "training.epochs: input should be",
    ),
    "path traversal in the name": (changed('"small"', '"../../etc"'), "name: string should match pattern"),
    "an absolute path for a name": (
        changed('"small"', '"/etc/cron.d/x"'),
        "name: string should match pattern",
    ),
    "path traversal in the data set": (changed('"digits"', '"../digits"'), "dataset: unknown '../digits'"),
    "dots for a label": (changed('label = "SGD"', 'label = ".."'), "methods.0.label: needs at least one of"),
    "an empty list": (changed(SEEDS, "seeds = []"), "seeds: list should have at least 1 item"),
    "no methods": (GOOD.split("[[methods]]")[0].encode(), "methods: is missing"),
    "one label twice": (
        changed('label = "SGD"', 'label = "sam"'),
        "has the folder 'sam' of another; rename it",
    ),
    "an unknown key": (changed(SEEDS, f"{SEEDS}\nseed = 1"), "seed: unknown key; did you mean 'seeds'?"),
    "an unknown table": (GOOD.encode() + b"[modle]\n", "modle: unknown key; did you mean 'model'?"),
    "a key with a line break": (changed(SEEDS, f'{SEEDS}\n"a\\nb" = 1'), r"study: has the key 'a\nb'"),
    "a key that colors the terminal": (
        changed(SEEDS, f'{SEEDS}\n"\\u001b[31m" = 1'),
        r"has the key '\x1b[31m'",
    ),
    "a word of 10^5 characters": (
        changed('"small"', f'"{"a" * 100_000}"'),
        "name: must be at most 500 printable",
    ),
    "a word for a number of the noise": (
        changed("[noise]", '[noise]\nkind = "beta"\nconcentration = "ten"'),
        "noise.concentration: must be a number, got 'ten'",
    ),
}


def refusal(arguments, capsys):
    """The only line that the command prints when it refuses."""
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("case", CORPUS)
def test_a_hostile_file_is_refused_in_one_line_before_anything_is_done(case, tmp_path, capsys):
    content, says = CORPUS[case]
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    error = refusal(["study", str(path), "--out", str(tmp_path / "out")], capsys)
    assert says in error
    assert str(path) in error
    assert len(error) < 2_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "says"), [(".", "Is a directory"), ("nowhere.toml", "does not exist"), ("a" * 300, "too long")]
)
def test_what_is_not_a_file_is_refused_in_one_line(name, says, tmp_path, capsys):
    error = refusal(["study", str(tmp_path / name), "--out", str(tmp_path / "out")], capsys)
    assert error.startswith("ncsam: error: study: ")
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_an_endless_file_is_refused(tmp_path, capsys):
    assert "has more than" in refusal(["study", "/dev/zero", "--out", str(tmp_path / "out")], capsys)


def refused(path):
    """What reading the file says against it; anything but a StudyError is a failure."""
    try:
        read_study(path)
    except StudyError as error:
        return str(error)
    return None


SECTIONS = {
    "training": [*TrainingSettings.model_fields],
    "measure": [*MeasureSettings.model_fields],
    "selection": [*SelectionSettings.model_fields],
    "model": ["name", "hidden", "depth", "dropout"],
    "noise": ["kind", "rates", "transition", "flip_std", "concentration", "pmd_type", "file", "labels"],
    "": [
        "name",
        "dataset",
        "train_samples",
        "seeds",
        "model",
        "noise",
        "training",
        "methods",
        "selection",
        "measure",
    ],
    "methods": [
        "name",
        "label",
        "like",
        "loss",
        "mixup",
        "rho",
        "strength",
        "flip_ratio",
        "compensation",
        "period",
    ],
}
KINDS = ["ncsam", "gsam", "sam", "co-teaching", "gce", "elr", "beta", "matrix", "human", "cnn", "wrn", "SAM"]
WORDS = [
    "",
    "..",
    "a/../b",
    "/etc/passwd",
    "\n",
    "\x1b[31m",
    "\u202e",
    "\x85",
    "é",
    "[red]",
    "$x^2$",
    "a" * 501,
]
NUMBERS = [
    0,
    1,
    -1,
    3,
    2**31,
    2**63,
    10**400,
    0.1,
    0.999,
    1e-320,
    1e308,
    -0.5,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
]
scalars = (
    st.sampled_from([*KINDS, *WORDS, *NUMBERS, True, False, datetime.date(2026, 1, 1)])
    | st.integers()
    | st.floats()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KINDS, *WORDS, "name"]), inner, max_size=2)
    ),
    max_leaves=4,
)
changes = st.sampled_from([(section, key) for section, keys in SECTIONS.items() for key in keys])


@drawn(200)
@given(st.lists(st.tuples(changes, values), min_size=1, max_size=3))
def test_whatever_a_file_says_it_is_a_study_or_one_line_that_names_the_field(tmp_path, edits):
    content = copy.deepcopy(tomllib.loads(GOOD))
    for (section, key), value in edits:
        table = content if section == "" else content.get(section, {})
        if section == "methods" and isinstance(table, list):
            table = table[1]
        elif section and section not in content:
            table = content[section] = {}
        if isinstance(table, dict):
            table[key] = value
    path = tmp_path / "study.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    message = refused(path)
    if message is None:
        runs = final_runs(read_study(path))
        assert 1 <= len(runs) <= MAX_RUNS
        assert all(len(run.fingerprint) == 64 and ".." not in run.path.split("/") for run in runs)
    else:
        assert message.isprintable()
        assert len(message) < 3_000
        assert re.match(r"\w[^:]*: .+", message.removeprefix(f"{path}: ")), message


@drawn(60)
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 30),
    st.binary(max_size=8),
)
def test_bytes_lost_or_put_in_give_a_study_or_one_line(tmp_path, at, lost, put_in):
    path = tmp_path / "study.toml"
    path.write_bytes(GOOD.encode()[:at] + put_in + GOOD.encode()[at + lost :])
    message = refused(path)
    assert message is None or (str(path) in message and "\n" not in message)
