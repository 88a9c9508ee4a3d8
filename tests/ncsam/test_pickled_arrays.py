"""Arrays are read out of pickles, and nothing that a pickle says reaches NumPy's or torch's own rebuilding."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ncsam import pickled_arrays
from ncsam.label_noise import read_human_labels
from ncsam.pickled_arrays import PickleError, as_array, read_pickle
from ncsam.torch_file import read_torch_file
from tests.ncsam.hostile_pickles import (
    as_torch_file,
    dtype_of_objects_in_a_subarray,
    name,
    number,
    pointers_of_bytes,
    sequence,
    text,
)

ARRAYS = {
    "a line": np.arange(6),
    "rows": np.arange(6.0).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "every second, of the other byte order": np.arange(6, dtype=">i4")[::2],
    "empty": np.zeros((0, 3), dtype=np.float32),
    "a single number": np.array(5),
    "booleans": np.array([True, False]),
    "halves": np.arange(3, dtype=np.float16),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_read_as_they_were_pickled(kind, protocol):
    content = pickle.dumps({"array": ARRAYS[kind]}, protocol)
    array = as_array(read_pickle(io.BytesIO(content))["array"])
    assert array.dtype == ARRAYS[kind].dtype.newbyteorder("=")
    np.testing.assert_array_equal(array, ARRAYS[kind])


TENSORS = {
    "a line": torch.arange(6),
    "a part": torch.arange(6)[2:4],
    "every second": torch.arange(10, dtype=torch.int32)[::2],
    "a column": torch.arange(10).reshape(2, 5)[:, 1],
    "columns first": torch.arange(6.0).reshape(2, 3).T,
    "repeated": torch.arange(1)[:, None].expand(1, 1),
    "a type without a storage of its own": torch.arange(3).to(torch.uint16),
    "empty": torch.zeros(0, dtype=torch.int64),
    "a single number": torch.tensor(3),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_are_read_as_they_were_saved(kind):
    file = io.BytesIO()
    torch.save({"tensor": TENSORS[kind]}, file)
    array = read_torch_file(file)["tensor"]()
    np.testing.assert_array_equal(array, TENSORS[kind].numpy())
    assert array.dtype == TENSORS[kind].numpy().dtype


def test_files_of_torch_before_1_6_are_read_if_they_hold_numpy_arrays():
    file = io.BytesIO()
    torch.save({"labels": np.arange(3)}, file, _use_new_zipfile_serialization=False)
    assert read_torch_file(file)["labels"]().tolist() == [0, 1, 2]
    file = io.BytesIO()
    torch.save({"labels": torch.arange(3)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(PickleError, match=r"torch before 1.6 .* torch.save them again"):
        read_torch_file(file)["labels"]()


def array_of(dtype, shape=(1,), content=b"\x01" * 8, is_fortran=b"\x89"):
    """A pickled array with this state."""
    made = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray") + number(0) + b"\x85"
    state = [
        number(1),
        sequence(map(number, shape)),
        dtype,
        is_fortran,
        b"C" + bytes([len(content)]) + content,
    ]
    return b"\x80\x02" + made + text("b") + b"\x87R" + sequence(state) + b"b."


def dtype_of(code="i8", order="<", rest=b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00"):
    state = b"(" + number(3) + text(order) + rest + b"t"
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state + b"b"


REFUSED = {
    "objects in a subarray": array_of(dtype_of_objects_in_a_subarray()),
    "objects": array_of(dtype_of("O8", "|")),
    "text": array_of(dtype_of("U2")),
    "void": array_of(dtype_of("V8", "|")),
    "several types": array_of(dtype_of("i4,O")),
    "fields": array_of(dtype_of(rest=b"N}" + text("a") + b"Ns}" + b"J\xff\xff\xff\xff" * 2 + b"K\x00")),
    "flags": array_of(dtype_of(rest=b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x3f")),
    "a size of items": array_of(dtype_of(rest=b"NNN" + number(0) * 2 + b"K\x00")),
    "fewer bytes than the shape": array_of(dtype_of(), shape=(2,)),
    "more bytes than the shape": array_of(dtype_of(), shape=(0,)),
    "a negative shape": array_of(dtype_of(), shape=(-1, -1)),
    "more dimensions than NumPy has": array_of(dtype_of(), shape=(1,) * 100),
    "an array larger than memory": array_of(dtype_of(), shape=(2**50, 2**20)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_only_plain_numbers_of_exactly_their_bytes_are_arrays(kind):
    assert as_array(read_pickle(io.BytesIO(array_of(dtype_of())))).tolist() == [0x0101010101010101]
    with pytest.raises(PickleError):
        as_array(read_pickle(io.BytesIO(REFUSED[kind])))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)),
        (-1, (2,), (1,)),
        (7, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (8,)),
        (0, (2,), ()),
        (0, (2**62, 4), (0, 0)),
        (2**62, (1,), (1,)),
    ],
)
def test_a_tensor_beyond_its_content_is_refused(offset, size, stride):
    kept = sequence([text("storage"), name("torch", "LongStorage"), text("0"), text("cpu"), number(8)]) + b"Q"
    arguments = [kept, number(offset), sequence(map(number, size)), sequence(map(number, stride)), b"\x89"]
    made = name("torch._utils", "_rebuild_tensor_v2") + sequence([*arguments, b"}"])
    file = as_torch_file(b"\x80\x02" + made + b"R.", bytes(64))
    with pytest.raises(PickleError, match=r"^(a tensor reaches beyond its content|the shape of a tensor)"):
        read_torch_file(file)[""]()


def test_a_crafted_labels_file_is_refused_where_it_made_pointers_of_bytes(tmp_path):
    pointers = pointers_of_bytes()
    followed = name("builtins", "set") + pointers + b"\x85R"
    for number_of_file, content in enumerate((followed, pointers)):
        path = tmp_path / f"{number_of_file}.pt"
        path.write_bytes(as_torch_file(b"\x80\x02}" + text("labels") + content + b"s.", b"").getvalue())
        with pytest.raises(ValueError, match=rf"^file: .*{number_of_file}\.pt.* is refused"):
            read_human_labels(path)


def test_a_tensor_that_is_compressed_or_missing_is_refused(tmp_path):
    file = io.BytesIO()
    torch.save(torch.zeros(100, dtype=torch.int64), file)
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            stored = zipfile.ZIP_STORED if member.endswith(".pkl") else zipfile.ZIP_DEFLATED
            target.writestr(member, source.read(member), stored)
    with pytest.raises(PickleError, match="compressed"):
        read_torch_file(packed)[""]()


LONG = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20)


@pytest.mark.parametrize(
    "sizes",
    [sequence([LONG + b"q\x01", *[b"h\x01"] * 300]), sequence([number(2**62)] * 100_000)],
    ids=["of two million digits each", "a hundred thousand"],
)
def test_sizes_whose_product_would_take_hours_are_no_shape(sizes):
    state = [number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), number(0)]
    dtype = name("numpy", "dtype") + text("u1") + b"\x89\x88\x87R" + sequence(state) + b"b"
    reconstruct = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray")
    array = reconstruct + number(0) + b"\x85" + text("b") + b"\x87R"
    content = (
        array + sequence([number(1), sizes, dtype, b"\x89", b"B" + struct.pack("<I", 8) + bytes(8)]) + b"b."
    )
    with pytest.raises(PickleError, match="is no shape"):
        as_array(read_pickle(io.BytesIO(b"\x80\x02" + content)))
    tensor = [text("storage"), name("torch", "LongStorage"), text("0"), text("cpu"), number(8)]
    content = (
        name("torch._utils", "_rebuild_tensor_v2")
        + sequence([sequence(tensor) + b"Q", number(0), sizes, sizes, b"\x89", b"N"])
        + b"R."
    )
    with pytest.raises(PickleError, match="is no shape"):
        read_torch_file(as_torch_file(b"\x80\x02" + content, bytes(64)))[""]()


def test_a_pickle_has_no_more_words_than_the_bound(monkeypatch):
    monkeypatch.setattr(pickled_arrays, "MAX_OPERATIONS", 100)
    with pytest.raises(PickleError, match="more than 100 words"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"]" * 1000 + b"."))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + b"N" + b"\x85" * 1_000_000 + b"Ns.",
        b"\x80\x02}" + b"N" + b"2\x86" * 100 + b"Ns.",
        b"\x80\x04" + b"N\x942\x86" * 100 + text("a") + b"\x93.",
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"0.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    ],
    ids=["deep key", "key of 2^100 parts", "name of 2^100 parts", "far memo", "claimed bytes"],
)
def test_nesting_and_claims_of_a_pickle_cost_nothing(content):
    with pytest.raises(PickleError):
        read_pickle(io.BytesIO(content))


@pytest.mark.parametrize("seed", range(2))
def test_no_crafted_pickle_ends_the_process(seed):
    command = [sys.executable, "-m", "tests.ncsam.hostile_pickles", str(seed), "2000"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
