import gzip
import os
import struct

import numpy as np
import pytest
import scipy.stats
import torch

from ncsam import Split, load_dataset
from ncsam.datasets import DATASETS, FASHION_MNIST_PACKAGE, read_idx
from ncsam.datasets.npz import npz
from ncsam.datasets.split import channel_statistics, make_dataset, standardized


def write_idx(path, array):
    content = (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.numpy().tobytes()
    )
    if path.suffix == ".gz":
        content = gzip.compress(content)
    path.write_bytes(content)


def write_fashion_mnist(folder, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for prefix, n in (("train", 30), ("t10k", 10)):
        images = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", torch.arange(n, dtype=torch.uint8) % 10)


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [("digits", 1438, 359, (1, 8, 8)), ("mnist-5k", 4000, 1000, (1, 28, 28))],
)
def test_packaged_sets_have_their_size_and_are_normalized_by_the_training_set(name, train, test, shape):
    dataset = load_dataset(name)
    assert abs(len(dataset.train) - train) <= 2
    assert abs(len(dataset.test) - test) <= 2
    assert dataset.input_shape == shape
    assert dataset.num_classes == 10
    assert dataset.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert dataset.train.inputs.std().item() == pytest.approx(1, abs=1e-5)


def test_samples_that_are_normalized_once_are_the_same_to_the_bit(monkeypatch):
    stored = load_dataset("digits").train
    once, some = stored.normalized_once(), torch.tensor([5, 0, 7])
    assert torch.equal(once.batch(some), stored.batch(some))
    assert torch.equal(once.targets, stored.targets)
    assert once.normalized_once() is once
    tokens = Split(torch.arange(6).view(3, 2), torch.arange(3))
    assert tokens.normalized_once() is tokens
    monkeypatch.setattr("ncsam.datasets.split.NORMALIZED_BYTES", 4 * stored.pixels.numel() - 1)
    # images that would take too much memory stay bytes
    assert stored.normalized_once() is stored


def test_mnist_5k_is_balanced_in_both_splits():
    dataset = load_dataset("mnist-5k")
    assert dataset.train.targets.bincount().tolist() == [400] * 10
    assert dataset.test.targets.bincount().tolist() == [100] * 10


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw", "raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_mnist_is_found_in_each_folder_layout(tmp_path, below, suffix):
    write_fashion_mnist(tmp_path / below, suffix)
    dataset = load_dataset("fashion-mnist", tmp_path)
    assert dataset.train.inputs.shape == (30, 1, 28, 28)
    assert dataset.test.targets.tolist() == list(range(10))
    pixels = read_idx(next((tmp_path / below).glob("train-images*")), 3)
    assert torch.equal(dataset.train.pixels[:, 0], pixels)
    restored = dataset.train.inputs * dataset.std + dataset.mean
    # float32 of values up to 255
    torch.testing.assert_close(restored[:, 0], pixels.float(), rtol=0, atol=1e-4)


@pytest.mark.skipif(
    not FASHION_MNIST_PACKAGE.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_is_found_in_debians_package():
    dataset = load_dataset("fashion-mnist")
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)


def test_missing_files_and_names_are_said_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"^dataset: unknown name 'cifar'; known: cifar10.*; did you mean 'cifar10'"
    ):
        load_dataset("cifar")
    with pytest.raises(FileNotFoundError, match=r"^data_dir: .* is not a folder"):
        load_dataset("fashion-mnist", tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="--data-dir"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x03",
        b"\0\0\x09\x03" + bytes(12),
        b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(7),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken"):
        read_idx(path, 3)


def test_a_cut_gzip_file_is_named(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(bytes(100))[:-12])
    with pytest.raises(ValueError, match=r"cut\.gz"):
        read_idx(path, 1)


def images(n=6, shape=(3, 4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)


MEAN, STD = torch.tensor([100.0, 120.0, 140.0]), torch.tensor([50.0, 60.0, 70.0])


def test_a_batch_is_normalized_channel_by_channel():
    split = Split(images(), torch.arange(6), MEAN, STD)
    indices = torch.tensor([4, 0, 4])
    truth = (images()[indices].double() - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    assert split.batch(indices).dtype == torch.float32
    # values reach 3 in float32
    torch.testing.assert_close(split.batch(indices).double(), truth, rtol=0, atol=1e-6)
    assert torch.equal(split.inputs[indices], split.batch(indices))


def test_augmentation_sees_the_pixels_before_they_are_normalized():
    split = Split(images(), torch.arange(6), MEAN, STD)

    def blacken(pixels):
        assert pixels.dtype == torch.uint8
        return torch.zeros_like(pixels)

    black = split.batch(torch.tensor([1]), blacken)
    torch.testing.assert_close(black, (-MEAN / STD).view(1, 3, 1, 1).expand_as(black))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floating_features_are_given_as_they_are(dtype):
    split = Split(torch.arange(6, dtype=dtype).view(3, 2), torch.tensor([0, 1, 2]))
    assert split.inputs is split.pixels
    assert torch.equal(split.batch(torch.tensor([2, 0])), split.pixels[[2, 0]])
    assert split.input_shape == (2,)


def test_a_part_of_a_split_is_normalized_as_the_whole():
    split = Split(images(), torch.arange(6), MEAN, STD)
    indices = torch.tensor([5, 2])
    part = split.take(indices).to("cpu")
    assert torch.equal(part.inputs, split.inputs[indices])
    assert part.targets.tolist() == [5, 2]
    assert len(part) == 2


def test_splits_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="^targets: 5 labels for 6 samples"):
        Split(images(), torch.arange(5))
    with pytest.raises(ValueError, match="^mean, std"):
        Split(images(), torch.arange(6), MEAN)
    with pytest.raises(ValueError, match=r"^mean: must be \(3,\)"):
        Split(images(), torch.arange(6), MEAN[:2], STD)
    with pytest.raises(ValueError, match="^pixels, targets: must have an axis of samples"):
        Split(torch.tensor(1.0), torch.tensor(1))


@pytest.mark.parametrize("given", [torch.Tensor.numpy, torch.Tensor.tolist], ids=["arrays", "lists"])
@pytest.mark.parametrize("place", range(4))
def test_a_split_of_what_is_no_tensor_is_refused(given, place):
    parts = [images(), torch.arange(6), MEAN, STD]
    parts[place] = given(parts[place])
    name = ("pixels", "targets", "mean", "std")[place]
    with pytest.raises(TypeError, match=f"^{name}: must be a tensor .*; torch.as_tensor makes one"):
        Split(*parts)


def test_the_statistics_are_those_of_the_pixels_channel_by_channel():
    pixels = images(50)
    pixels[:, 2] = 7
    mean, std = channel_statistics(pixels)
    truth = pixels.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), truth.mean(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(std[:2].double(), truth[:2].std(1), rtol=1e-7, atol=0)
    # a channel without variance is centerd, not divided by 0
    assert std[2] == 1


def test_a_training_subset_is_drawn_from_its_seed_without_regard_to_classes():
    whole = load_dataset("digits")
    part, again, other = (load_dataset("digits", train_samples=100, seed=s) for s in (1, 1, 2))
    assert len(part.train) == 100
    assert torch.equal(part.train_indices, again.train_indices)
    assert not torch.equal(part.train_indices, other.train_indices)
    assert torch.equal(part.train_indices, part.train_indices.unique())
    assert torch.equal(part.train.inputs, whole.train.inputs[part.train_indices])
    assert torch.equal(part.train.targets, whole.train.targets[part.train_indices])
    assert torch.equal(part.test.inputs, whole.test.inputs)
    assert whole.train_indices.tolist() == list(range(len(whole.train)))


def test_a_training_subset_takes_every_sample_equally_often():
    draws = [load_dataset("digits", train_samples=400, seed=seed).train_indices for seed in range(200)]
    counts = torch.cat(draws).bincount(minlength=len(load_dataset("digits").train))
    # without replacement the counts vary less than a multinomial's: compared with their own variance
    p = 400 / len(counts)
    statistic = ((counts - 200 * p) ** 2).sum().item() / (200 * p * (1 - p))
    assert 1e-3 < scipy.stats.chi2.sf(statistic, len(counts) - 1) < 1 - 1e-3


@pytest.mark.parametrize("count", [0, -1, 1_000_000])
def test_more_or_fewer_samples_than_there_are_cannot_be_kept(count):
    with pytest.raises(ValueError, match=f"^train_samples: .* got {count}"):
        load_dataset("digits", train_samples=count)


@pytest.mark.parametrize("shape", [(50, 3), (50, 3, 4, 5), (50, 3, 7)])
def test_floating_samples_are_standardized_by_column_or_channel_of_the_training_set(shape):
    generator = np.random.default_rng(0)
    scale = np.array([1e-3, 1.0, 1e6]).reshape(3, *[1] * (len(shape) - 2))
    x = scale * (5 + generator.normal(size=shape))
    x[:, 1] = 7.0
    labels = torch.zeros(50, dtype=torch.int64)
    data = make_dataset("own", (torch.from_numpy(x), labels), (torch.from_numpy(x[:9] + scale), labels[:9]))
    found = standardized(data)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean, deviation = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
    deviation[:, 1] = 1
    for inputs, own in ((found.train.inputs, x), (found.test.inputs, x[:9] + scale)):
        assert inputs.dtype == torch.float32
        np.testing.assert_allclose(inputs, (own - mean) / deviation, rtol=1e-3, atol=1e-4)
    # what is normalized already stays
    assert standardized(found) is found


def test_the_classes_of_an_own_data_set_are_those_of_all_its_labels_and_none_is_missing():
    pixels, labels = torch.zeros(3, 2), torch.tensor([0, 1, 0])
    assert make_dataset("own", (pixels, labels), (pixels, torch.tensor([0, 1, 2]))).num_classes == 3
    with pytest.raises(
        ValueError, match=r"dataset 'own': 'test' has the label 9 at sample 2.*num_classes=10"
    ):
        make_dataset("own", (pixels, labels), (pixels, torch.tensor([0, 1, 9])))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, and 'test' has 9"):
        make_dataset("own", (pixels, labels), (pixels, torch.tensor([0, 1, 9])), num_classes=2)


def tensors_of(dataset):
    parts = [dataset.train_indices]
    for split in (dataset.train, dataset.test):
        parts += [split.pixels, split.targets, split.mean, split.std]
    return parts


@pytest.mark.parametrize("options", [{}, {"train_samples": 50}, {"train_samples": 50, "test_samples": 20}])
def test_what_a_caller_writes_to_a_data_set_does_not_reach_the_next_one(options):
    true = [tensor.clone() for tensor in tensors_of(load_dataset("digits", **options))]
    for tensor in tensors_of(load_dataset("digits", **options)):
        tensor.zero_()
    again = tensors_of(load_dataset("digits", **options))
    assert all(torch.equal(a, b) for a, b in zip(true, again, strict=True))
    assert (true[2] != 0).any()


def write_features(path, value, size=6):
    labels = np.arange(size) % 2
    features = np.full((size, 4), value, dtype=np.float32)
    np.savez(path, x_train=features, y_train=labels, x_test=features, y_test=labels, observed=labels)


@pytest.mark.parametrize("inside", ["set.npz", ""])
def test_a_file_that_was_written_anew_is_read_anew(tmp_path, inside):
    file = tmp_path / (inside or "data.npz")
    for value in (1.0, 2.0, 3.0):
        write_features(file, value)
        os.utime(file, ns=(0, int(value)))
        assert load_dataset("npz", tmp_path / inside).train.inputs[0, 0] == value
    load_dataset("npz", tmp_path / inside).observed.zero_()
    assert load_dataset("npz", tmp_path / inside).observed.tolist() == [0, 1] * 3


def test_a_file_that_stays_is_read_once_unless_it_is_too_large_to_keep(tmp_path, monkeypatch):
    write_features(tmp_path / "set.npz", 1.0)
    reads = []

    def counted(path):
        reads.append(path)
        return npz(path)

    monkeypatch.setitem(DATASETS, "npz", counted)
    for _ in range(3):
        load_dataset("npz", tmp_path / "set.npz")
    assert len(reads) == 1
    write_features(tmp_path / "set.npz", 1.0, size=8)
    monkeypatch.setattr("ncsam.datasets.kept.MOST_BYTES", 1)
    for _ in range(3):
        assert len(load_dataset("npz", tmp_path / "set.npz").train) == 8
    assert len(reads) == 4
