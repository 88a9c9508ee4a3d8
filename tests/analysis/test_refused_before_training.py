"""What would fail, or be nothing, after a training is refused before any run."""

import math
from dataclasses import replace

import pytest

from analysis.plan import StudyError, read_study
from analysis.plan.against_data import check_against_data
from ncsam import load_dataset
from tests.analysis.tiny_study import TINY

PARAMETERS = 64 * 4 + 4 + 4 * 10 + 10
"""Of the tiny study's network."""


def digits():
    return load_dataset("digits", train_samples=200, test_samples=100)


def checked(folder, text, data=None):
    path = folder / "study.toml"
    path.write_text(text)
    study = read_study(path)
    check_against_data(study, data or digits(), None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_that_are_not_finite_by_the_number_of_the_sample_in_its_file(tmp_path, value):
    data = digits()
    for part in ("train", "test"):
        pixels = getattr(data, part).pixels.float()
        pixels[(3, *(0 for _ in data.input_shape))] = value
        holed = replace(data, **{part: replace(getattr(data, part), pixels=pixels)})
        number = data.train_indices[3] if part == "train" else 3
        with pytest.raises(
            StudyError, match=rf"^dataset: x_{part}: sample {number} holds {value} \(1 values"
        ):
            checked(tmp_path, TINY, holed)


@pytest.mark.parametrize("count", [PARAMETERS, PARAMETERS + 1])
def test_as_many_eigenvalues_as_parameters(tmp_path, count):
    checked(tmp_path, TINY.replace("eigenvalues = 1", f"eigenvalues = {PARAMETERS - 1}"))
    with pytest.raises(
        StudyError, match=rf"^measure.eigenvalues: {count} of a model with {PARAMETERS} parameters"
    ):
        checked(tmp_path, TINY.replace("eigenvalues = 1", f"eigenvalues = {count}"))


def test_recalibrating_a_model_without_batch_norm(tmp_path):
    surfaces = TINY + 'surface_rates = [0.4]\nsurface_seeds = [0]\nsurface_batch_norm = "recalibrate"\n'
    with pytest.raises(StudyError, match=r"^measure.surface_batch_norm: 'recalibrate' needs BatchNorm"):
        checked(tmp_path, surfaces)
    checked(tmp_path, surfaces.replace('"recalibrate"', '"eval"'))


@pytest.mark.parametrize("value", ["1e300", "1e39", "-1e200", "1e-300"])
def test_numbers_that_float32_cannot_hold(tmp_path, value):
    with pytest.raises(StudyError, match=r"training\.learning_rate: must be a number of float32"):
        checked(tmp_path, TINY.replace("epochs = 3", f"epochs = 3\nlearning_rate = {value}"))


def test_a_model_that_no_memory_holds_is_forecast_and_not_made(tmp_path):
    with pytest.raises(
        StudyError, match=r"^model: 'mlp' has 8,[0-9,]* parameters; .* needs about [0-9,]+ GiB"
    ):
        checked(tmp_path, TINY.replace("hidden = [4]", "hidden = [65536, 65536, 65536]"))


def test_a_model_that_a_container_may_not_hold_is_refused(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000")
    monkeypatch.setattr("landscape.data.memory.LIMITS", (str(tmp_path / "memory.max"),))
    with pytest.raises(StudyError, match=r"^model: 'mlp' has 52,[0-9]* parameters; .* needs about"):
        checked(tmp_path, TINY.replace("hidden = [4]", "hidden = [700]"))
    (tmp_path / "memory.max").write_text("max")
    checked(tmp_path, TINY.replace("hidden = [4]", "hidden = [700]"))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ('"resnet"\ndepth = 65534', "model.depth: makes 65,534 layers; at most 2,000 are allowed"),
        (f'"mlp"\nhidden = {[4] * 2001}', "model.hidden: makes 2,001 layers"),
        (f'"cnn"\nchannels = {[4] * 65_536}', "model.channels: makes 65,536 layers"),
        ('"wrn"\nwidening = 65536', "needs about"),
        ('"vgg19-bn"\nwidth = 65536', "needs about"),
        ('"cnn"\nchannels = [65536, 65536]', "needs about"),
    ],
    ids=["depth", "hidden", "channels", "widening", "width", "wide channels"],
)
def test_absurd_widths_and_depths_are_refused_before_they_are_made(tmp_path, model, says):
    with pytest.raises(StudyError, match=says):
        checked(tmp_path, TINY.replace('"mlp"\nhidden = [4]', model))


def test_the_deepest_published_network_is_no_slip(tmp_path):
    checked(tmp_path, TINY.replace('"mlp"\nhidden = [4]', '"resnet"\ndepth = 110'))
    (tmp_path / "deepest.toml").write_text(TINY.replace('"mlp"\nhidden = [4]', '"resnet"\ndepth = 1202'))
    assert read_study(tmp_path / "deepest.toml").model.options == {"depth": 1202}
