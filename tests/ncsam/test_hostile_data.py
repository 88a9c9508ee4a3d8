"""Data files that claim more than they hold, or would be handed to another program."""

import gzip
import importlib
import struct
import tracemalloc

import numpy as np
import pytest

from ncsam.datasets.idx import read_idx
from ncsam.datasets.images import images
from ncsam.datasets.npz import npz as read_npz
from ncsam.label_noise import human, read_human_labels


@pytest.mark.parametrize("label", [2**63, 2**64 - 1, 10**9, 100_000])
@pytest.mark.parametrize("ending", ["npz", "npy", "csv"])
def test_labels_that_are_no_class_are_refused_and_do_not_wrap(tmp_path, label, ending):
    path = tmp_path / f"labels.{ending}"
    labels = np.array([0, 1, label], dtype=np.uint64)
    if ending == "npz":
        np.savez(path, labels=labels)
    elif ending == "npy":
        np.save(path, labels)
    else:
        path.write_text("\n".join(map(str, labels)))
    with pytest.raises(ValueError, match=r"^file: .*(holds the label|must hold columns of whole numbers)"):
        read_human_labels(path)


def test_a_label_of_a_billion_makes_no_billion_classes(tmp_path):
    arrays = {f"x_{part}": np.zeros((3, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "data.npz", **arrays, y_train=np.array([0, 1, 10**9]), y_test=np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"'y_train' holds the label 1000000000"):
        read_npz(tmp_path)


@pytest.mark.parametrize("claimed", [(10, 28, 28), (2**31, 2**10, 2**10)])
def test_a_packed_idx_file_is_unpacked_no_further_than_its_shape(tmp_path, claimed, monkeypatch):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", *claimed))
        for _ in range(64):
            file.write(bytes(1 << 20))
    read = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: read.append(size) or real(self, size))
    with pytest.raises(
        ValueError, match=r"bomb\.gz: (more bytes of data where|its shape .* needs 2097152 GiB)"
    ):
        read_idx(path, 3)
    assert max(read) <= 7841
    assert min(read) >= 0


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_short_idx_file_gets_no_more_memory_than_it_can_fill(tmp_path, ending):
    path = tmp_path / f"labels{ending}"
    content = bytes([0, 0, 8, 1]) + struct.pack(">I", 2**32 - 1) + bytes(10)
    path.write_bytes(gzip.compress(content) if ending else content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"labels.*: 10 bytes of data where shape \(4294967295,\) needs"):
            read_idx(path, 1)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_packed_npz_file_is_refused_by_what_it_claims(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, labels=np.zeros(1_000_000, dtype=np.int64))
    monkeypatch.setattr(human, "MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=r"unpacks to 0 GiB, more than"):
        read_human_labels(path)
    monkeypatch.setattr(importlib.import_module("ncsam.datasets.npz"), "MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match=r"unpacks to 0 GiB, more than"):
        read_npz(path)


def test_images_that_another_program_would_draw_are_refused(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "image.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text("path,label\nimage.png,0\n")
    with pytest.raises(ValueError, match=r"image\.png: is not an image that Pillow reads \(cannot identify"):
        images(tmp_path)
