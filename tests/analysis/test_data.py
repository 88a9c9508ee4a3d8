"""Labels that a study's noise table asks for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.plan.data import load_data, observed_labels, study_options
from analysis.plan.run_config import RunConfig, RunNoise
from ncsam import NOISE_KINDS, load_dataset


@pytest.fixture(scope="module")
def whole():
    return load_dataset("digits")


@pytest.fixture
def people(whole, tmp_path):
    """A file of labels of the whole training set, a quarter of them wrong."""
    clean = whole.train.targets.numpy()
    rough = np.where(np.arange(len(clean)) % 4 == 0, (clean + 3) % 10, clean)
    np.savez(tmp_path / "people.npz", rough=rough, good=clean)
    return tmp_path


def labels(dataset, kind, rate, data_dir=None, **options):
    noise = RunNoise(kind=kind, rate=rate, options=options)
    config = RunConfig.model_construct(dataset="digits", seed=0, noise=noise)
    return observed_labels(config, dataset, data_dir)


def test_human_labels_are_those_of_the_training_samples_that_are_used(whole, people):
    part = load_dataset("digits", train_samples=400, seed=1)
    found = labels(part, "human", 0.25, people, file="people.npz", labels="rough")
    clean = whole.train.targets[part.train_indices]
    assert torch.equal(found.clean, clean)
    expected = torch.where(part.train_indices % 4 == 0, (clean + 3) % 10, clean)
    assert torch.equal(found.observed, expected)


def test_human_labels_without_a_file_are_those_that_the_data_set_has(whole):
    observed = (whole.train.targets + (torch.arange(len(whole.train)) % 4 == 0)) % 10
    found = labels(replace(whole, observed=observed), "human", 0.25)
    assert torch.equal(found.observed, observed)
    with pytest.raises(ValueError, match="^noise.file: 'digits' has no annotators' labels"):
        labels(whole, "human", 0.25)


def test_human_labels_of_another_rate_than_the_study_says_are_refused(whole, people):
    with pytest.raises(ValueError, match=r"^noise\.rates: 25\.0% of these human labels are wrong"):
        labels(whole, "human", 0.4, people, file="people.npz", labels="rough")


def test_a_rate_of_zero_is_the_true_labels_whatever_the_kind(whole, people):
    for kind in ("human", "symmetric", "matrix"):
        assert not labels(whole, kind, 0.0, people).is_wrong.any()


def test_a_file_too_short_for_the_training_set_is_named(whole, tmp_path):
    np.save(tmp_path / "few.npy", np.zeros(10, dtype=np.int64))
    with pytest.raises(ValueError, match=r"^noise\.file: holds 10 rows"):
        labels(whole, "human", 0.9, tmp_path, file="few.npy")


def test_similar_classes_are_those_of_the_data_set(whole):
    as_cifar = replace(whole, name="cifar10")
    named = labels(as_cifar, "asymmetric", 0.4, classes_of="cifar10")
    assert torch.equal(labels(as_cifar, "asymmetric", 0.4).observed, named.observed)
    with pytest.raises(ValueError, match="^classes_of: .*'mnist'"):
        labels(whole, "asymmetric", 0.4)
    assert not torch.equal(labels(whole, "asymmetric", 0.4, classes_of="mnist").observed, named.observed)


def test_posteriors_come_from_a_file_and_inputs_from_the_data_set(whole, tmp_path):
    posterior = torch.rand(len(whole.train), 10, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "posterior.npy", (posterior / posterior.sum(1, keepdim=True)).numpy())
    for kind, options in (("pmd", {"posterior": "posterior.npy"}), ("part-dependent", {})):
        found = labels(whole, kind, 0.3, tmp_path, **options)
        assert found.realised_rate == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_no_option_of_a_study_is_a_tensor_of_samples(kind):
    assert not {"inputs", "observed"} & set(study_options(kind))


def test_features_in_float64_are_those_of_a_study_in_float32(tmp_path):
    """NumPy's own floats are float64, and networks train in float32."""
    draws = np.random.default_rng(0)
    arrays = {f"x_{part}": draws.normal(size=(12, 6)) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(12) % 3 for part in ("train", "test")}
    np.savez(tmp_path / "data.npz", **arrays, **labels)
    config = RunConfig.model_construct(
        dataset="npz", seed=0, train_samples=None, test_samples=None, image_size=None
    )
    dataset = load_data(config, tmp_path)
    assert dataset.train.pixels.dtype == dataset.test.pixels.dtype == torch.float32
    np.testing.assert_allclose(dataset.train.pixels, arrays["x_train"], rtol=1e-6)
