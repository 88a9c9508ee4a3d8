"""What a study file may say of losses, label baselines, augmentation and noise reaches the training."""

import itertools
import json

import h5py
import numpy as np
import pytest

import analysis.run.one_run
from analysis import store
from analysis.run.measurements import measure
from tests.analysis.small_study import STUDIES
from tests.analysis.tiny_study import finished_tiny

STUDY = (STUDIES / "settings.toml").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    # everything of one network; of the others the bound, which is looked at
    names = itertools.chain([None], itertools.repeat(["bound"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.run.one_run, "measure", lambda subject: measure(subject, next(names)))
        return finished_tiny(tmp_path_factory.mktemp("settings"), STUDY)


def test_every_kind_of_method_trains_and_differs_from_the_others(finished):
    table = store.read_table(finished)
    assert len(table) == 9
    assert not table["diverged"].any()
    assert table["train_loss"].nunique() == 9
    assert dict(zip(table["method"], table["loss"], strict=True))["forward, estimated"] == "forward"


def test_gradients_count_the_second_network_and_the_training_that_estimates(finished):
    spent = store.read_table(finished).set_index("method")["gradients"]
    assert spent["SGD"] == 2 * 3
    assert spent["forward, estimated"] == spent["co-teaching"] == 2 * spent["SGD"]
    assert spent["mixup"] == spent["forward"] == spent["SGD"]


def test_shares_to_flip_and_to_forget_are_chosen_like_radii(finished):
    chosen = store.read_table(finished).set_index("method")["hyperparameters"].map(json.loads)
    assert chosen["NCSAM"]["flip_ratio"] in (0.2, 0.4)
    assert chosen["random flips"] == {**chosen["NCSAM"], "draw": "uniform", "labels": "uniform"}
    assert chosen["co-teaching"]["forget_rate"] in (0.2, 0.3)


def test_labels_are_of_the_kind_and_the_subset_that_the_study_names(finished):
    with h5py.File(finished / "runs/digits/pair-0.3/sgd/seed0.h5") as file:
        clean, observed = file["labels/clean"][:], file["labels/observed"][:]
        transition = file["labels/transition"][:]
    wrong = clean != observed
    assert len(clean) == 300
    assert wrong.sum() == 90
    assert (observed[wrong] == (clean[wrong] + 1) % 10).all()
    np.testing.assert_allclose(transition.sum(1), 1)
    assert transition[3, 4] == pytest.approx(0.3)


def test_the_file_holds_every_setting(finished):
    stored = store.read_config(finished / "runs/digits/pair-0.3/gce/seed0.h5")
    assert stored.config.method.loss.model_dump() == {"name": "gce", "q": 0.5, "transition": None}
    assert stored.config.train_samples == 300
    assert stored.config.training.crop == 1
    assert stored.config.training.precision == "bfloat16"


def test_probes_and_the_bound_are_stored_and_reach_the_table(finished):
    table = store.read_table(finished).set_index("method")
    with h5py.File(finished / "runs/digits/pair-0.3/ncsam/seed0.h5") as file:
        assert np.isnan(file["history/probe_gradient_wrong"][:]).tolist() == [True, False]
        assert file["history/probe_top_eigenvalue_clean"][-1] > 0
        assert "labels" in file["history/probe_sharpness_observed"].attrs["description"]
    assert (table["mean_probe_perturbed_gradient_wrong"].drop(["SGD", "GCE"]).notna()).sum() >= 3
    # far more weights than samples: the bound says nothing, and says so
    assert (table["bound_zero_one_right"] > 1).all()
    assert table["assumption_cross_entropy_gap"].notna().all()
