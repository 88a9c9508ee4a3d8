"""Studies whose labels are drawn anew at each step, and studies with other schedules of the learning rate."""

import hashlib
import json

import h5py
import numpy as np
import pytest

from analysis import store
from analysis.plan import final_runs, read_study
from tests.analysis.tiny_study import TINY, UNMEASURED, run_tiny

REDRAWN = UNMEASURED.replace("[noise]", '[noise]\nredraw = "step"')
SCHEDULED = UNMEASURED.replace(
    "[training]", '[training]\nschedule = {name = "step", milestones = [0.5], warmup_epochs = 1}'
)


def study(tmp_path, text):
    (tmp_path / "study.toml").write_text(text)
    return read_study(tmp_path / "study.toml")


@pytest.mark.parametrize(
    "text",
    [
        TINY,
        TINY.replace("[noise]", '[noise]\nredraw = "never"'),
        TINY.replace("[training]", '[training]\nschedule = "cosine"'),
    ],
)
def test_runs_whose_labels_stay_and_whose_rate_is_a_cosine_have_the_configuration_of_earlier_versions(
    tmp_path, text
):
    config = final_runs(study(tmp_path, text))[0].config.as_plain()
    assert config["noise"] == {"kind": "symmetric", "rate": 0.4, "options": {}}
    assert "schedule" not in config["training"]
    # what is measured may change without the training being another one
    trained = json.dumps({key: value for key, value in config.items() if key != "measure"}, sort_keys=True)
    assert (
        hashlib.sha256(trained.encode()).hexdigest()
        == "2dc6f7d8e057ee5af04546447050f98bda0413849f1ff1068bc48f2914175269"
    )


def test_the_configuration_names_what_differs(tmp_path):
    assert final_runs(study(tmp_path, REDRAWN))[0].config.as_plain()["noise"]["redraw"] == "step"
    schedule = final_runs(study(tmp_path, SCHEDULED))[0].config.as_plain()["training"]["schedule"]
    assert schedule == {"name": "step", "milestones": [0.5], "warmup_epochs": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redrawn")
    for name, text in (("stay", UNMEASURED), ("redrawn", REDRAWN), ("scheduled", SCHEDULED)):
        outcome, _ = run_tiny(folder, folder / name, text)
        assert not outcome.failed
    return folder


def test_redrawn_labels_train_otherwise_and_are_another_kind_of_noise(finished):
    stay, redrawn = (store.read_table(finished / name) for name in ("stay", "redrawn"))
    assert set(stay["noise_kind"]) == {"symmetric"}
    assert set(redrawn["noise_kind"]) == {"symmetric, redrawn each step"}
    assert (stay["train_loss"] != redrawn["train_loss"]).all()


def test_the_labels_of_the_file_are_one_draw_at_exactly_the_rate(finished):
    both = []
    for name in ("stay", "redrawn"):
        with h5py.File(finished / name / "runs/digits/symmetric-0.4/sgd/seed0.h5") as file:
            both.append(file["labels/observed"][()])
            assert (file["labels/clean"][()] != both[-1]).mean() == 0.4
    np.testing.assert_array_equal(*both)


def test_a_run_follows_its_schedule_and_its_configuration_is_read_again(finished):
    path = finished / "scheduled/runs/digits/symmetric-0.4/sgd/seed0.h5"
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["history/learning_rate"][()], [0.025, 0.05, 0.005])
    config = store.read_config(path).config.as_plain()
    assert config["training"]["schedule"]["milestones"] == [0.5]
    assert json.dumps(config)


def test_a_finished_study_is_not_trained_again(finished):
    for name, text in (("stay", UNMEASURED), ("redrawn", REDRAWN), ("scheduled", SCHEDULED)):
        before = {path: path.stat().st_mtime_ns for path in (finished / name).rglob("seed*.h5")}
        run_tiny(finished, finished / name, text)
        assert {path: path.stat().st_mtime_ns for path in (finished / name).rglob("seed*.h5")} == before
