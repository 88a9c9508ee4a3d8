import numpy as np
import pytest
import torch

from ncsam import load_dataset


def arrays(**changed):
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, size=(5, 8, 6, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1], dtype=np.uint8),
        "x_test": generator.integers(0, 256, size=(2, 8, 6, 3), dtype=np.uint8),
        "y_test": np.array([2, 1]),
        **changed,
    }


def write(path, **changed):
    np.savez(path, **{name: value for name, value in arrays(**changed).items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("shape", "read"), [((5, 8, 6, 3), (3, 8, 6)), ((5, 3, 8, 6), (3, 8, 6)), ((5, 3, 8, 3), (3, 8, 3))]
)
def test_floating_images_with_the_channels_last_get_them_first(tmp_path, shape, read):
    images = np.random.default_rng(0).random(shape)
    dataset = load_dataset("npz", write(tmp_path / "set.npz", x_train=images, x_test=images[:2]))
    assert dataset.input_shape == read
    truth = images.transpose(0, 3, 1, 2) if read[0] != shape[1] else images
    assert torch.equal(dataset.train.inputs, torch.from_numpy(truth))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_images_are_read_in_each_layout(tmp_path, layout):
    change = {
        "NHWC": lambda x: x,
        "NCHW": lambda x: x.transpose(0, 3, 1, 2),
        "NHW": lambda x: x[..., 0],
    }[layout]
    contents = arrays()
    contents = {k: change(v) if k.startswith("x") else v for k, v in contents.items()}
    dataset = load_dataset("npz", write(tmp_path / "set.npz", **contents))
    channels = 1 if layout == "NHW" else 3
    assert dataset.input_shape == (channels, 8, 6)
    truth = torch.from_numpy(arrays()["x_train"]).permute(0, 3, 1, 2)[:, :channels]
    assert torch.equal(dataset.train.pixels, truth)
    assert dataset.train.targets.tolist() == [0, 1, 2, 0, 1]
    assert dataset.num_classes == 3


def test_a_folder_holds_the_file_data_npz(tmp_path):
    write(tmp_path / "data.npz")
    assert len(load_dataset("npz", tmp_path).test) == 2


@pytest.mark.parametrize(
    ("dtype", "kept"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_floating_features_are_taken_as_they_are(tmp_path, dtype, kept):
    features = np.arange(35).reshape(5, 7).astype(dtype)
    dataset = load_dataset("npz", write(tmp_path / "set.npz", x_train=features, x_test=features[:2]))
    assert str(dataset.train.inputs.dtype) == f"torch.{kept}"
    assert dataset.train.inputs.tolist() == features.tolist()
    assert dataset.mean is None


def test_observed_labels_come_beside_the_true_ones_and_follow_a_subset(tmp_path):
    observed = np.array([3, 1, 2, 0, 1])
    path = write(tmp_path / "set.npz", observed=observed)
    dataset = load_dataset("npz", path)
    assert dataset.observed.tolist() == observed.tolist()
    # a class that only annotators used is a class
    assert dataset.num_classes == 4
    part = load_dataset("npz", path, train_samples=3)
    assert part.observed.tolist() == observed[part.train_indices].tolist()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"y_test": None}, "'y_test'"),
        ({"y_train": np.array([0, 1])}, "'y_train' has 2 labels for 5 samples"),
        ({"observed": np.array([0, 1])}, "'observed' has 2 labels for 5 samples"),
        ({"y_train": np.zeros(5)}, "'y_train' must be whole numbers"),
        ({"y_train": np.array([0, 1, 2, 0, -1])}, "'y_train' must be whole numbers"),
        ({"y_test": np.zeros(0, dtype=int)}, "'y_test' must be whole numbers"),
        ({"x_train": np.zeros((5, 8, 6, 5), dtype=np.uint8)}, "'x_train' must be bytes"),
        ({"x_train": np.zeros((5, 8, 6, 3), dtype=np.int64)}, "'x_train' must be bytes"),
        ({"x_test": np.zeros((2, 8, 7, 3), dtype=np.uint8)}, "they must be alike"),
        ({"x_train": np.array([None] * 5)}, "not a .npz file of numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_its_field(tmp_path, changed, field):
    with pytest.raises(ValueError, match=rf"set\.npz: .*{field}"):
        load_dataset("npz", write(tmp_path / "set.npz", **changed))


def test_a_broken_or_missing_file_is_named(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"set\.npz: is not a \.npz file"):
        load_dataset("npz", tmp_path / "set.npz")
    with pytest.raises(FileNotFoundError, match=r"^data_dir: .*data\.npz is missing"):
        load_dataset("npz", tmp_path)
    with pytest.raises(FileNotFoundError, match="--data-dir"):
        load_dataset("npz")


@pytest.mark.parametrize("part", ["y_train", "y_test", "observed"])
def test_a_label_far_outside_is_refused_with_its_sample_and_the_missing_classes(tmp_path, part):
    labels = arrays(observed=np.array([0, 1, 2, 0, 1]))[part].copy()
    labels[1] = 255
    path = write(tmp_path / "set.npz", **{part: labels})
    says = rf"set\.npz: '{part}' has the label 255 at sample 1, and no label is of class 3, 4, 5, \.\.\."
    with pytest.raises(
        ValueError, match=says + r".*add an array num_classes = 256 to the file.*leave these out"
    ):
        load_dataset("npz", path)


def test_a_class_without_a_label_is_one_if_the_file_says_the_number_of_classes(tmp_path):
    assert load_dataset("npz", write(tmp_path / "set.npz", num_classes=np.array(5))).num_classes == 5


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (np.array(2), r"labels must lie in 0\.\.1, and 'y_train' has 2 at sample 2"),
        (np.array([3, 3]), "'num_classes' must be one whole number"),
        (np.array(3.0), "'num_classes' must be one whole number"),
        (np.array(0), "'num_classes' must be one whole number"),
    ],
)
def test_a_number_of_classes_that_cannot_be_is_refused(tmp_path, number, says):
    with pytest.raises(ValueError, match=says):
        load_dataset("npz", write(tmp_path / "set.npz", num_classes=number))
