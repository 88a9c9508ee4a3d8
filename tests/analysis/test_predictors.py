"""The network that a study measures is the one whose accuracy its history has."""

import h5py
import pytest

from analysis import store
from analysis.plan import StudyError, read_study
from analysis.run.context import RunContext
from analysis.run.run_data import load_run_data
from analysis.run.training import new_model
from ncsam import METHODS, predict
from tests.analysis.tiny_study import TINY, finished_tiny

AVERAGED = TINY.replace('name = "plain"\nlabel = "SGD"', 'name = "regce"\ndecay = 0.99').replace(
    "epochs = 3", 'epochs = 3\nprobe_epochs = [3]\nprobe_measures = ["loss"]\nprobe_samples = 200'
)


def test_an_average_of_weights_is_measured_probed_and_saved_where_it_predicts(tmp_path):
    out = finished_tiny(tmp_path, AVERAGED.replace("seeds = [0, 1]", "seeds = [0]"))
    (path,) = out.rglob("seed0.h5")
    config = store.read_config(path).config
    data = load_run_data(config, RunContext(out))
    network = new_model(config, data, "weights")
    store.load_weights(path, network)
    right = predict(network, data.held_out).argmax(1) == data.held_out.targets
    with h5py.File(path) as file:
        history = file["history"]
        assert history["test_accuracy"][-1] == pytest.approx(right.double().mean().item())
        # all training samples are probed
        assert history["probe_loss_observed"][-1] == pytest.approx(history["train_loss"][-1], rel=1e-5)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.predicts_by_several])
def test_networks_that_predict_together_have_no_landscape_to_measure(tmp_path, name):
    path = tmp_path / "study.toml"
    text = TINY.replace('name = "plain"\nlabel = "SGD"', f'name = "{name}"')
    path.write_text(text)
    with pytest.raises(StudyError, match=r"methods\.0\.name: several networks .* write measured = false"):
        read_study(path)
    path.write_text(text.replace("dataset =", "measured = false\ndataset ="))
    assert not read_study(path).measured
