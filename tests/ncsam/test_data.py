import gzip
import struct

import pytest
import scipy.stats
import torch

from ncsam import build_model, corrupt_labels, load_dataset
from ncsam.datasets import FASHION_MNIST_PACKAGE, read_idx


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
def test_packaged_sets_have_their_size_and_are_normalised_by_the_training_set(name, train, test, shape):
    dataset = load_dataset(name)
    assert abs(len(dataset.train) - train) <= 2
    assert abs(len(dataset.test) - test) <= 2
    assert dataset.input_shape == shape
    assert dataset.num_classes == 10
    assert dataset.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert dataset.train.inputs.std().item() == pytest.approx(1, abs=1e-5)


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
    restored = dataset.train.inputs * dataset.std + dataset.mean
    torch.testing.assert_close(restored[:, 0], pixels.float() / 255, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    not FASHION_MNIST_PACKAGE.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_is_found_in_debians_package():
    dataset = load_dataset("fashion-mnist")
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)


def test_missing_files_and_names_are_said_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^dataset: unknown name 'cifar'; known: digits"):
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


targets = torch.arange(1000) % 10


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.333, 0.6, 0.999])
def test_the_realised_rate_is_the_asked_one(rate):
    labels = corrupt_labels(targets, rate=rate, seed=1)
    assert int(labels.is_wrong.sum()) == round(1000 * rate)
    assert labels.realised_rate == pytest.approx(rate, abs=0.5 / 1000)
    assert torch.equal(labels.clean, targets)
    torch.testing.assert_close(labels.transition.sum(1), torch.ones(10, dtype=torch.float64))


def test_wrong_labels_are_uniform_over_the_other_classes():
    many = torch.full((20_000,), 3)
    labels = corrupt_labels(many, rate=0.9, seed=0, num_classes=10)
    counts = labels.observed[labels.is_wrong].bincount(minlength=10).tolist()
    assert counts.pop(3) == 0
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_seeds_decide_the_draw():
    first, again, other = (corrupt_labels(targets, rate=0.4, seed=s).observed for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": -0.1}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"kind": "asymetric"}, "kind"),
        ({"num_classes": 5}, "targets"),
        ({"targets": torch.zeros(3)}, "targets"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "num_classes"),
    ],
)
def test_bad_arguments_are_named(change, field):
    arguments = {"targets": targets, "rate": 0.2, "seed": 0, **change}
    with pytest.raises(ValueError, match=f"^{field}"):
        corrupt_labels(arguments.pop("targets"), **arguments)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        # (784 + 1) 64 + (64 + 1) 64 + (64 + 1) 10
        ("mlp", {"hidden": [64, 64]}, 55_050),
        # 9 (1 * 16 + 16 * 32 + 32 * 64) + 2 (16 + 32 + 64) + (64 + 1) 10
        ("cnn", {}, 24_058),
    ],
)
def test_models_have_the_counted_parameters_and_draw_them_from_the_seed(name, options, parameters):
    before = torch.get_rng_state()
    model, again, other = (build_model(name, (1, 28, 28), 10, seed=s, **options) for s in (1, 1, 2))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    pairs = list(zip(model.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "options"), [("vit", {}), ("mlp", {"widths": [3]})])
def test_unknown_models_and_options_are_named(name, options):
    with pytest.raises(ValueError, match="^model"):
        build_model(name, (1, 8, 8), 10, seed=0, **options)
