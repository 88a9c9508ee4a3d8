import hashlib
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from ncsam import load_dataset
from ncsam.datasets.cifar import CIFAR10, CIFAR100, cifar10, cifar100, read_pixels_and_labels
from tests.ncsam.hostile_pickles import pointers_of_bytes

LAYOUTS = {"cifar10": (CIFAR10, cifar10), "cifar100": (CIFAR100, cifar100)}


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's `str` and NumPy under its old name, as the published files do."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, text):
        content = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[str] = dispatch[bytes] = save_string


def dumps(content, how):
    if how == "python 2":
        file = io.BytesIO()
        Python2Pickler(file, protocol=2).dump(content)
        return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    if how == "bytes keys":
        content = {key.encode(): value for key, value in content.items()}
    return pickle.dumps(content, protocol=4)


def batch(archive, n, seed):
    generator = np.random.default_rng(seed)
    return {
        "data": generator.integers(0, 256, size=(n, 3072), dtype=np.uint8),
        archive.labels: generator.integers(0, archive.num_classes, size=n).tolist(),
        "batch_label": "some batch",
        "filenames": ["a.png"] * n,
    }


def write(folder, archive, how="python 2"):
    """Small files of both splits; returns their contents."""
    folder = folder / archive.folder
    folder.mkdir(parents=True)
    contents = {}
    for seed, name in enumerate([*archive.train, *archive.test]):
        contents[name] = batch(archive, 4, seed)
        (folder / name).write_bytes(dumps(contents[name], how))
    return contents


@pytest.mark.parametrize("how", ["python 2", "python 3", "bytes keys"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_both_sets_are_read_from_torchvisions_folders(tmp_path, name, inside, how):
    archive, load = LAYOUTS[name]
    contents = write(tmp_path, archive, how)
    dataset = load(tmp_path / archive.folder if inside else tmp_path, verify=False)
    assert dataset.num_classes == archive.num_classes
    for split, names in ((dataset.train, archive.train), (dataset.test, archive.test)):
        pixels = np.concatenate([contents[n]["data"] for n in names]).reshape(-1, 3, 32, 32)
        assert torch.equal(split.pixels, torch.from_numpy(pixels))
        assert split.targets.tolist() == [t for n in names for t in contents[n][archive.labels]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_that_is_not_the_published_one_is_named_with_both_checksums(tmp_path, name):
    archive, _ = LAYOUTS[name]
    write(tmp_path, archive)
    first, published = next(iter(archive.train.items()))
    found = hashlib.md5((tmp_path / archive.folder / first).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"{first}: .*{found}.*{published}"):
        load_dataset(name, tmp_path)


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data-dir\), the folder that holds cifar-10-batches-py"):
        load_dataset("cifar10")
    write(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.folder / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"^data_dir: .*test_batch is missing"):
        cifar10(tmp_path, verify=False)


@pytest.mark.parametrize(
    "change",
    [
        {"data": np.zeros((4, 3071), dtype=np.uint8)},
        {"data": np.zeros((4, 3072), dtype=np.int64)},
        {"data": np.zeros((3, 3072), dtype=np.uint8)},
        {"data": [1, 2, 3, 4]},
        {"labels": [0, 1, 2]},
        {"labels": [0, 1, 2, 10]},
        {"labels": [0, 1, 2, -1]},
        {"labels": [0, 1, 2, "3"]},
        {"labels": [0, 1, 2, True]},
        {"labels": None},
    ],
)
def test_contents_that_are_not_images_and_labels_are_named(tmp_path, change):
    write(tmp_path, CIFAR10)
    path = tmp_path / CIFAR10.folder / "data_batch_3"
    path.write_bytes(dumps({**batch(CIFAR10, 4, 0), **change}, "python 3"))
    with pytest.raises(ValueError, match=r"data_batch_3: .*(must hold 'data'|must be whole numbers)"):
        cifar10(tmp_path, verify=False)


class Reduced:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(value):
    """A string as an opcode."""
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def call(module, name, argument):
    """`module.name(argument)` by STACK_GLOBAL, which takes its names from the stack."""
    called = text(module) + text(name) + pickle.STACK_GLOBAL + text(argument) + pickle.TUPLE1 + pickle.REDUCE
    return pickle.PROTO + b"\x04" + called + pickle.STOP


HOSTILE = {
    "os.system": lambda victim: pickle.dumps(Reduced(os.system, f"touch {victim}")),
    "builtins.eval": lambda victim: pickle.dumps(Reduced(eval, f"open({victim!r}, 'w')")),
    "builtins.exec, protocol 0": lambda victim: pickle.dumps(Reduced(exec, f"open({victim!r}, 'w')"), 0),
    "within the dictionary": lambda victim: pickle.dumps({"data": Reduced(os.system, f"touch {victim}")}),
    "chain of getattr": lambda victim: pickle.dumps(
        Reduced(getattr, Reduced(__import__, "os"), f"touch {victim}")
    ),
    "STACK_GLOBAL": lambda victim: call("os", "system", f"touch {victim}"),
    "dotted name": lambda victim: call("numpy", "ndarray.__class__.__base__", f"touch {victim}"),
    "dotted name of an allowed module": lambda victim: call("numpy", "os.system", f"touch {victim}"),
    "name from NumPy": lambda victim: call("numpy", "fromfile", victim),
    "runstring": lambda victim: call("numpy.testing", "runstring", f"open({victim!r}, 'w')"),
    "INST": lambda victim: b"(S'touch " + victim.encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda victim: pickle.MARK + b"cos\nsystem\n" + text(f"touch {victim}") + pickle.OBJ + pickle.STOP,
    "codec": lambda victim: call("_codecs", "encode", victim),
    "persistent id": lambda victim: b"P" + victim.encode() + b"\n.",
    "pointers made of bytes": lambda _: b"\x80\x02}" + text("data") + pointers_of_bytes() + b"s.",
    "attribute of an allowed class": lambda _: (
        b"\x80\x02cnumpy\nndarray\n}" + text("__setstate__") + b"cnumpy\ndtype\nsb."
    ),
    "array larger than memory": lambda _: (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"\x8a\x07\x00\x00\x00\x00\x00\x00\x10\x85" + text("b") + b"\x87R."
    ),
    "extension": lambda _: b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path, trick):
    victim = tmp_path / "executed"
    with pytest.raises(ValueError, match="hostile: is refused"):
        read_pixels_and_labels(HOSTILE[trick](str(victim)), tmp_path / "hostile", "labels")
    assert not victim.exists()


@pytest.mark.parametrize("trick", ["os.system", "builtins.eval", "STACK_GLOBAL", "INST", "OBJ"])
def test_the_hostile_pickles_are_dangerous_to_an_unpickler_that_trusts_them(tmp_path, trick):
    victim = tmp_path / "executed"
    pickle.loads(HOSTILE[trick](str(victim)))
    assert victim.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"no pickle", pickle.dumps([1, 2])])
def test_a_broken_pickle_is_named(tmp_path, content):
    with pytest.raises(ValueError, match=r"broken: is refused: it (is broken|must hold a dictionary)"):
        read_pixels_and_labels(content, tmp_path / "broken", "labels")
