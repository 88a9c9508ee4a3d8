"""Files of labels that somebody changed: whole numbers below the number of classes, or a line that names the file."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncsam.data_bounds import MAX_CLASSES
from ncsam.label_noise import read_human_labels
from tests.drawn import drawn

LABELS = np.array([3, 0, 2, 9, 1])


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_npz(array, packed=False):
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, labels=array)
    return file.getvalue()


def as_torch(array, **options):
    file = io.BytesIO()
    torch.save({"labels": array}, file, **options)
    return file.getvalue()


FILES = {
    "npy": as_npy(LABELS),
    "npz": as_npz(LABELS),
    "packed npz": as_npz(LABELS, packed=True),
    "csv": b"labels,clean\n3,3\n0,0\n2,2\n9,9\n1,1\n",
    "txt": b"3\n0\n2\n9\n1\n",
    "pt": as_torch(LABELS),
    "pt of a tensor": as_torch(torch.from_numpy(LABELS)),
    "pt of torch before 1.6": as_torch(LABELS, _use_new_zipfile_serialization=False),
}


def refused_or_labels(path):
    """The labels of a file. What else is said of it is one line."""
    try:
        labels = read_human_labels(path, "labels" if path.suffix in (".csv", ".npz") else None)
    except ValueError as error:
        message = str(error)
        assert message.startswith(("file: ", "labels: "))
        assert path.name in message
        assert len(message) < 1000 + len(str(path)), message
        return None
    assert labels.dtype == torch.int64
    assert labels.ndim == 1
    assert len(labels) > 0
    assert 0 <= labels.min() <= labels.max() < MAX_CLASSES
    return labels


@pytest.mark.parametrize("kind", FILES)
@drawn(60)
@given(data=st.data())
def test_bytes_lost_or_changed_give_labels_or_one_line(tmp_path, kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        lost = data.draw(st.integers(0, 20))
        content[at : at + lost] = data.draw(st.binary(max_size=8))
    path = tmp_path / f"labels.{kind.removeprefix('packed ').split()[0]}"
    path.write_bytes(content)
    refused_or_labels(path)


arrays = st.builds(
    lambda kind, shape, fill: np.full(shape, 0).astype(kind) if fill is None else np.full(shape, fill),
    st.sampled_from(["i1", ">i8", "u8", "u4", "f2", "?", "c16", "S3", "U2", "M8[s]", "m8[s]", "V4", "i4,i4"]),
    st.sampled_from([(), (0,), (1,), (3,), (2, 2), (1, 1, 1)]),
    st.sampled_from([None, 0, 1, -1, 99_999, 100_000, 10**9, 2**63, 2**64 - 1, 0.5, float("nan"), "x", True]),
)


@drawn(60)
@given(array=arrays, ending=st.sampled_from(["npy", "npz", "pt"]))
def test_arrays_of_any_type_and_shape_are_labels_or_one_line(tmp_path, array, ending):
    path = tmp_path / f"labels.{ending}"
    path.write_bytes({"npy": as_npy, "npz": as_npz, "pt": as_torch}[ending](array))
    labels = refused_or_labels(path)
    assert labels is None or labels.tolist() == array.tolist()


fields = st.sampled_from(
    [
        "0",
        "1",
        " 2",
        "+1",
        "-1",
        "1_0",
        "٣",
        "1.0",
        "1e3",
        "nan",
        "",
        "x",
        '"1"',
        '"1\n"',
        "\0",
        "99999999999999999999",
        "9" * 5000,
        "0x10",
        "²",
    ]
)


@drawn(60)
@given(
    rows=st.lists(st.lists(fields, min_size=1, max_size=3), max_size=4),
    ending=st.sampled_from(["csv", "txt"]),
)
def test_tables_of_any_words_are_labels_or_one_line(tmp_path, rows, ending):
    path = tmp_path / f"labels.{ending}"
    path.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    refused_or_labels(path)
