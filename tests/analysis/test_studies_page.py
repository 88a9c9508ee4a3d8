"""docs/studies.md has every key that a study may have, with its default, and no other."""

import inspect
import json
import re

import pytest
from pydantic_core import PydanticUndefined

from analysis.plan import final_runs, read_study
from analysis.plan.data import study_options
from analysis.plan.study import (
    LossSettings,
    MeasureSettings,
    MethodSettings,
    MethodTraining,
    ModelSettings,
    NoiseSettings,
    ScheduleSettings,
    SelectionSettings,
    Study,
    TrainingSettings,
)
from analysis.run.measurements import MEASURES
from ncsam import (
    LOSSES,
    METHODS,
    MODELS,
    NOISE_KINDS,
    SCHEDULES,
    hyperparameters,
    loss_options,
    model_options,
    noise_options,
    schedule_options,
)
from ncsam.datasets.images import DEFAULT_SIZE

TABLES = (
    Study,
    ModelSettings,
    NoiseSettings,
    TrainingSettings,
    ScheduleSettings,
    MethodSettings,
    MethodTraining,
    LossSettings,
    SelectionSettings,
    MeasureSettings,
)
IN_WORDS = {
    "train_samples": "all",
    "test_samples": "all",
    "image_size": str(DEFAULT_SIZE),
    "label": "the name",
    "schedule": "cosine",
}
IN_WORDS |= {"model": "the study's", "training": "the study's"}
IN_WORDS |= {"selection": "its defaults", "measure": "its defaults", "loss": '`"cross-entropy"`'}


@pytest.fixture(scope="module")
def page(pytestconfig):
    return (pytestconfig.rootpath / "docs/studies.md").read_text()


def default_of(name, field):
    if field.default is PydanticUndefined:
        return "required"
    if name in IN_WORDS:
        return IN_WORDS[name]
    return "none" if field.default is None else f"`{json.dumps(field.default)}`"


def test_every_table_has_its_keys_and_their_defaults(page):
    tables = re.findall(r"^\| key \| default .*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.M)
    for settings, table in zip(TABLES, tables, strict=True):
        written = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.M))
        assert written == {name: default_of(name, field) for name, field in settings.model_fields.items()}


def test_the_table_of_measures_has_each_with_its_settings(page):
    (table,) = re.findall(r"^\| measure \| what .*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.M)
    rows = [line.split("|") for line in table.splitlines()]
    written = {row[1].strip(" `"): tuple(re.findall(r"`(\w+)`", row[3])) for row in rows}
    assert written == {name: measure.settings for name, measure in MEASURES.items()}


def in_words(options):
    """`a` (required), `b` = 0.1, `c`."""
    empty = inspect.Parameter.empty
    return ", ".join(
        f"`{name}`"
        + (" (required)" if value is empty else "" if value is None else f" = {json.dumps(value)}")
        for name, value in options.items()
    )


def noise_keys(kind):
    known = noise_options(kind)
    return {
        key: inspect.Parameter.empty if required else known[key].default if key in known else None
        for key, required in study_options(kind).items()
    }


@pytest.mark.parametrize(
    ("what", "names", "options"),
    [
        ("method", METHODS, hyperparameters),
        ("model", MODELS, model_options),
        ("loss", LOSSES, loss_options),
        ("noise", NOISE_KINDS, noise_keys),
        ("schedule", SCHEDULES, schedule_options),
    ],
)
def test_every_choice_has_its_options_and_their_defaults(page, what, names, options):
    (table,) = re.findall(rf"^\| {what} \| options \|\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.M)
    written = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", table, flags=re.M))
    assert written == {name: in_words(options(name)) or "none" for name in names}


def test_the_example_is_a_study(page, tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    (tmp_path / "first.toml").write_text(example)
    assert len(final_runs(read_study(tmp_path / "first.toml"))) == 3 * 2 * 3
